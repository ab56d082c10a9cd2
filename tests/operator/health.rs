//! `/livez` and `/readyz`, and the reasons that they give.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{OLD, RunningBridge};
use crate::support::bridge::{BridgedReplay, Client, DEVICES, fast, poll_until, recordings};
use crate::support::manual::ManualBackend;

#[tokio::test]
async fn a_bridge_is_ready_and_says_why_it_is_not_any_more() {
    let mut backend = ManualBackend::start().await;
    let bridge = RunningBridge::start(backend.address, &[]);
    let ready = bridge.admin("GET", "/readyz").await;
    assert_eq!((ready.status, &ready.json()["reasons"]), (200, &serde_json::json!([])));
    assert_eq!(bridge.admin("GET", "/livez").await.json()["live"], true);
    // A job that runs keeps it from ending.
    let mut client = Client::send(bridge.process.address, "GET", DEVICES, &[]).await;
    let stream = backend.next_stream().await;
    assert_eq!(client.head().await.0, 200);
    bridge.process.terminate();
    let reasons = poll_until(async || {
        let answer = bridge.admin("GET", "/readyz").await;
        (answer.status == 503).then(|| answer.json()["reasons"].clone())
    })
    .await;
    assert_eq!(reasons, serde_json::json!(["the bridge is stopping"]));
    assert_eq!(bridge.value("draining").await, 1.0);
    assert_eq!(bridge.admin("GET", "/livez").await.status, 200);
    stream.complete().await;
    assert_eq!(bridge.process.ended().0, Some(0));
}

#[tokio::test]
async fn an_unreachable_backend_is_a_reason_if_backends_are_checked() {
    let BridgedReplay { backend, front } = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let reached = front.admin_request("GET", "/readyz?backend", &[]).await;
    assert_eq!((reached.status, &reached.json()["backends"][0]["available"]), (200, &true.into()));
    drop(backend);
    // What was found out a moment ago is news for a second.
    let gone = poll_until(async || {
        let answer = front.admin_request("GET", "/readyz?backend", &[]).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(gone.json()["reasons"][0].as_str().unwrap().contains("cannot be reached"), "{}", gone.text());
    assert_eq!(
        front.admin_request("GET", "/readyz", &[]).await.status,
        200,
        "jobs begin, and say so themselves"
    );
    assert_eq!(front.admin_request("GET", "/readyz?backends", &[]).await.status, 400);
}

/// Runs the command `health`. Returns its exit code, its output and its errors.
pub(super) async fn health(admin: String, more: &[&str]) -> (Option<i32>, String, String) {
    let more: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        // It needs neither a backend nor the token, which it may not be able to read.
        let token = ["--admin-token-file", "/no/such/file"];
        command.args(["health", "--admin-listen", &admin]).args(token).args(more);
        command.env_clear().output().unwrap()
    });
    let output = output.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_asks_the_bridge_that_runs() {
    let BridgedReplay { backend, front: _front } =
        BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let bridge = RunningBridge::start(backend.local_addr(), &[]);
    let (code, said, _) = health(bridge.process.admin.to_string(), &[]).await;
    assert_eq!(code, Some(0));
    assert!(said.starts_with("{\"ready\":true"), "{said}");
    drop(backend);
    let (said, why) = poll_until(async || {
        let (code, said, why) = health(bridge.process.admin.to_string(), &["--backends"]).await;
        (code == Some(1)).then_some((said, why))
    })
    .await;
    assert!(said.contains("cannot be reached") && why.contains("not ready"), "{said} {why}");
    let (code, _, why) = health("127.0.0.1:1".to_owned(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(
        why.contains("cannot connect to the bridge at http://127.0.0.1:1/readyz (admin_listen)"),
        "{why}"
    );
    let (code, _, why) = health("nowhere".to_owned(), &[]).await;
    assert_eq!(code, Some(78), "{why}");
}

#[tokio::test]
async fn the_command_reaches_a_bridge_behind_a_proxy_with_tls_and_checks_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let file = folder.path().join("cert.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let chain = vec![certificate.der().clone()];
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/proxbox-bridge/", listener.local_addr().unwrap().port());
    let served = tokio::spawn(async move {
        loop {
            let Ok(mut stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue").await.unwrap();
            return String::from_utf8(head).unwrap();
        }
    });
    let health = async |trusted: Option<&Path>| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
        command.args(["health", "--bridge", &url]).env_clear();
        let output = command.envs(trusted.map(|file| ("SSL_CERT_FILE", file))).output().await.unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, text) = health(None).await;
    assert_eq!(code, Some(1));
    assert!(text.contains("/proxbox-bridge/readyz (--bridge): "), "{text}");
    assert_eq!(health(Some(&file)).await, (Some(0), "true\n".to_owned()));
    assert!(served.await.unwrap().starts_with("GET /proxbox-bridge/readyz HTTP/1.1\r\n"));
}
