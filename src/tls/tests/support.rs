//! Certificates in files, and handshakes without a network.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls::verifier::{Accepted, BackendVerifier};
use crate::tls::{ServerFiles, provider};

/// The host name of every leaf, unless a test changes it.
pub(super) const HOST: &str = "pve1.example.org";

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(super) fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub(super) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(super) fn authority(name: &str) -> Authority {
    let mut params = params(name);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

/// A certificate and its key.
pub(super) struct Leaf {
    pub(super) certificate: Certificate,
    pub(super) key: KeyPair,
}

impl Leaf {
    pub(super) fn issued_by(issuer: &Authority) -> Self {
        Self::changed(issuer, |_| {})
    }

    pub(super) fn changed(issuer: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (params("leaf"), key());
        change(&mut params);
        Self { certificate: params.signed_by(&key, issuer).unwrap(), key }
    }

    /// A self-signed certificate that is also an authority, as `openssl req -x509` creates it.
    pub(super) fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (params("itself"), key());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

pub(super) fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
}

pub(super) fn premature(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(4000, 1, 1);
}

/// A directory with files.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The two files of a leaf.
    pub(super) fn leaf(&self, name: &str, leaf: &Leaf) -> ServerFiles {
        ServerFiles {
            certificate: self.write(&format!("{name}.pem"), leaf.certificate.pem()),
            key: self.write(&format!("{name}.key"), leaf.key.serialize_pem()),
            client_ca: None,
        }
    }
}

pub(super) fn pair(files: &ServerFiles) -> (PathBuf, PathBuf) {
    (files.certificate.clone(), files.key.clone())
}

/// A server that does not check that its key matches its certificate.
pub(super) fn server_with(
    version: &'static SupportedProtocolVersion,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Arc<ServerConfig> {
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let signing = provider().key_provider.load_private_key(secret).unwrap();
    server_of(version, CertifiedKey::new(vec![certificate.clone()], signing))
}

pub(super) fn server_of(
    version: &'static SupportedProtocolVersion,
    identity: CertifiedKey,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

/// A client with the given version and protocols that accepts any certificate.
pub(super) fn client_with(
    version: &'static SupportedProtocolVersion,
    protocols: &[&[u8]],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(BackendVerifier::new(Accepted::Any));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// The properties of an established connection.
#[derive(Debug)]
pub(super) struct Stands {
    pub(super) protocol: Option<Vec<u8>>,
    pub(super) version: Option<ProtocolVersion>,
    pub(super) kind: Option<HandshakeKind>,
    pub(super) peer: Option<CertificateDer<'static>>,
}

impl Stands {
    fn new(common: &rustls::CommonState) -> Self {
        Self {
            protocol: common.alpn_protocol().map(<[u8]>::to_vec),
            version: common.protocol_version(),
            kind: common.handshake_kind(),
            peer: common.peer_certificates().and_then(|chain| chain.first().cloned()),
        }
    }
}

/// Performs a handshake, after which the server sends two bytes: in TLS 1.3 a client learns by reading that it was
/// refused.
pub(super) async fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (io::Result<Stands>, io::Result<Stands>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async {
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, near).await?;
        stream.read_exact(&mut [0; 2]).await?;
        Ok(Stands::new(stream.get_ref().1))
    };
    let server = async {
        let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(far).await?;
        stream.write_all(b"ok").await?;
        stream.flush().await?;
        Ok(Stands::new(stream.get_ref().1))
    };
    tokio::join!(client, server)
}

/// The same certificate in version 1, which has no extensions. Its signature is not valid.
pub(super) fn version_1(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
    let whole = parsed.tbs_certificate.as_ref();
    let after = |hay: &[u8], needle: &[u8]| memchr::memmem::find(hay, needle).unwrap() + needle.len();
    let from = after(whole, b"\xa0\x03\x02\x01\x02");
    let to = after(whole, parsed.public_key().raw);
    let mut content = sequence(&whole[from..to]);
    content.extend_from_slice(&der[after(der, whole)..]);
    sequence(&content).into()
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &length[..], content].concat()
}

pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
