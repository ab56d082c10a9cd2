//! TLS for clients.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use super::certificate::{Certificate, describe};
use super::problem::TlsError;
use super::{HTTP_1, HTTP_2, files, provider};

/// The files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate in PEM, followed by those of its issuers.
    pub certificate: PathBuf,
    /// Its private key in PEM, unencrypted.
    pub key: PathBuf,
    /// The authorities of client certificates in PEM. If set, a client without such a certificate is rejected.
    pub client_ca: Option<PathBuf>,
}

/// Builds the configuration of a listener: TLS 1.2 and 1.3, HTTP/2 preferred to HTTP/1.1.
///
/// An expired certificate is not an error, because clients may accept it: check [`read_certificate`], and warn. The key
/// does not match the certificate for a moment while the two files are being replaced: keep the current configuration,
/// and retry.
pub fn server(files: &ServerFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = files::identity(&files.certificate, &files.key)?;
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (_, roots) = files::authorities(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            let verifier =
                verifier.map_err(|why| TlsError::Setup(rustls::Error::General(why.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(Arc::new(config))
}

/// Reads the certificate of a listener, to check its expiry.
pub fn read_certificate(files: &ServerFiles) -> Result<Certificate, TlsError> {
    let chain = files::chain(&files.certificate)?;
    let own = chain.first().and_then(describe);
    own.ok_or_else(|| TlsError::BadCertificate(files.certificate.clone(), 1))
}
