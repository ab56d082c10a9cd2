//! TLS for clients and to the backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::bridge::{Client, TestBridge, config, configured};
use crate::support::scripted::{Backend, answer};

/// An authority, and files of what it has issued.
pub(super) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes its own certificate to the file at `path`.
    pub(super) fn write_ca(&self, path: &Path) {
        std::fs::write(path, self.issuer.pem()).unwrap();
    }

    /// Issues a certificate for `host` into the files NAME.pem and NAME-key.pem.
    pub(super) fn issue(&self, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }

    fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}-key.pem"))).unwrap();
        (vec![certificate], key)
    }

    /// A client that trusts this authority, and shows the certificate `own` if there is one.
    pub(super) fn client(&self, alpn: &[&str], own: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.identity(name);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }
}

async fn connect(front: &TestBridge, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(front.address).await?;
    let name = ServerName::try_from("bridge.test").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await
}

async fn get(mut stream: TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: bridge.test\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn secured(backend: &Backend, authority: &Authority, more: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n\
         {more}\n[backend]\nurl = \"http://{}\"\n",
        authority.path("front.pem").display(),
        authority.path("front-key.pem").display(),
        backend.address
    )
}

#[tokio::test]
async fn clients_are_served_over_tls_and_plain_http_gets_an_error() {
    let authority = Authority::new("ours");
    authority.issue("front", "bridge.test");
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let front = TestBridge::start(configured(&secured(&backend, &authority, ""))).await;

    let stream = connect(&front, authority.client(&["http/1.1"], None)).await.unwrap();
    let text = get(stream).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("secret"), "{text}");
    assert_eq!(backend.last().header("x-forwarded-proto"), Some("https"));
    let both = connect(&front, authority.client(&["h2", "http/1.1"], None)).await.unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let plain = Client::send(front.address, "GET", "/x", &[]).await.answer().await;
    assert_eq!(plain.status, 400);
    assert!(plain.detail().contains("https://"), "{}", plain.text());
    assert_eq!(front.admin_request("GET", "/livez", &[]).await.status, 200, "operators come in without it");
}

#[tokio::test]
async fn http_2_is_negotiated_over_tls() {
    let authority = Authority::new("ours");
    authority.issue("front", "bridge.test");
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let front = TestBridge::start(configured(&secured(&backend, &authority, ""))).await;
    let stream = connect(&front, authority.client(&["h2"], None)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let task = tokio::spawn(connection);
    let request = http::Request::get("https://bridge.test/x?y=1").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "secret");
    let received = backend.last();
    assert_eq!((received.target.as_str(), received.header("host")), ("/x?y=1", Some("bridge.test")));
    task.abort();
}

#[tokio::test]
async fn a_client_without_the_certificate_that_is_wanted_is_turned_away() {
    let [ours, other] = ["ours", "other"].map(Authority::new);
    ours.issue("front", "bridge.test");
    ours.issue("client", "plugin.test");
    other.issue("client", "thief.test");
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let wanted = format!("client_ca = \"{}\"", ours.path("ca.pem").display());
    let front = TestBridge::start(configured(&secured(&backend, &ours, &wanted))).await;
    let welcome = connect(&front, ours.client(&[], Some("client"))).await.unwrap();
    assert!(get(welcome).await.unwrap().ends_with("secret"));
    let (chain, key) = other.identity("client");
    for thief in [ours.client(&[], None), {
        let mut roots = RootCertStore::empty();
        roots.add(ours.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.unwrap().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap()
    }] {
        // In TLS 1.3 a client learns of it when it reads.
        let turned_away = match connect(&front, thief).await {
            Ok(stream) => get(stream).await.is_err(),
            Err(_) => true,
        };
        assert!(turned_away);
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn a_new_certificate_is_shown_after_a_reload_and_connections_that_are_there_live_on() {
    let authority = Authority::new("ours");
    authority.issue("front", "bridge.test");
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let text = secured(&backend, &authority, "");
    let read = text.clone();
    let front = TestBridge::reloading(configured(&text), move || Ok(configured(&read))).await;
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let before = connect(&front, authority.client(&[], None)).await.unwrap();
    authority.issue("front", "bridge.test");
    assert_eq!(front.admin_request("POST", "/reload", &[]).await.status, 200);
    let after = connect(&front, authority.client(&[], None)).await.unwrap();
    assert_ne!(shown(&before), shown(&after));
    assert!(get(before).await.unwrap().ends_with("secret"));

    // Files that do not belong together change nothing.
    std::fs::copy(authority.path("ca.pem"), authority.path("front.pem")).unwrap();
    let refused = front.admin_request("POST", "/reload", &[]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("does not belong to the certificate"), "{}", refused.text());
    assert!(connect(&front, authority.client(&[], None)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn files_that_change_are_read_again_within_a_minute_and_bad_ones_are_not_shown() {
    let authority = Authority::new("ours");
    authority.issue("front", "bridge.test");
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let front = TestBridge::start(configured(&secured(&backend, &authority, ""))).await;
    let shown = async || {
        let stream = connect(&front, authority.client(&[], None)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    authority.issue("front", "bridge.test");
    assert_eq!(shown().await, before);
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    let after = shown().await;
    assert_ne!(after, before);
    std::fs::write(authority.path("front.pem"), "damaged").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_eq!(shown().await, after);
}

/// Gives a file the age of a package that Nix, `cp -p` or `tar` has unpacked.
fn make_old(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_shown_that_has_the_age_of_the_one_before_it() {
    let authority = Authority::new("ours");
    let issue = || {
        authority.issue("front", "bridge.test");
        ["front.pem", "front-key.pem"].iter().for_each(|name| make_old(&authority.path(name)));
    };
    issue();
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let front = TestBridge::start(configured(&secured(&backend, &authority, ""))).await;
    let shown = async || {
        let stream = connect(&front, authority.client(&[], None)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    issue();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_ne!(shown().await, before);
}

#[tokio::test(start_paused = true)]
async fn the_authorities_of_a_backend_are_read_again_within_a_minute_and_bad_ones_change_nothing() {
    let [ours, other] = ["ours", "other"].map(Authority::new);
    ours.issue("backend", "127.0.0.1");
    let (address, task) = secure_backend(&ours, "backend").await;
    let file = other.path("ca.pem").display().to_string();
    let url = format!("https://{address}");
    let front =
        TestBridge::start(config(address, &[("backend.url", &url), ("backend.ca_file", &file)])).await;
    assert_eq!(front.get("/x", &[]).await.status, 503);
    std::fs::copy(ours.path("ca.pem"), other.path("ca.pem")).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_eq!(front.get("/x", &[]).await.text(), "secure");
    std::fs::write(other.path("ca.pem"), "damaged").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_eq!(front.get("/x", &[]).await.text(), "secure");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reload_fails_with_authorities_of_a_backend_that_were_read_before_and_cannot_be_used() {
    let authority = Authority::new("ours");
    authority.issue("backend", "127.0.0.1");
    let (address, task) = secure_backend(&authority, "backend").await;
    let ca = authority.path("ca.pem");
    let settings =
        [("backend.url", format!("https://{address}")), ("backend.ca_file", ca.display().to_string())];
    let read = move || config(address, &settings.each_ref().map(|(key, value)| (*key, value.as_str())));
    let front = TestBridge::reloading(read(), move || Ok(read())).await;
    std::fs::write(&ca, "damaged").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    for _ in 0..2 {
        let refused = front.admin_request("POST", "/reload", &[]).await;
        assert_eq!(refused.status, 422);
        assert!(refused.detail().contains("ca.pem"), "{}", refused.text());
        assert_eq!(front.get("/x", &[]).await.text(), "secure", "what was read before stays in use");
    }
    std::fs::write(&ca, authority.issuer.pem()).unwrap();
    assert_eq!(front.admin_request("POST", "/reload", &[]).await.status, 200);
    task.abort();
}

/// A file that blocks its readers: a FIFO.
struct HangingFile {
    opened: tokio::sync::oneshot::Receiver<()>,
    release: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl HangingFile {
    fn at(path: PathBuf) -> Self {
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (open, opened) = tokio::sync::oneshot::channel();
        // Nothing is written, so readers block.
        let thread = std::thread::spawn(move || {
            let _file = std::fs::File::options().write(true).open(&path).unwrap();
            // Once is enough.
            std::fs::remove_file(&path).unwrap();
            let _ = open.send(());
            released.recv_timeout(std::time::Duration::from_secs(20)).is_ok()
        });
        Self { opened, release, thread }
    }

    /// Unblocks the readers. They must not have given up before.
    fn release(self) {
        let _ = self.release.send(());
        assert!(self.thread.join().unwrap(), "the bridge answered when the disk did, and not before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_under_the_files_of_one_backend_keeps_no_other_from_its_new_ones() {
    let [ours, other, hangs] = ["ours", "other", "hangs"].map(Authority::new);
    ours.issue("backend", "127.0.0.1");
    let (address, task) = secure_backend(&ours, "backend").await;
    let block = |name: &str, address: &str, hosts: &str, authority: &Authority| {
        let ca = authority.path("ca.pem").display().to_string();
        format!("[[backend]]\nname = \"{name}\"\nurl = \"https://{address}\"\nca_file = \"{ca}\"\n{hosts}\n")
    };
    let (one, two) = (
        block("one", "127.0.0.1:1", "hosts = [\"one.example\"]", &hangs),
        block("two", &address.to_string(), "", &other),
    );
    let own = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nlimits.breaker_failures = 1000\n";
    let front = TestBridge::start(configured(&format!("{own}{one}{two}"))).await;
    let mut file = HangingFile::at(hangs.path("ca.pem"));
    std::fs::copy(ours.path("ca.pem"), other.path("ca.pem")).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    (&mut file.opened).await.unwrap();
    while front.get("/x", &[]).await.text() != "secure" {
        assert!(!file.thread.is_finished(), "the other was not read before the disk answered");
    }
    file.release();
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_under_a_certificate_does_not_keep_the_bridge_from_serving() {
    let authority = Authority::new("ours");
    authority.issue("front", "bridge.test");
    let backend = Backend::start(|_| async { answer(200, &[], "secret") }).await;
    let front = TestBridge::start(configured(&secured(&backend, &authority, ""))).await;
    let mut file = HangingFile::at(authority.path("front.pem"));
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    (&mut file.opened).await.unwrap();
    assert_eq!(front.admin_request("GET", "/livez", &[]).await.status, 200);
    assert!(connect(&front, authority.client(&[], None)).await.is_ok());
    file.release();
}

fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let (chain, key) = authority.identity(name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A backend that speaks TLS, and answers every request alike.
pub(super) async fn secure_backend(
    authority: &Authority,
    name: &str,
) -> (std::net::SocketAddr, JoinHandle<()>) {
    let acceptor = acceptor(authority, name);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![0; 4096];
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                let text = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecure";
                let _ = stream.write_all(text.as_bytes()).await;
            }
        }
    });
    (address, task)
}

fn fingerprint(path: &Path) -> String {
    let der = CertificateDer::from_pem_file(path).unwrap();
    proxbox_bridge::tls::describe(&der).unwrap().fingerprint.to_string()
}

#[tokio::test]
async fn the_backends_certificate_is_checked_as_it_is_configured() {
    let [ours, other] = ["ours", "other"].map(Authority::new);
    ours.issue("backend", "127.0.0.1");
    ours.issue("elsewhere", "elsewhere.test");
    let (address, task) = secure_backend(&ours, "backend").await;
    let (elsewhere, other_task) = secure_backend(&ours, "elsewhere").await;
    let ca = ours.path("ca.pem").display().to_string();
    let foreign = other.path("ca.pem").display().to_string();
    let [pin, other_pin] =
        ["backend", "elsewhere"].map(|name| fingerprint(&ours.path(&format!("{name}.pem"))));
    for (address, setting, why) in [
        (address, ("backend.ca_file", ca.as_str()), None),
        (address, ("backend.pin", pin.as_str()), None),
        (address, ("backend.insecure", "on"), None),
        (address, ("backend.ca_file", foreign.as_str()), Some("not issued by an authority")),
        (address, ("backend.pin", other_pin.as_str()), Some("has the fingerprint")),
        (elsewhere, ("backend.ca_file", ca.as_str()), Some("is for elsewhere.test, not for 127.0.0.1")),
        (elsewhere, ("backend.pin", other_pin.as_str()), None),
    ] {
        let url = format!("https://{address}");
        let front = TestBridge::start(config(address, &[("backend.url", &url), setting])).await;
        let answer = front.get("/x", &[]).await;
        match why {
            None => assert_eq!((answer.status, answer.text()), (200, "secure"), "{setting:?}"),
            Some(why) => {
                assert_eq!(answer.status, 503, "{setting:?}: {}", answer.text());
                assert!(answer.detail().contains(why), "{}", answer.text());
            }
        }
    }
    task.abort();
    other_task.abort();
}

/// A backend that reads a request, and answers it with these bytes and the end of the connection, or with a reset.
async fn server_without_tls(answer: Option<&'static [u8]>) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            match answer {
                Some(bytes) => stream.write_all(bytes).await.unwrap(),
                None => socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap(),
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_backend_that_may_speak_tls_gets_a_hint_and_one_with_bad_http_does_not() {
    let ours = Authority::new("ours");
    ours.issue("backend", "127.0.0.1");
    let hint = "; if it speaks TLS, write https:// in backend.url";
    for (backend, is_hinted) in [
        (secure_backend(&ours, "backend").await, true),
        (server_without_tls(Some(b"")).await, true),
        (server_without_tls(None).await, true),
        (server_without_tls(Some(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n")).await, false),
    ] {
        let (address, task) = backend;
        let front = TestBridge::start(config(address, &[])).await;
        let answer = front.get("/x", &[]).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.detail().contains(hint), is_hinted, "{}", answer.text());
        task.abort();
    }
}

#[tokio::test]
async fn a_backend_that_dies_after_an_answer_over_tls_did_not_refuse_the_client_certificate() {
    let ours = Authority::new("ours");
    ours.issue("backend", "127.0.0.1");
    let acceptor = acceptor(&ours, "backend");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It ends when it has read the second request of a connection, or the first of the second connection.
    let task = tokio::spawn(async move {
        for answers in [1, 0] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            for _ in 0..answers {
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure").await.unwrap();
            }
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        }
    });
    let (url, ca) = (format!("https://{address}"), ours.path("ca.pem").display().to_string());
    let front = TestBridge::start(config(address, &[("backend.url", &url), ("backend.ca_file", &ca)])).await;
    assert_eq!(front.get("/x", &[]).await.text(), "secure");
    for is_first in [false, true] {
        let answer = front.get("/x", &[]).await;
        let detail = answer.detail();
        assert!(detail.contains("it has ended or was restarted"), "{}", answer.text());
        assert_eq!(detail.contains("client certificate"), is_first, "{}", answer.text());
    }
    task.await.unwrap();
}

#[tokio::test]
async fn the_connection_of_a_forwarded_event_stream_is_closed_as_tls_wants_it() {
    let ours = Authority::new("ours");
    ours.issue("backend", "127.0.0.1");
    let acceptor = acceptor(&ours, "backend");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (url, ca) = (format!("https://{address}"), ours.path("ca.pem").display().to_string());
    let front = TestBridge::start(config(address, &[("backend.url", &url), ("backend.ca_file", &ca)])).await;
    for (end, is_left) in [("", true), ("0\r\n\r\n", false)] {
        let mut client = front.open("/x", &[("Accept", "text/event-stream")]).await;
        let (stream, _) = listener.accept().await.unwrap();
        let mut backend = acceptor.accept(stream).await.unwrap();
        assert!(backend.read(&mut [0; 4096]).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        backend.write_all(format!("{head}8\r\ndata: 1\n\r\n{end}").as_bytes()).await.unwrap();
        backend.flush().await.unwrap();
        assert_eq!(client.head().await.0, 200);
        assert_eq!(client.chunk().await, b"data: 1\n");
        if is_left {
            drop(client);
        } else {
            assert_eq!(client.answer_body().await, b"");
        }
        // Without a `close_notify`, this fails.
        assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
    }
}
