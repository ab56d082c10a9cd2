//! The contents of a certificate.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use super::fingerprint::Fingerprint;

/// The maximum length of a displayed text from a certificate, in characters. A host name has at most 253.
const MAX_CHARS: usize = 512;

/// The contents of a certificate. They are not verified; the texts are printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject: `CN=pve1, O=Example`. It is often empty.
    pub subject: String,
    /// The issuer. It equals the subject if the certificate is self-signed.
    pub issuer: String,
    /// The hosts that it is valid for: the DNS names and addresses of its `subjectAltName`. Other entries are
    /// omitted.
    pub names: Vec<String>,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// Its SHA-256 fingerprint.
    pub fingerprint: Fingerprint,
}

/// Parses and describes `der`, if it is a certificate.
pub fn describe(der: &CertificateDer<'_>) -> Option<Certificate> {
    let parsed = parse(der)?;
    let names = match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    Some(Certificate {
        subject: printable(&parsed.subject().to_string(), MAX_CHARS),
        issuer: printable(&parsed.issuer().to_string(), MAX_CHARS),
        names,
        not_before: moment(parsed.validity().not_before)?,
        not_after: moment(parsed.validity().not_after)?,
        fingerprint: Fingerprint::from_certificate(der),
    })
}

/// Parses `der`, if it is a certificate without trailing data.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

/// The length of the RSA key of `der` in bits, if it has one.
pub(super) fn rsa_bits(der: &CertificateDer<'_>) -> Option<usize> {
    match parse(der)?.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => {
            let leading = key.modulus.iter().take_while(|byte| **byte == 0).count();
            Some(8 * (key.modulus.len() - leading))
        }
        _ => None,
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name, MAX_CHARS)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string())).ok()
        }
        _ => None,
    }
}

fn moment(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    if seconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }
}

/// The first `limit` characters of `text`, with unprintable ones escaped: control characters, and those that change
/// the direction of text.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for c in text.chars().take(limit) {
        match c {
            '"' | '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(limit).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_is_not_touched() {
        for text in ["", "CN=pve1.example.org, O=Bücher \"&\" Söhne's"] {
            assert_eq!(printable(text, 100), text);
        }
    }

    #[test]
    fn what_does_not_print_is_escaped() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{202e}c\\", 100), "a\\n\\u{1b}[2Jb\\u{202e}c\\\\");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(printable("aaaa", 4), "aaaa");
        assert_eq!(printable("aaaaa", 4), "aaaa...");
    }
}
