//! Certificates of backends and of the bridge.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::run::CheckRun;
use crate::support::scripted::{Backend, answer};
use proxbox_bridge::tls::Fingerprint;

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(super) fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(4000, 1, 1);
    params
}

pub(super) fn authority(name: &str) -> Authority {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
pub(super) struct Leaf {
    pub(super) der: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

impl Leaf {
    pub(super) fn issued_by(issuer: &Authority, params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        Self { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn pin(&self) -> String {
        Fingerprint::from_certificate(&self.der).to_string()
    }
}

/// An old backend with TLS.
pub(super) struct TlsBackend {
    pub(super) url: String,
    behind: Backend,
    task: JoinHandle<()>,
}

impl TlsBackend {
    pub(super) async fn with(leaf: &Leaf, people: Option<&Authority>) -> Self {
        let behind = Backend::start(|request| async move {
            match request.uri().path() {
                "/" => answer(200, &[], r#"{"message":"Proxbox Backend made in FastAPI framework"}"#),
                _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
            }
        })
        .await;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match people {
            None => builder.with_no_client_auth(),
            Some(people) => {
                let mut roots = RootCertStore::empty();
                roots.add(people.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
        let acceptor =
            TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![leaf.der.clone()], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let address = behind.address;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut behind = TcpStream::connect(address).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        });
        Self { url, behind, task }
    }

    async fn check(&self, args: &[&str], settings: &[(&str, &str)]) -> CheckRun {
        CheckRun::with(&[&["--backend", &self.url], args].concat(), settings).await
    }
}

impl Drop for TlsBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub(super) const HERE: [&str; 1] = ["127.0.0.1"];

#[tokio::test]
async fn a_certificate_that_is_trusted_is_shown() {
    let (folder, ca) = (Folder::new(), authority("The CA"));
    let ca_file = folder.write("ca.pem", &ca.pem());
    let leaf = Leaf::issued_by(&ca, &params("pve1", &HERE));
    let backend = TlsBackend::with(&leaf, None).await;
    let run = backend.check(&[], &[("backend.ca_file", &ca_file)]).await;
    run.assert_output(
        0,
        &[
            "  ok       connect v4   127.0.0.1:",
            "  ok       tls          CN=pve1, issued by CN=The CA, for 127.0.0.1, until 4000-01-01\n",
            "  ok       /            Proxbox Backend",
        ],
    );
    let run = backend.check(&["--json"], &[("backend.pin", &leaf.pin())]).await;
    let line = run.line("tls");
    assert_eq!(line["verdict"], "ok");
    assert!(line["found"].as_str().unwrap().ends_with("; pinned"), "{line}");
    assert_eq!(
        line["certificate"],
        json!({
            "subject": "CN=pve1", "issuer": "CN=The CA", "names": ["127.0.0.1"],
            "not_before": "2020-01-01T00:00:00Z", "not_after": "4000-01-01T00:00:00Z", "fingerprint": leaf.pin(),
        })
    );
    let run = backend.check(&[], &[("backend.insecure", "on")]).await;
    run.assert_output(0, &[
        "  WARNING  tls          CN=pve1, issued by CN=The CA, for 127.0.0.1, until 4000-01-01; not verified\n",
        &format!("set backend.pin = \"{}\".\n", leaf.pin()),
    ]);
}

#[tokio::test]
async fn a_target_of_notifications_is_sent_nothing_unless_its_certificate_is_trusted() {
    let (folder, ca) = (Folder::new(), authority("The CA"));
    let ca_file = folder.write("ca.pem", &ca.pem());
    let system = folder.write("system.pem", &authority("Another CA").pem());
    let leaf = Leaf::issued_by(&ca, &params("hooks", &HERE));
    let target = TlsBackend::with(&leaf, None).await;
    let settings = [
        ("SSL_CERT_FILE", system.as_str()),
        ("backend.ca_file", &ca_file),
        ("notify.url", &target.url),
        ("notify.allow_local", "on"),
    ];
    let run = target.check(&["--notify"], &settings).await;
    run.assert_output(1, &["test notification not sent: no TLS connection: invalid peer certificate"]);
    let trusted = [&settings[..], &[("notify.ca_file", &ca_file)]].concat();
    let run = target.check(&["--notify"], &trusted).await;
    run.assert_output(0, &["test notification accepted (200 OK)"]);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_shown_with_its_pin_and_nothing_is_sent() {
    let (folder, ca) = (Folder::new(), authority("The CA"));
    let (ca_file, other) = (folder.write("ca.pem", &ca.pem()), authority("Another CA"));
    let system = folder.write("system.pem", &other.pem());
    let good = params("pve1", &HERE);
    let expired = {
        let mut params = good.clone();
        params.not_after = date_time_ymd(2021, 1, 1);
        params
    };
    let own = {
        let mut params = good.clone();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Leaf { der: certificate.der().clone(), pem: certificate.pem(), key }
    };
    let pinned = Leaf::issued_by(&ca, &good).pin();
    for (leaf, settings, why, shown) in [
        (
            Leaf::issued_by(&ca, &expired),
            [("backend.ca_file", &ca_file)],
            "its certificate expired at 2021-01-01T00:00:00Z: renew it, or pin it in backend.pin",
            "CN=pve1, issued by CN=The CA, for 127.0.0.1, until 2021-01-01",
        ),
        (
            Leaf::issued_by(&ca, &params("pve2", &["pve2.example.org"])),
            [("backend.ca_file", &ca_file)],
            "its certificate is for pve2.example.org, not for 127.0.0.1: use a name that it has in",
            "CN=pve2, issued by CN=The CA, for pve2.example.org, until 4000-01-01",
        ),
        (
            own,
            [("SSL_CERT_FILE", &system)],
            "its certificate is self-signed, as one of an authority: name the file with it in",
            "CN=pve1, issued by itself, for 127.0.0.1, until 4000-01-01",
        ),
        (
            Leaf::issued_by(&ca, &good),
            [("SSL_CERT_FILE", &system)],
            "its certificate was not issued by an authority that is trusted here: name the file of its CA",
            "CN=pve1, issued by CN=The CA, for 127.0.0.1, until 4000-01-01",
        ),
        (
            Leaf::issued_by(&ca, &good),
            [("backend.pin", &pinned)],
            "and backend.pin is ",
            "CN=pve1, issued by CN=The CA, for 127.0.0.1, until 4000-01-01",
        ),
    ] {
        let backend = TlsBackend::with(&leaf, None).await;
        let settings = settings.map(|(key, value)| (key, value.as_str()));
        let run = backend.check(&[], &settings).await;
        run.assert_output(
            1,
            &[
                "  ok       connect v4   127.0.0.1:",
                "  FAILED   tls          its certificate ",
                why.strip_prefix("its certificate ").unwrap_or(why),
                &format!(
                    "→ Its certificate: {shown}. If that is the right one, set backend.pin = \"{}\".\n",
                    leaf.pin()
                ),
            ],
        );
        let run = backend.check(&["--json"], &settings).await;
        assert_eq!(run.line("tls")["certificate"]["fingerprint"], leaf.pin());
        assert_eq!(backend.behind.requests().len(), 0);
        // What is shown can be pinned.
        assert_eq!(backend.check(&[], &[("backend.pin", &leaf.pin())]).await.code, 0);
    }
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_a_warning_even_if_it_is_pinned() {
    let mut old = params("pve1", &HERE);
    old.not_after = date_time_ymd(2021, 1, 1);
    let leaf = Leaf::issued_by(&authority("The CA"), &old);
    let backend = TlsBackend::with(&leaf, None).await;
    let run = backend.check(&[], &[("backend.pin", &leaf.pin())]).await;
    run.assert_output(
        0,
        &["  WARNING  tls          CN=pve1", "until 2021-01-01; pinned\n", "→ It has expired: renew it.\n"],
    );
}

#[tokio::test]
async fn a_backend_without_tls_is_distinguished_from_a_bad_certificate() {
    let plain = Backend::start(|_| async { answer(200, &[], "{}") }).await;
    let url = format!("https://{}", plain.address);
    let run = CheckRun::with(&["--backend", &url], &[]).await;
    run.assert_output(
        1,
        &["  FAILED   tls          what it speaks is not TLS: if it is plain HTTP, write http:// "],
    );
    // And the reverse.
    let leaf = Leaf::issued_by(&authority("The CA"), &params("pve1", &HERE));
    let backend = TlsBackend::with(&leaf, None).await;
    let run = CheckRun::with(&["--backend", &backend.url.replace("https", "http")], &[]).await;
    run.assert_output(1, &["  FAILED   /            ", "if it speaks TLS, write https:// in backend.url)\n"]);
}

#[tokio::test]
async fn a_backend_that_requires_a_client_certificate_is_reported() {
    let (folder, ca, people) = (Folder::new(), authority("The CA"), authority("people"));
    let ca_file = folder.write("ca.pem", &ca.pem());
    let backend = TlsBackend::with(&Leaf::issued_by(&ca, &params("pve1", &HERE)), Some(&people)).await;
    let run = backend.check(&[], &[("backend.ca_file", &ca_file)]).await;
    run.assert_output(
        1,
        &[
            "  ok       tls          CN=pve1",
            "  FAILED   /            it requires a client certificate: set backend.client_certificate and its key\n",
        ],
    );
    let own = Leaf::issued_by(&people, &params("bridge", &["bridge.example.org"]));
    let certificate = folder.write("own.pem", &own.pem);
    let key = folder.write("own.key", &own.key.serialize_pem());
    let settings = [
        ("backend.ca_file", ca_file.as_str()),
        ("backend.client_certificate", &certificate),
        ("backend.client_key", &key),
    ];
    let run = backend.check(&[], &settings).await;
    run.assert_output(
        0,
        &["  ok       client cert  CN=bridge, issued by CN=people, for bridge.example.org, until 4000"],
    );
}

#[tokio::test]
async fn the_certificate_of_the_bridge_is_looked_at() {
    let (folder, ca) = (Folder::new(), authority("The CA"));
    let old = TlsBackend::with(&Leaf::issued_by(&ca, &params("pve1", &HERE)), None).await;
    let ca_file = folder.write("ca.pem", &ca.pem());
    let mut bridge = params("bridge", &["bridge.example.org"]);
    for (name, year, parts) in [
        (
            "good",
            4000,
            "  ok       certificate  CN=bridge, issued by CN=The CA, for bridge.example.org, until 4000",
        ),
        ("old", 2021, "→ It has expired: renew it.\n"),
    ] {
        bridge.not_after = date_time_ymd(year, 1, 1);
        let own = Leaf::issued_by(&ca, &bridge);
        let certificate = folder.write(&format!("{name}.pem"), &own.pem);
        let key = folder.write(&format!("{name}.key"), &own.key.serialize_pem());
        let settings = [
            ("backend.ca_file", ca_file.as_str()),
            ("tls.certificate", &certificate),
            ("tls.key", &key),
            ("tls.client_ca", &ca_file),
        ];
        let run = old.check(&[], &settings).await;
        run.assert_output(0, &["  ok       clients      https://127.0.0.1:8800", parts]);
        assert!(run.text.contains("; client certificates of tls.client_ca required\n"), "{}", run.text);
    }
    // Each of the two is good, and they do not belong together.
    let (certificate, key) = (folder.0.path().join("good.pem"), folder.0.path().join("old.key"));
    let settings = [
        ("backend.ca_file", ca_file.as_str()),
        ("tls.certificate", certificate.to_str().unwrap()),
        ("tls.key", key.to_str().unwrap()),
    ];
    let run = old.check(&[], &settings).await;
    run.assert_output(
        78,
        &["  FAILED   certificate  the private key in ", " does not belong to the certificate in "],
    );
}
