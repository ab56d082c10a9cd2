//! Trust in backends, and the errors of untrusted ones.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig, SignatureAlgorithm, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::support::*;
use crate::core::remote::Remote;
use crate::tls::trust::system;
use crate::tls::{Fingerprint, TlsError, Trust, client, explain, plain_on_tls, server};

const UNKNOWN: &str = "its certificate was not issued by an authority that is trusted here: name the file \
                       of its CA in backend.ca_file, or pin the certificate in backend.pin";

const WRONG_KEY: &str = "its certificate or its handshake is signed with a wrong key: if its CA was made \
                         anew, name the new one in backend.ca_file; if not, somebody may stand in between";

/// A backend with a certificate of an authority whose file is available.
struct Backend {
    folder: Folder,
    authority: Authority,
}

impl Backend {
    fn new() -> Self {
        Self { folder: Folder::new(), authority: authority("ca") }
    }

    /// Trust in the authorities of `pem`, which is written to the file `name`.
    fn trust(&self, name: &str, pem: &str) -> Trust {
        Trust::Authority(self.folder.write(name, pem))
    }

    fn own_trust(&self) -> Trust {
        self.trust("ca.pem", &self.authority.pem())
    }

    fn listed(&self, leaf: &Leaf) -> Trust {
        self.trust("self.pem", &leaf.certificate.pem())
    }

    /// Connects a client with `trust` to a server with `leaf`.
    async fn meets(&self, leaf: &Leaf, trust: &Trust, name: &str) -> Result<Stands, String> {
        let server = server(&self.folder.leaf("leaf", leaf)).unwrap();
        meet(&server, &client(trust, None).unwrap(), name).await
    }
}

/// Performs a handshake, and returns the client's result with the error as text.
async fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> Result<Stands, String> {
    let (near, far) = shake(server, client, name).await;
    assert_eq!(near.is_ok(), far.is_ok(), "{near:?} {far:?}");
    near.map_err(|why| explain(Remote::Backend, &why))
}

fn pin(der: &CertificateDer<'_>) -> Trust {
    Trust::Pinned(Fingerprint::from_certificate(der))
}

#[tokio::test]
async fn a_certificate_of_an_authority_in_the_file_is_good_for_its_names() {
    let backend = Backend::new();
    let leaf = Leaf::changed(&backend.authority, |params| {
        *params = rcgen::CertificateParams::new([HOST.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    });
    let two = backend.trust("two.pem", &(authority("other").pem() + &backend.authority.pem()));
    for (name, trust) in [(HOST, backend.own_trust()), ("127.0.0.1", backend.own_trust()), (HOST, two)] {
        let stands = backend.meets(&leaf, &trust, name).await.unwrap();
        assert_eq!(stands.version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(
            stands.protocol.as_deref(),
            Some(&b"http/1.1"[..]),
            "nothing else is offered to a backend"
        );
    }
}

#[tokio::test]
async fn every_other_certificate_is_refused_with_the_reason() {
    let backend = Backend::new();
    let ca = &backend.authority;
    let many = || {
        let names: Vec<_> = (1..=9).map(|n| format!("n{n}")).chain(["10.0.0.1".to_owned()]).collect();
        Leaf::changed(ca, |params| *params = rcgen::CertificateParams::new(names).unwrap())
    };
    let mut texts = String::new();
    for (case, leaf, name) in [
        ("its authority has the name of the trusted one", Leaf::issued_by(&authority("ca")), HOST),
        ("its authority is another one", Leaf::issued_by(&authority("other")), HOST),
        ("it has another name", Leaf::issued_by(ca), "pve2"),
        ("it has many other names", many(), "pve2"),
        ("it has other addresses", many(), "10.0.0.2"),
        ("it has no name", Leaf::changed(ca, |params| params.subject_alt_names.clear()), HOST),
        ("it has expired", Leaf::changed(ca, expired), HOST),
        ("it is not valid yet", Leaf::changed(ca, premature), HOST),
    ] {
        let why = backend.meets(&leaf, &backend.own_trust(), name).await.unwrap_err();
        texts += &format!("{case}:\n    {why}\n");
    }
    insta::assert_snapshot!(texts);
}

#[tokio::test]
async fn a_self_signed_certificate_in_the_file_is_good_for_its_name_and_its_time() {
    let backend = Backend::new();
    let own = Leaf::self_signed(|_| {});
    backend.meets(&own, &backend.listed(&own), HOST).await.unwrap();
    let (old, early) = (Leaf::self_signed(expired), Leaf::self_signed(premature));
    let mut texts = String::new();
    for (case, listed, shown, name) in [
        ("it has another name", &own, &own, "pve2"),
        ("it is not listed", &own, &Leaf::self_signed(|_| {}), HOST),
        ("it has expired", &old, &old, HOST),
        ("it is not valid yet", &early, &early, HOST),
    ] {
        let why = backend.meets(shown, &backend.listed(listed), name).await.unwrap_err();
        texts += &format!("{case}:\n    {why}\n");
    }
    insta::assert_snapshot!(texts);
}

#[tokio::test]
async fn the_authorities_of_the_system_are_those_that_were_found_there() {
    let backend = Backend::new();
    let mut found = rustls_native_certs::CertificateResult::default();
    found.certs.push(CertificateDer::from(b"not a certificate".to_vec()));
    found.certs.push(backend.authority.der().clone());
    assert_eq!(system(found).unwrap().len(), 1);
    // The test's authority is not in the system's store.
    match client(&Trust::System, None) {
        Ok(client) => {
            let server = server(&backend.folder.leaf("leaf", &Leaf::issued_by(&backend.authority))).unwrap();
            assert_eq!(meet(&server, &client, HOST).await.unwrap_err(), UNKNOWN);
        }
        Err(why) => assert!(matches!(why, TlsError::NoSystemRoots(_)), "{why}"),
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_good_whatever_it_says_and_any_one_is_when_nothing_is_to_be_secure() {
    let backend = Backend::new();
    for leaf in [
        Leaf::issued_by(&backend.authority),
        Leaf::changed(&backend.authority, expired),
        Leaf::self_signed(|params| params.subject_alt_names.clear()),
    ] {
        for (trust, name) in [
            (pin(leaf.der()), HOST),
            (pin(leaf.der()), "pve2"),
            (pin(leaf.der()), "127.0.0.1"),
            (Trust::Insecure, "pve2"),
        ] {
            backend.meets(&leaf, &trust, name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn every_other_certificate_than_the_pinned_one_is_refused() {
    let backend = Backend::new();
    let (leaf, pinned) = (Leaf::issued_by(&backend.authority), Leaf::issued_by(&backend.authority));
    let why = backend.meets(&leaf, &pin(pinned.der()), HOST).await.unwrap_err();
    let (shown, pinned) =
        (Fingerprint::from_certificate(leaf.der()), Fingerprint::from_certificate(pinned.der()));
    assert_eq!(
        why,
        format!(
            "its certificate has the fingerprint {shown}, and backend.pin is {pinned}: if it was \
             renewed, set the new one; if not, somebody stands in between"
        )
    );
    // The certificate of its authority is not the pinned one either.
    backend.meets(&leaf, &pin(backend.authority.der()), HOST).await.unwrap_err();
}

#[tokio::test]
async fn a_peer_needs_the_key_of_its_certificate_under_every_trust_and_no_newer_tls_than_1_2() {
    let backend = Backend::new();
    let (leaf, own) = (Leaf::issued_by(&backend.authority), Leaf::self_signed(|_| {}));
    for (leaf, trust) in [
        (&leaf, backend.own_trust()),
        (&leaf, pin(leaf.der())),
        (&leaf, Trust::Insecure),
        (&own, backend.listed(&own)),
    ] {
        let client = client(&trust, None).unwrap();
        let stands = meet(&server_with(&TLS12, leaf.der(), &leaf.key), &client, HOST).await.unwrap();
        assert_eq!(stands.version, Some(ProtocolVersion::TLSv1_2));
        for version in [&TLS12, &TLS13] {
            let impostor = server_with(version, leaf.der(), &key());
            assert_eq!(meet(&impostor, &client, HOST).await.unwrap_err(), WRONG_KEY, "{trust:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_version_1_can_be_pinned() {
    let backend = Backend::new();
    let leaf = Leaf::issued_by(&backend.authority);
    let old = version_1(leaf.der());
    let server = server_with(&TLS13, &old, &leaf.key);
    for trust in [pin(&old), Trust::Insecure] {
        meet(&server, &client(&trust, None).unwrap(), HOST).await.unwrap();
    }
    let impostor = server_with(&TLS13, &old, &key());
    meet(&impostor, &client(&pin(&old), None).unwrap(), HOST).await.unwrap_err();
    let why = meet(&server, &client(&backend.own_trust(), None).unwrap(), HOST).await.unwrap_err();
    let made_again = "its certificate is damaged, or of X.509 version 1, which only a pin accepts, and only \
                      in TLS 1.3: make it again with a subjectAltName";
    assert_eq!(why, made_again);
    let server = server_with(&TLS12, &old, &leaf.key);
    let why = meet(&server, &client(&pin(&old), None).unwrap(), HOST).await.unwrap_err();
    assert_eq!(why, made_again);
}

#[tokio::test]
async fn a_backend_that_wants_a_client_certificate_gets_the_one_that_is_named() {
    let (backend, people) = (Backend::new(), authority("people"));
    let mut files = backend.folder.leaf("leaf", &Leaf::issued_by(&backend.authority));
    files.client_ca = Some(backend.folder.write("people.pem", people.pem()));
    let server = server(&files).unwrap();
    let own = Leaf::issued_by(&people);
    let shown = backend.folder.leaf("client", &own);
    let stranger = backend.folder.leaf("stranger", &Leaf::issued_by(&backend.authority));
    let good = client(&backend.own_trust(), Some(&pair(&shown))).unwrap();
    let (near, far) = shake(&server, &good, HOST).await;
    near.unwrap();
    assert_eq!(far.unwrap().peer.as_ref(), Some(own.der()));

    for (identity, expected) in [
        (None, "it requires a client certificate: set backend.client_certificate and its key"),
        (
            Some(&pair(&stranger)),
            "it refused the client certificate (UnknownCA): set backend.client_certificate to one that it accepts",
        ),
    ] {
        let (near, far) = shake(&server, &client(&backend.own_trust(), identity).unwrap(), HOST).await;
        assert_eq!(explain(Remote::Backend, &near.unwrap_err()), expected);
        far.unwrap_err();
    }
}

#[tokio::test]
async fn a_plain_http_port_is_distinguished_from_one_that_fails() {
    let plain =
        "what it speaks is not TLS: if it is plain HTTP, write http:// instead of https:// in backend.url";
    let failed = "it closed the connection during the TLS handshake: if it speaks plain HTTP, write http:// in \
                  backend.url; if it speaks TLS, its log says why";
    let old = b"HTTP/1.0 400 Bad request\r\n\r\n".to_vec();
    for (answer, expected) in [(plain_on_tls(), plain), (old, plain), (Vec::new(), failed)] {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let connector = TlsConnector::from(client(&Trust::Insecure, None).unwrap());
        let port = async move {
            let _hello = far.read(&mut [0; 4096]).await.unwrap();
            far.write_all(&answer).await.unwrap();
        };
        let (shaken, ()) = tokio::join!(connector.connect(HOST.try_into().unwrap(), near), port);
        assert_eq!(explain(Remote::Backend, &shaken.unwrap_err()), expected);
    }
}

/// A self-signed certificate with an RSA key of 1,024 bits, which no library here generates.
const SHORT: &str = include_str!("short-key.pem");

/// An authority with such a key.
const OLD_CA: &str = include_str!("old-ca.pem");

/// A certificate issued by that authority, with a key of sufficient length.
const OF_OLD_CA: &str = include_str!("of-old-ca.pem");

/// Returns invalid signatures: a signature of a key that is too short is not verified.
#[derive(Debug)]
struct Forger;

impl SigningKey for Forger {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl Signer for Forger {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![1; 128])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::RSA_PSS_SHA256
    }
}

/// A server with `certificate` that returns invalid signatures.
fn forging_server(certificate: CertificateDer<'static>) -> Arc<ServerConfig> {
    server_of(&TLS13, CertifiedKey::new(vec![certificate], Arc::new(Forger)))
}

#[tokio::test]
async fn a_key_that_is_too_short_is_distinguished_from_interception() {
    let backend = Backend::new();
    let short = CertificateDer::from_pem_slice(SHORT.as_bytes()).unwrap();
    let listed = backend.trust("short.pem", SHORT);
    let server = forging_server(short.clone());
    for trust in [pin(&short), Trust::Insecure, listed.clone()] {
        let why = meet(&server, &client(&trust, None).unwrap(), HOST).await.unwrap_err();
        assert_eq!(
            why,
            "its certificate, or one above it, has an RSA key of 1024 bits, which is too short, whatever is trusted: \
             make a key of 2048 bits or more, and a new certificate for it; if you did not make this one, somebody may \
             stand in between",
            "{trust:?}"
        );
    }
    let issued = CertificateDer::from_pem_slice(OF_OLD_CA.as_bytes()).unwrap();
    let trust = backend.trust("old-ca.pem", OLD_CA);
    let why = meet(&forging_server(issued), &client(&trust, None).unwrap(), HOST).await.unwrap_err();
    assert!(why.starts_with("its certificate, or one above it, has an RSA key of 1024 bits"), "{why}");
}

#[tokio::test]
async fn a_short_key_of_an_authority_that_has_issued_nothing_here_is_not_the_reason_of_a_wrong_signature() {
    let backend = Backend::new();
    let both = backend.trust("both.pem", &(backend.authority.pem() + OLD_CA));
    let forged = Leaf::issued_by(&authority("ca"));
    assert_eq!(backend.meets(&forged, &both, HOST).await.unwrap_err(), WRONG_KEY);
}
