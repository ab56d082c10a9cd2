//! TLS towards a backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::CertificateResult;

use super::fingerprint::Fingerprint;
use super::printable::printable;
use super::problem::TlsError;
use super::verifier::{ListedVerifier, UnchainedVerifier};
use super::{HTTP_1, files, provider};

/// What makes a backend's certificate a good one. Whatever it is, the backend must prove that it has
/// the key of the certificate that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// An authority of the system signed it, for the name of the backend, and it has not expired. The
    /// variables `SSL_CERT_FILE` and `SSL_CERT_DIR` replace those of the system.
    System,
    /// An authority of this PEM file signed it, or it stands there itself; the name and the time count.
    Authority(PathBuf),
    /// It is this one. Its name, its issuer and its time do not count.
    Pinned(Fingerprint),
    /// Any certificate is good. Whoever is in between can read and change everything, the key included.
    Insecure,
}

/// What a connection to a backend needs: TLS 1.2 and 1.3, HTTP/1.1 and nothing else.
///
/// `client_certificate` is a file with a certificate in PEM and one with its key, for a backend that
/// asks for them.
///
/// # Errors
/// A file cannot be used, the key is not that of the certificate, or the system has no authorities.
pub fn client(
    trust: &Trust,
    client_certificate: Option<(&Path, &Path)>,
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

fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(match trust {
        Trust::System => {
            let roots = system(rustls_native_certs::load_native_certs())?;
            Arc::new(ListedVerifier::new(Vec::new(), chain_verifier(roots)?))
        }
        Trust::Authority(path) => {
            let (listed, roots) = files::authorities(path)?;
            Arc::new(ListedVerifier::new(listed, chain_verifier(roots)?))
        }
        Trust::Pinned(pin) => Arc::new(UnchainedVerifier::pinned(*pin)),
        Trust::Insecure => Arc::new(UnchainedVerifier::any()),
    })
}

fn chain_verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    built.map_err(|why| TlsError::Setup(rustls::Error::General(why.to_string())))
}

/// The authorities that were found. A single one that cannot be read is no reason to trust nobody.
pub(super) fn system(found: CertificateResult) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|why| printable(&why.to_string(), 512));
        return Err(TlsError::NoSystemRoots { why });
    }
    Ok(roots)
}
