//! What a certificate says.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use super::fingerprint::Fingerprint;
use super::printable::printable;

/// How much of a text in a certificate is shown, in characters. A host name has at most 253.
const MAX_CHARS: usize = 512;

/// What a certificate says of itself. Nothing of it is verified; its texts may be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: `CN=pve1, O=Example`. It is often empty.
    pub subject: String,
    /// Who signed it. The same as the subject when it is self-signed.
    pub issuer: String,
    /// The hosts that it is for: DNS names and addresses of its `subjectAltName`. What else stands there
    /// is left out.
    pub names: Vec<String>,
    /// The first moment of its validity.
    pub not_before: SystemTime,
    /// The last moment of its validity.
    pub not_after: SystemTime,
    /// Its SHA-256.
    pub fingerprint: Fingerprint,
}

/// What `der` says, if it is a certificate.
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

/// `der`, if it is a certificate and nothing behind it.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

/// The length of the key of `der` in bits, if it is an RSA key.
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
