//! TLS for backends.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::CertificateResult;

use super::certificate::printable;
use super::fingerprint::Fingerprint;
use super::problem::TlsError;
use super::verifier::{Accepted, BackendVerifier};
use super::{HTTP_1, files, provider};

/// Which certificates of a backend are trusted. In every case the backend must prove that it holds the key of its
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Signed by an authority of the system, for the host name of the backend, and not expired. `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` replace the authorities of the system.
    System,
    /// Signed by an authority in this PEM file, or listed there itself. The host name and the validity are checked.
    Authority(PathBuf),
    /// This certificate only. Its host name, issuer and validity are not checked.
    Pinned(Fingerprint),
    /// Any certificate. An attacker in between can read and change everything, including the API key.
    Insecure,
}

/// Builds the configuration for a backend: TLS 1.2 and 1.3, and only HTTP/1.1.
///
/// `client_certificate` is a PEM file with a certificate and one with its key, for a backend that requires a client
/// certificate.
pub fn client(
    trust: &Trust,
    client_certificate: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(trust)?);
    let mut config = match client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_cert_resolver(Arc::new(files::identity(certificate, key)?))
        }
    };
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    Ok(Arc::new(config))
}

fn verifier(trust: &Trust) -> Result<Arc<BackendVerifier>, TlsError> {
    let (listed, roots) = match trust {
        Trust::System => (Vec::new(), system(rustls_native_certs::load_native_certs())?),
        Trust::Authority(path) => files::authorities(path)?,
        Trust::Pinned(pin) => return Ok(BackendVerifier::new(Accepted::Pinned(*pin))),
        Trust::Insecure => return Ok(BackendVerifier::new(Accepted::Any)),
    };
    let chained = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let chained = chained.map_err(|why| TlsError::Setup(rustls::Error::General(why.to_string())))?;
    Ok(BackendVerifier::new(Accepted::Issued { listed, chained }))
}

/// The authorities that were found. Unreadable ones are skipped.
pub(super) fn system(found: CertificateResult) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|why| printable(&why.to_string(), 512));
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(roots)
}
