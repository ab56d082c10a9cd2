//! Certificates and keys from PEM files.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use x509_parser::x509::X509Version;

use super::certificate::parse;
use super::problem::{FileRole, TlsError};
use super::provider;

/// Loads a certificate with its issuers, and its key.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<SingleCertAndKey, TlsError> {
    let chain = chain(certificate)?;
    let secret = private_key(key)?;
    let secret_der = secret.clone_key();
    let signing = provider().key_provider.load_private_key(secret);
    let signing = signing.map_err(|_| match has_p521(&secret_der) {
        true => TlsError::P521Key(key.to_owned()),
        false => TlsError::BadKey(key.to_owned()),
    })?;
    let public = signing.public_key();
    let of_key = |der: &CertificateDer<'_>| {
        let parsed = ParsedCertificate::try_from(der).ok()?;
        Some(Some(parsed.subject_public_key_info()) == public)
    };
    let Some(belongs) = chain.first().and_then(of_key) else {
        return Err(TlsError::BadCertificate(certificate.to_owned(), 1));
    };
    if !belongs {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        return Err(match chain.iter().position(|der| of_key(der) == Some(true)) {
            Some(at) => TlsError::Misordered { certificate, key, position: at + 1 },
            None => TlsError::Mismatch { certificate, key },
        });
    }
    Ok(CertifiedKey::new(chain, signing).into())
}

/// Loads the certificate chain that is presented to the peer: at least one certificate, and each is X.509.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = certificates(FileRole::Certificate, path)?;
    for (at, der) in chain.iter().enumerate() {
        match parse(der) {
            Some(parsed) if at == 0 && parsed.version() != X509Version::V3 => {
                return Err(TlsError::OldCertificate(path.to_owned()));
            }
            Some(_) => {}
            None => return Err(TlsError::BadCertificate(path.to_owned(), at + 1)),
        }
    }
    Ok(chain)
}

/// Loads the authorities of a file: the certificates themselves, and the root store of rustls.
pub(super) fn authorities(path: &Path) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), TlsError> {
    let found = certificates(FileRole::Authorities, path)?;
    let mut roots = RootCertStore::empty();
    for (at, der) in found.iter().enumerate() {
        let added = roots.add(der.clone());
        added.map_err(|_| TlsError::BadCertificate(path.to_owned(), at + 1))?;
    }
    Ok((found, roots))
}

fn certificates(holds: FileRole, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(holds, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|why| broken(path, &why))?;
    if found.is_empty() { Err(missing(holds, path, &text)) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(FileRole::Key, path)?;
    // PKCS #8 has a label for encrypted keys; the older format has a header line in an otherwise regular section.
    if contains(&text, "BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, "Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|why| match why {
        pem::Error::NoItemsFound => missing(FileRole::Key, path, &text),
        why => broken(path, &why),
    })
}

fn read(holds: FileRole, path: &Path) -> Result<Vec<u8>, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Unreadable(holds, path.to_owned(), source))?;
    if text.trim_ascii().is_empty() {
        return Err(TlsError::Empty(holds, path.to_owned()));
    }
    Ok(without_byte_order_marks(text))
}

/// Removes the byte order marks that Windows writes at the start of UTF-8 text, and that `cat` moves into the middle:
/// a PEM line after one would not be recognised.
fn without_byte_order_marks(text: Vec<u8>) -> Vec<u8> {
    if !contains(&text, "-----BEGIN ") {
        return text;
    }
    // Other encodings than UTF-8 can only be in comments.
    String::from_utf8_lossy(&text).replace('\u{feff}', "").into_bytes()
}

fn missing(holds: FileRole, path: &Path, text: &[u8]) -> TlsError {
    let hint = match holds {
        // Both are a DER SEQUENCE, which starts with this byte.
        FileRole::Key if text.starts_with(b"\x30") => {
            "it seems to be DER; turn it into PEM with \"openssl pkey -inform der -in OLD -out NEW\""
        }
        _ if text.starts_with(b"\x30") => {
            "it seems to be DER; turn it into PEM with \"openssl x509 -inform der -in OLD -out NEW\""
        }
        _ if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") => {
            "it is text in UTF-16, as Windows writes it; save it as UTF-8 or ASCII"
        }
        FileRole::Key if contains(text, "BEGIN OPENSSH PRIVATE KEY") => "what it holds is a key of SSH",
        FileRole::Key if contains(text, "BEGIN CERTIFICATE-----") => {
            "it holds a certificate; the two files may be swapped"
        }
        _ if contains(text, "PRIVATE KEY-----") => "it holds a private key; the two files may be swapped",
        _ if contains(text, "CERTIFICATE REQUEST-----") => {
            "it holds a request for one; what the CA made of it is wanted"
        }
        _ => holds.expected(),
    };
    TlsError::Missing(holds, path.to_owned(), hint)
}

/// Returns whether `key` contains the object identifier of the curve P-521: 1.3.132.0.35.
fn has_p521(key: &PrivateKeyDer<'_>) -> bool {
    memchr::memmem::find(key.secret_der(), b"\x06\x05\x2b\x81\x04\x00\x23").is_some()
}

/// Describes invalid PEM without the invalid line, which may contain the key.
fn broken(path: &Path, why: &pem::Error) -> TlsError {
    let why = match why {
        pem::Error::MissingSectionEnd { .. } => "it has a BEGIN line without its END line",
        pem::Error::IllegalSectionStart { .. } => "it has a BEGIN line that is not whole",
        pem::Error::Base64Decode(_) => "what stands between a BEGIN and an END line is not base64",
        _ => "it is not PEM",
    };
    TlsError::Broken(path.to_owned(), why)
}

fn contains(text: &[u8], pattern: &str) -> bool {
    memchr::memmem::find(text, pattern.as_bytes()).is_some()
}
