//! Connection checks: names, addresses, ports, and servers that are no backend.

use std::net::{SocketAddr, ToSocketAddrs};

use futures::future::join_all;
use tokio::net::TcpListener;

use super::replay;
use super::run::{CheckRun, file};
use crate::support::bridge::{Forwarder, KEY, NOWHERE, fast, recordings};
use crate::support::process::Process;
use crate::support::scripted::{Backend, answer};

#[tokio::test]
async fn a_backend_that_is_down_is_reported() {
    let address = NOWHERE;
    let run = CheckRun::against(&address, &[], &[]).await;
    run.assert_output(
        1,
        &[
            &format!("  FAILED   connect v4   {address}: connection refused\n"),
            "→ Nothing listens there: start the backend, or fix the port in backend.url.\n",
        ],
    );
    let run = CheckRun::against(&address, &["--json"], &[]).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.json()["backends"][0]["kinds"], serde_json::json!([]));
}

#[tokio::test]
async fn a_host_name_that_does_not_resolve_is_reported() {
    let run = CheckRun::against(&"nowhere.invalid:8000", &[], &[]).await;
    run.assert_output(
        1,
        &[
            "  FAILED   name         nowhere.invalid does not resolve: ",
            "→ Fix the name in backend.url, or the resolver or hosts file of this machine.\n",
        ],
    );
    assert!(!run.text.contains("os error") && !run.text.contains("lookup"), "{}", run.text);
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let backend = replay("0.0.2.post1").await;
    let name = format!("localhost:{}", backend.local_addr().port());
    let run = CheckRun::against(&name, &["--json"], &[]).await;
    let found = run.json();
    let known: Vec<SocketAddr> = name.to_socket_addrs().unwrap().collect();
    for address in known {
        let check = if address.is_ipv4() { "connect v4" } else { "connect v6" };
        let lines = found["backends"][0]["checks"].as_array().unwrap();
        let line = lines.iter().find(|line| line["check"] == check).unwrap();
        // It listens on IPv4 alone, and one way is enough.
        let verdict = if address.is_ipv4() { "ok" } else { "warning" };
        assert_eq!(line["verdict"], verdict, "{line}");
        assert!(run.line("name")["found"].as_str().unwrap().contains(&address.ip().to_string()));
    }
    assert_eq!(run.code, 0);
}

#[tokio::test]
async fn a_backend_on_ipv6_is_as_good() {
    let server =
        proxbox_bridge::replay::ReplayServer::bind("[::1]:0", recordings("0.0.2.post1", &[]), fast()).await;
    // Not every machine has IPv6.
    let Ok(server) = server else { return };
    let backend = server.spawn();
    let run = CheckRun::against(&backend.local_addr(), &[], &[]).await;
    run.assert_output(0, &[&format!("  ok       connect v6   {}\n", backend.local_addr())]);
    // An IP address needs no lookup.
    assert!(!run.text.contains(" name "), "{}", run.text);
}

#[tokio::test]
async fn a_server_that_is_no_proxbox_backend_is_reported_and_not_sent_the_key() {
    let key = file(KEY);
    for (status, headers, body, parts) in [
        (
            200,
            &[][..],
            "<html><title>Welcome</title><body>to <b>nginx</b>!</body></html>",
            [
                "200 OK: Welcome to nginx !\n",
                "→ This is not a ProxBox backend: fix backend.url. The key was not sent.",
            ],
        ),
        (
            404,
            &[],
            r#"{"detail":"Not Found"}"#,
            ["404 Not Found: Not Found\n", "→ This is not a ProxBox backend"],
        ),
        (
            301,
            &[("location", "https://proxbox.example/")],
            "moved",
            [
                "301 Moved Permanently: to https://proxbox.example/\n",
                "→ The backend has another URL: set backend.url to it.\n",
            ],
        ),
        (
            200,
            &[("content-encoding", "gzip")],
            "\u{1f}compressed",
            [
                "200 OK: It is compressed (Content-Encoding: gzip), although the bridge requests identity. ",
                "→ The answer cannot be read. The key was not sent.\n",
            ],
        ),
        (
            502,
            &[],
            "",
            [
                "502 Bad Gateway\n",
                "→ A proxy answers, but the backend behind it does not: start the backend.\n",
            ],
        ),
    ] {
        let other = Backend::start(move |_| async move { answer(status, headers, body) }).await;
        let run = CheckRun::against(&other.address, &["--key-file", key.path().to_str().unwrap()], &[]).await;
        run.assert_output(1, &["  FAILED   /            ", parts[0], parts[1]]);
        assert_eq!(other.requests().len(), 1);
        assert_eq!(other.last().header("x-proxbox-api-key"), None);
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Like a TLS server, it sends nothing before it has received something.
            let _ = stream.peek(&mut [0]).await.unwrap();
            let _ = stream.try_write(b"\x15\x03\x03\x00\x02\x02\x16");
        }
    });
    let run = CheckRun::against(&address, &[], &[]).await;
    run.assert_output(
        1,
        &[
            "  FAILED   /            the connection broke before an answer came (invalid HTTP version parsed; if it \
             speaks TLS, write https:// in backend.url)\n",
        ],
    );
    task.abort();
}

#[tokio::test]
async fn a_backend_that_hangs_takes_no_longer_than_its_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = [("limits.probe", "200ms"), ("limits.handshake", "200ms")];
    let run = CheckRun::against(&address, &[], &limits).await;
    run.assert_output(1, &[
        "  FAILED   /            no answer within 200ms (limits.probe)\n",
        "→ If a sync is running on the backend, check again later or raise limits.probe. If not, restart the backend.\n",
    ]);
    let run = CheckRun::with(&["--backend", &format!("https://{address}")], &limits).await;
    run.assert_output(
        1,
        &[
            "  FAILED   tls          no TLS handshake within 200ms (limits.handshake)\n",
            "→ If it does not use TLS, write http:// in backend.url.\n",
        ],
    );
    drop(listener);
}

#[tokio::test]
async fn a_backend_that_hangs_is_reported_at_the_check_that_timed_out() {
    let key = file(KEY);
    let cases = [
        ("/health", "  ok       /ws          dialect 0.0.7\n"),
        ("/auth/bootstrap-status", "  FAILED   key          /auth/bootstrap-status was not answered"),
        ("/version", "  FAILED   /version     "),
        ("/dcim/devices/create/stream", "  FAILED   streams      "),
    ];
    let checked = cases.map(async |(hangs, parts)| {
        let backend = Backend::start(move |request| async move {
            match request.uri().path() {
                path if path == hangs => std::future::pending().await,
                "/" => answer(200, &[], r#"{"message":"Proxbox Backend made in FastAPI framework"}"#),
                "/auth/bootstrap-status" | "/health" => answer(200, &[], "{}"),
                "/version" => answer(200, &[], r#"{"version":"0.0.11"}"#),
                _ => answer(405, &[("allow", "GET")], ""),
            }
        })
        .await;
        let args = ["--key-file", key.path().to_str().unwrap()];
        let run = CheckRun::against(&backend.address, &args, &[("limits.probe", "1s")]).await;
        run.assert_output(i32::from(hangs != "/health"), &[parts]);
        if hangs != "/health" {
            run.assert_output(
                1,
                &["→ If a sync is running on the backend, check again later or raise limits.probe."],
            );
        }
    });
    join_all(checked).await;
}

#[tokio::test]
async fn a_url_that_leads_back_to_a_running_bridge_is_in_its_log_and_in_the_check() {
    let (forwarder, data) = (Forwarder::new(NOWHERE).await, tempfile::tempdir().unwrap());
    let url = format!("http://{}", forwarder.address);
    let bridge = Process::start(data.path(), forwarder.address, &[("limits.check", "1s")]);
    let listener = bridge.address.to_string();
    forwarder.forward_to(bridge.address);
    // The forwarder needs this thread.
    let noticing = tokio::task::spawn_blocking(move || {
        let mut bridge = bridge;
        let lines = ["Request rejected.", LOOP].map(|message| bridge.read_to(message));
        (bridge, lines)
    });
    let (_bridge, [rejected, noticed]) = noticing.await.unwrap();
    assert_eq!((&rejected["level"], &rejected["reason"]), (&"ERROR".into(), &"loop".into()), "{rejected}");
    let detail = rejected["detail"].as_str().unwrap();
    assert!(detail.contains(&url) && detail.contains(&listener), "{rejected}");
    assert_eq!((&noticed["level"], &noticed["url"]), (&"ERROR".into(), &url.as_str().into()), "{noticed}");

    // The configuration of the check has other addresses than the bridge that runs.
    let run = CheckRun::against(&forwarder.address, &[], &[]).await;
    run.assert_output(
        1,
        &[
            "  FAILED   /            508 Loop Detected: Loop detected. | Via shows that this request has come back",
            "→ Requests come back to a bridge",
        ],
    );
}

const LOOP: &str = "Requests come back to a bridge that has sent them: set backend.url of this bridge, or of one behind it, to \
                    the server itself.";
