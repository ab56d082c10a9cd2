//! The contents of a certificate.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use super::fingerprint::Fingerprint;
use super::printable::printable;

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
