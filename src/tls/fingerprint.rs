//! Fingerprints of certificates.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

const LENGTH: usize = 32;
const SHA1_LENGTH: usize = 20;

/// The SHA-256 of a certificate in DER, as `openssl x509 -noout -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; LENGTH]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is not a fingerprint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFingerprint {
    /// It is not hexadecimal.
    #[error(
        "a fingerprint is 64 hexadecimal digits, with a colon between each two of them or with none at all; \
         openssl x509 -noout -fingerprint -sha256 prints it behind the ="
    )]
    NotHex,
    /// It is a SHA-1 fingerprint.
    #[error(
        "this is a fingerprint of SHA-1; one of SHA-256 has 64 digits: add -sha256 to the openssl command"
    )]
    Sha1,
    /// It has another number of digits.
    #[error("a fingerprint of SHA-256 has 64 hexadecimal digits, and this has {0}")]
    Length(usize),
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Parses hexadecimal digits in either case, with colons between all bytes or without any.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let bytes = if text.contains(':') {
            text.split(':').map(|pair| byte(pair.as_bytes())).collect::<Option<Vec<_>>>()
        } else {
            text.as_bytes().chunks(2).map(byte).collect()
        };
        let bytes = bytes.ok_or(InvalidFingerprint::NotHex)?;
        match bytes.len() {
            0 => Err(InvalidFingerprint::NotHex),
            SHA1_LENGTH => Err(InvalidFingerprint::Sha1),
            length => bytes.try_into().map(Self).map_err(|_| InvalidFingerprint::Length(2 * length)),
        }
    }
}

/// The byte of two hexadecimal digits.
fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output format of `openssl x509 -fingerprint -sha256`.
    const EMPTY: &str =
        "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55";

    #[test]
    fn a_fingerprint_is_read_with_colons_and_without_and_shown_with_them() {
        let plain = EMPTY.replace(':', "");
        for text in [EMPTY, &plain, &EMPTY.to_lowercase(), &plain.to_lowercase()] {
            let read: Fingerprint = text.parse().unwrap();
            assert_eq!(read, Fingerprint::from_certificate(&CertificateDer::from(Vec::new())));
            assert_eq!(read.to_string(), EMPTY);
            assert_eq!(format!("{read:?}"), EMPTY);
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let sha1 = &EMPTY[..59];
        let moved = format!("E:3{}", &EMPTY[2..]);
        let mixed = EMPTY.replacen(':', "", 1);
        for (text, why) in [
            ("", InvalidFingerprint::NotHex),
            (":", InvalidFingerprint::NotHex),
            ("abc", InvalidFingerprint::NotHex),
            ("+1+1", InvalidFingerprint::NotHex),
            ("éé", InvalidFingerprint::NotHex),
            ("SHA256:abcd", InvalidFingerprint::NotHex),
            (&moved, InvalidFingerprint::NotHex),
            (&mixed, InvalidFingerprint::NotHex),
            (&EMPTY[..EMPTY.len() - 1], InvalidFingerprint::NotHex),
            (sha1, InvalidFingerprint::Sha1),
            (&EMPTY[3..], InvalidFingerprint::Length(62)),
            (&format!("{EMPTY}:00"), InvalidFingerprint::Length(66)),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(why), "{text:?}");
        }
    }
}
