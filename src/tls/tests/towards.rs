//! Trust in backends, and the errors of untrusted ones.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig, SignatureAlgorithm, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;

use super::support::*;
use crate::core::remote::Remote;
use crate::tls::trust::system;
use crate::tls::{Fingerprint, TlsError, Trust, client, explain, plain_on_tls, provider, server};

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

    fn trust(&self) -> Trust {
        Trust::Authority(self.folder.write("ca.pem", self.authority.pem()))
    }

    fn serves(&self, leaf: &Leaf) -> Arc<ServerConfig> {
        server(&self.folder.leaf("leaf", leaf)).unwrap()
    }

    /// Connects a client with `trust` to a server with `leaf`.
    async fn meets(&self, leaf: &Leaf, trust: &Trust, name: &str) -> Result<Stands, String> {
        meet(&self.serves(leaf), &client(trust, None).unwrap(), name).await
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
async fn a_certificate_of_the_authority_in_the_file_is_good_for_its_names() {
    let backend = Backend::new();
    let leaf = Leaf::changed(&backend.authority, |params| {
        *params = rcgen::CertificateParams::new([HOST.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    });
    for name in [HOST, "127.0.0.1"] {
        let stands = backend.meets(&leaf, &backend.trust(), name).await.unwrap();
        assert_eq!(stands.version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(
            stands.protocol.as_deref(),
            Some(&b"http/1.1"[..]),
            "nothing else is offered to a backend"
        );
    }
}

#[tokio::test]
async fn a_file_may_hold_many_authorities() {
    let backend = Backend::new();
    let both = authority("other").pem() + &backend.authority.pem();
    let trust = Trust::Authority(backend.folder.write("both.pem", both));
    backend.meets(&Leaf::issued_by(&backend.authority), &trust, HOST).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let backend = Backend::new();
    // The same name as the real one, so that only its key differs.
    let leaf = Leaf::issued_by(&authority("ca"));
    let why = backend.meets(&leaf, &backend.trust(), HOST).await.unwrap_err();
    assert_eq!(why, WRONG_KEY);
    let why = backend.meets(&Leaf::issued_by(&authority("other")), &backend.trust(), HOST).await.unwrap_err();
    assert_eq!(why, UNKNOWN);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_with_its_names() {
    let backend = Backend::new();
    let why =
        backend.meets(&Leaf::issued_by(&backend.authority), &backend.trust(), "pve2").await.unwrap_err();
    assert_eq!(
        why,
        "its certificate is for pve1.example.org, not for pve2: use a name that it has in backend.url, or \
         pin it in backend.pin"
    );
    let many = Leaf::changed(&backend.authority, |params| {
        let names: Vec<_> = (1..=9).map(|n| format!("n{n}")).chain(["10.0.0.1".to_owned()]).collect();
        *params = rcgen::CertificateParams::new(names).unwrap();
    });
    for (name, start) in [
        ("pve2", "its certificate is for n1, n2, n3, n4, n5, n6, n7, n8 and 2 more, not for pve2: "),
        ("10.0.0.2", "its certificate is for n1, n2, n3, n4, n5, n6, n7, n8 and 2 more, not for 10.0.0.2: "),
    ] {
        let why = backend.meets(&many, &backend.trust(), name).await.unwrap_err();
        assert!(why.starts_with(start), "{why}");
    }
    let none = Leaf::changed(&backend.authority, |params| params.subject_alt_names.clear());
    let why = backend.meets(&none, &backend.trust(), HOST).await.unwrap_err();
    assert_eq!(
        why,
        "its certificate is for no host at all, and so not for pve1.example.org: make it again with a \
         subjectAltName, or pin it in backend.pin"
    );
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_with_the_time() {
    let backend = Backend::new();
    let why =
        backend.meets(&Leaf::changed(&backend.authority, expired), &backend.trust(), HOST).await.unwrap_err();
    assert_eq!(why, "its certificate expired at 2020-01-01T00:00:00Z: renew it, or pin it in backend.pin");
    let early =
        Leaf::changed(&backend.authority, |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    let why = backend.meets(&early, &backend.trust(), HOST).await.unwrap_err();
    assert_eq!(why, "its certificate is not valid before 4000-01-01T00:00:00Z: check the clocks of both");
}

#[tokio::test]
async fn a_self_signed_certificate_in_the_file_is_good_for_its_name_and_its_time() {
    let backend = Backend::new();
    let leaf = Leaf::self_signed(|_| {});
    let trust = Trust::Authority(backend.folder.write("self.pem", leaf.certificate.pem()));
    backend.meets(&leaf, &trust, HOST).await.unwrap();
    let why = backend.meets(&leaf, &trust, "pve2").await.unwrap_err();
    assert!(why.starts_with("its certificate is for pve1.example.org, not for pve2: "), "{why}");
    let other = Leaf::self_signed(|_| {});
    let why = backend.meets(&other, &trust, HOST).await.unwrap_err();
    assert!(
        why.starts_with("its certificate is self-signed, as one of an authority: name the file"),
        "{why}"
    );

    let old = Leaf::self_signed(expired);
    let trust = Trust::Authority(backend.folder.write("old.pem", old.certificate.pem()));
    let why = backend.meets(&old, &trust, HOST).await.unwrap_err();
    assert!(why.starts_with("its certificate expired at 2020-01-01T00:00:00Z: "), "{why}");
    let early = Leaf::self_signed(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    let trust = Trust::Authority(backend.folder.write("early.pem", early.certificate.pem()));
    let why = backend.meets(&early, &trust, HOST).await.unwrap_err();
    assert!(why.starts_with("its certificate is not valid before 4000-01-01T00:00:00Z: "), "{why}");
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
            let server = backend.serves(&Leaf::issued_by(&backend.authority));
            assert_eq!(meet(&server, &client, HOST).await.unwrap_err(), UNKNOWN);
        }
        Err(why) => assert!(matches!(why, TlsError::NoSystemRoots { .. }), "{why}"),
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_good_whatever_it_says() {
    let backend = Backend::new();
    for leaf in [
        Leaf::issued_by(&backend.authority),
        Leaf::changed(&backend.authority, expired),
        Leaf::self_signed(|params| params.subject_alt_names.clear()),
    ] {
        for name in [HOST, "pve2", "127.0.0.1"] {
            backend.meets(&leaf, &pin(leaf.der()), name).await.unwrap();
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
async fn any_certificate_is_good_when_nothing_is_to_be_secure() {
    let backend = Backend::new();
    for leaf in [Leaf::changed(&backend.authority, expired), Leaf::self_signed(|_| {})] {
        backend.meets(&leaf, &Trust::Insecure, "pve2").await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_without_the_key_of_its_certificate_is_refused_under_every_trust() {
    let backend = Backend::new();
    let (leaf, own) = (Leaf::issued_by(&backend.authority), Leaf::self_signed(|_| {}));
    let listed = Trust::Authority(backend.folder.write("self.pem", own.certificate.pem()));
    for version in [&TLS12, &TLS13] {
        for (der, trust) in [
            (leaf.der(), backend.trust()),
            (leaf.der(), pin(leaf.der())),
            (leaf.der(), Trust::Insecure),
            (own.der(), listed.clone()),
        ] {
            let client = client(&trust, None).unwrap();
            let why = meet(&server_with(version, der, &key()), &client, HOST).await.unwrap_err();
            assert_eq!(why, WRONG_KEY);
        }
    }
}

#[tokio::test]
async fn backends_that_know_only_tls_1_2_are_good_as_well() {
    let backend = Backend::new();
    let (leaf, own) = (Leaf::issued_by(&backend.authority), Leaf::self_signed(|_| {}));
    let listed = Trust::Authority(backend.folder.write("self.pem", own.certificate.pem()));
    for (leaf, trust) in
        [(&leaf, backend.trust()), (&leaf, pin(leaf.der())), (&leaf, Trust::Insecure), (&own, listed)]
    {
        let server = server_with(&TLS12, leaf.der(), &leaf.key);
        let stands = meet(&server, &client(&trust, None).unwrap(), HOST).await.unwrap();
        assert_eq!(stands.version, Some(ProtocolVersion::TLSv1_2));
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
    let why = meet(&server, &client(&backend.trust(), None).unwrap(), HOST).await.unwrap_err();
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
    let good = client(&backend.trust(), pair(&shown)).unwrap();
    let (near, far) = shake(&server, &good, HOST).await;
    near.unwrap();
    assert_eq!(far.unwrap().peer.as_ref(), Some(own.der()));

    let (near, far) = shake(&server, &client(&backend.trust(), None).unwrap(), HOST).await;
    assert_eq!(
        explain(Remote::Backend, &near.unwrap_err()),
        "it requires a client certificate: set backend.client_certificate and its key"
    );
    far.unwrap_err();
    let (near, far) = shake(&server, &client(&backend.trust(), pair(&stranger)).unwrap(), HOST).await;
    assert_eq!(
        explain(Remote::Backend, &near.unwrap_err()),
        "it refused the client certificate (UnknownCA): set backend.client_certificate to one that it accepts"
    );
    far.unwrap_err();
}

/// Connects a TLS client to a port that does not speak TLS.
async fn against<Port: Future<Output = ()>>(port: impl FnOnce(DuplexStream) -> Port) -> io::Error {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(client(&Trust::Insecure, None).unwrap());
    let name = HOST.try_into().unwrap();
    let (shaken, ()) = tokio::join!(connector.connect(name, near), port(far));
    shaken.unwrap_err()
}

#[tokio::test]
async fn a_plain_http_port_is_distinguished_from_one_that_fails() {
    for answer in [plain_on_tls(), b"HTTP/1.0 400 Bad request\r\n\r\n".to_vec()] {
        let why = against(async |mut far: DuplexStream| {
            let _hello = far.read(&mut [0; 4096]).await.unwrap();
            far.write_all(&answer).await.unwrap();
        });
        assert_eq!(
            explain(Remote::Backend, &why.await),
            "what it speaks is not TLS: if it is plain HTTP, write http:// instead of https:// in backend.url"
        );
    }
    let why = against(async |mut far: DuplexStream| {
        let _hello = far.read(&mut [0; 4096]).await.unwrap();
    });
    assert_eq!(
        explain(Remote::Backend, &why.await),
        "it closed the connection during the TLS handshake: if it speaks plain HTTP, write http:// in \
         backend.url; if it speaks TLS, its log says why"
    );
}

/// A self-signed certificate with an RSA key of 1,024 bits, which no library here generates.
const SHORT: &str = "\
-----BEGIN CERTIFICATE-----
MIICGTCCAYKgAwIBAgIUc6ADjDhGsrqdDR0RINOYVbs62AEwDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEcHZlMTAgFw0yNjExMzAxMjQ1NTlaGA8yMTI2MTEwNjEy
NDU1OVowDzENMAsGA1UEAwwEcHZlMTCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkC
gYEAtAVSTp0kUt/6xLYItP59j3CZcjVciiHGl065ocdvc6do4tpi/LQYsvHuiBAC
xUWkKiQC3BQwu0b64CyDMrZwtadlNRTq6v9D+NoW9sku327TsOTJJlJwO3YsIhYy
Cg5mmJAhFI77x7J0MhGwNtkHo2oyp198JQK9pFaJPLwz19sCAwEAAaNwMG4wHQYD
VR0OBBYEFNz5rLMGGoHJrf6c0CU6cp4tEccsMB8GA1UdIwQYMBaAFNz5rLMGGoHJ
rf6c0CU6cp4tEccsMA8GA1UdEwEB/wQFMAMBAf8wGwYDVR0RBBQwEoIQcHZlMS5l
eGFtcGxlLm9yZzANBgkqhkiG9w0BAQsFAAOBgQAbo2/bght3KlgxdqJyciXLxN3j
EgVTvekVIltSHzC9AU4JYXQH3jJpj2Hia2gDZuHcAis6vpvSeyCWyqzmvdwoMA9c
2CZYbJp+5WrqyphTBwLOdCCap0KNYMYqQ6BGCPHuIi2X9CflHdL1mDf3y6+SduNY
3A/b1JVSTwnxZyKOqQ==
-----END CERTIFICATE-----
";

/// An authority with such a key.
const OLD_CA: &str = "\
-----BEGIN CERTIFICATE-----
MIICADCCAWmgAwIBAgIUTrm9NbLQbSw2saQO1oA9+BnhKjowDQYJKoZIhvcNAQEL
BQAwETEPMA0GA1UEAwwGT2xkIENBMCAXDTI2MTEzMDEzNDI0NFoYDzIxMjYxMTA2
MTM0MjQ0WjARMQ8wDQYDVQQDDAZPbGQgQ0EwgZ8wDQYJKoZIhvcNAQEBBQADgY0A
MIGJAoGBALiN+E0kbZOkEOXXAmunedbV84hjFGomGaomO3fpmGvuJ8WsepraKDoG
fRPFLVPWSE85Xi9jPbpyWcs4mpBRd2YwtjLg0TEy9+FiKppTZj9O/rf2YxMPmEsl
J8yk0k/o7PmWJTKK31hCB7jEHbNbIFB6Jw0hNKGo8KlRlIm3W79zAgMBAAGjUzBR
MB0GA1UdDgQWBBQFLzDVJ3wzKkjWTJNojZoCoDiA7TAfBgNVHSMEGDAWgBQFLzDV
J3wzKkjWTJNojZoCoDiA7TAPBgNVHRMBAf8EBTADAQH/MA0GCSqGSIb3DQEBCwUA
A4GBAAN8jnurUY/dcv7wbKMQNnn5QB9lT6x4HlYj5dBicVxAX974uw7nfe5t2rcZ
ftJH4CbdGbjXHzpzMHRYdfkZYnLtR5+Fw1eB0xtHglM1fULK0RPUOFhnVj05VAt0
oXd1NaCHJ+XB5qPNSj8SW8adEp4c/THZRUrn8eCZDBXKQCh1
-----END CERTIFICATE-----
";

/// A certificate issued by that authority, with a key of sufficient length.
const OF_OLD_CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBwzCCASygAwIBAgIUG1r3Hpn2+j83yGJF9louxalQeCQwDQYJKoZIhvcNAQEL
BQAwETEPMA0GA1UEAwwGT2xkIENBMCAXDTI2MTEzMDEzNDI0NFoYDzIxMjUwNjI0
MTM0MjQ0WjAPMQ0wCwYDVQQDDARwdmUxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
QgAEdLkF21QieCwqLbvVKbb4kag1wO2h0aAp4M5h8bAHeu2t0y5moUSXWG3G+78O
UBkj6ab5zV5+OWjH+J5DfjM50KNfMF0wGwYDVR0RBBQwEoIQcHZlMS5leGFtcGxl
Lm9yZzAdBgNVHQ4EFgQUawlC66ax9E3WfWyC092MPwVlQwswHwYDVR0jBBgwFoAU
BS8w1Sd8MypI1kyTaI2aAqA4gO0wDQYJKoZIhvcNAQELBQADgYEAbAaiOZFfB144
+NshYGHxFhTtiW/Kbz5Gp6niTf5bXzerbiiA585HAv8l+rUjXM0NvFFC7K0R/fXE
BhOAXHML2i2gRJorpN0A5SH5+w7ZXIYO084ig3+dTf4A7gxJHbXM+RWca/22CyZx
lw9x8R4Z/4FVaRg9/8G2vl0+y2puEzk=
-----END CERTIFICATE-----
";

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

fn server_of(identity: SingleCertAndKey) -> Arc<ServerConfig> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(identity)))
}

#[tokio::test]
async fn a_key_that_is_too_short_is_distinguished_from_interception() {
    let backend = Backend::new();
    let short = CertificateDer::from_pem_slice(SHORT.as_bytes()).unwrap();
    let listed = Trust::Authority(backend.folder.write("short.pem", SHORT));
    let identity = SingleCertAndKey::from(CertifiedKey::new(vec![short.clone()], Arc::new(Forger)));
    let server = server_of(identity);
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
    let identity = SingleCertAndKey::from(CertifiedKey::new(vec![issued], Arc::new(Forger)));
    let trust = Trust::Authority(backend.folder.write("old-ca.pem", OLD_CA));
    let why = meet(&server_of(identity), &client(&trust, None).unwrap(), HOST).await.unwrap_err();
    assert!(why.starts_with("its certificate, or one above it, has an RSA key of 1024 bits"), "{why}");
}

#[tokio::test]
async fn a_short_key_of_an_authority_that_has_issued_nothing_here_is_not_the_reason_of_a_wrong_signature() {
    let backend = Backend::new();
    let both = backend.folder.write("both.pem", format!("{}{OLD_CA}", backend.authority.pem()));
    let forged = Leaf::issued_by(&authority("ca"));
    assert_eq!(backend.meets(&forged, &Trust::Authority(both), HOST).await.unwrap_err(), WRONG_KEY);
}
