//! The contents of a certificate.

use std::net::IpAddr;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;

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
        not_before: parsed.validity().not_before.to_datetime().into(),
        not_after: parsed.validity().not_after.to_datetime().into(),
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
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(address.ok()?.to_string())
        }
        _ => None,
    }
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
    fn a_text_is_escaped_where_it_does_not_print_and_cut_where_it_is_too_long() {
        let prints = "CN=pve1.example.org, O=Bücher \"&\" Söhne's";
        for (text, limit, expected) in [
            ("", 100, ""),
            (prints, 100, prints),
            ("a\n\u{1b}[2Jb\u{202e}c\\", 100, "a\\n\\u{1b}[2Jb\\u{202e}c\\\\"),
            ("aaaa", 4, "aaaa"),
            ("aaaaa", 4, "aaaa..."),
        ] {
            assert_eq!(printable(text, limit), expected);
        }
    }
}
