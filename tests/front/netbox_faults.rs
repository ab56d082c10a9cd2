//! A NetBox that is unreachable, hangs, or cuts off its response, behind the NetBox listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::netbox_between::{PASSWORD, TOKEN_VALUE, of_release, proxmox, push, send};
use crate::support::bridge::{Client, TestBridge, config};
use crate::support::netbox::{PROXMOX_ENDPOINTS, SYNC_PROCESSES, V1, authorization, row};
use crate::support::scripted::Backend;

const SITES: &str = "/api/dcim/sites/";
const FIELD: &str = "/api/extras/custom-fields/4/";
/// Longer than any response of these tests takes.
const LONG: Duration = Duration::from_secs(30);

/// What a NetBox sends on a connection after it has read the head of a request.
#[derive(Clone)]
struct Fault {
    /// What it sends.
    bytes: Arc<[u8]>,
    /// Whether it leaves the connection open behind that.
    stays: bool,
}

impl Fault {
    fn closing(bytes: impl AsRef<[u8]>) -> Self {
        Self { bytes: bytes.as_ref().into(), stays: false }
    }

    fn staying(bytes: impl AsRef<[u8]>) -> Self {
        Self { stays: true, ..Self::closing(bytes) }
    }
}

/// A response whose head announces `length` bytes of JSON, and its actual body.
fn cut(length: usize, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A bridge in front of a faulty NetBox.
struct Faulty {
    _backend: Backend,
    front: TestBridge,
    listener: SocketAddr,
    netbox: SocketAddr,
    /// The requests that NetBox received, and the ends of their connections, as `None`.
    seen: mpsc::UnboundedReceiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Faulty {
    async fn start(release: &'static str, fault: Fault, settings: &[(&str, &str)]) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let netbox = server.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = server.accept().await.unwrap();
                connections.spawn(serve(stream, fault.clone(), sender.clone()));
            }
        });
        let backend = of_release(release).await;
        let all = [&[("backend.netbox_listen", "127.0.0.1:0")], settings].concat();
        let front = TestBridge::start(config(backend.address, &all)).await;
        push(&front, "any", "/netbox/endpoint", &row(netbox, V1)).await;
        push(&front, "any", "/proxmox/endpoints", &proxmox(PASSWORD, TOKEN_VALUE)).await;
        let listener = front.netbox_listeners()[0];
        Self { _backend: backend, front, listener, netbox, seen, task }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, fault: Fault, seen: mpsc::UnboundedSender<Option<String>>) {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    }
    let _ = seen.send(Some(String::from_utf8_lossy(&read).into_owned()));
    // The bridge may disconnect before all is sent.
    let _ = stream.write_all(&fault.bytes).await;
    if fault.stays {
        while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {}
        let _ = seen.send(None);
    }
}

#[tokio::test]
async fn a_netbox_fault_is_reported_to_the_backend_within_the_limit() {
    let chunk =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"re";
    let large = cut(40 << 20, &" ".repeat(33 << 20));
    let compressed = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
                      Content-Length: 2\r\n\r\n{}";
    let faults = [
        (Fault::closing(""), 502, "NetBox did not answer at http://127.0.0.1:"),
        (Fault::closing("SSH-2.0-OpenSSH_9.7\r\n"), 502, "NetBox did not answer at http://127.0.0.1:"),
        (Fault::staying(""), 504, "(limits.response_head)"),
        (
            Fault::closing(cut(100, "{\"results\":[{\"id\":7")),
            502,
            "The answer of NetBox could not be read: ",
        ),
        (Fault::closing(chunk), 502, "The answer of NetBox could not be read: "),
        (
            Fault::staying(cut(100, "{\"results\":[{\"id\":7")),
            504,
            "The answer of NetBox did not end within 300ms",
        ),
        (Fault::staying(chunk), 504, "The answer of NetBox did not end within 300ms (limits.response_head)"),
        (Fault::staying(large), 502, "it has more than 33554432 bytes"),
        (Fault::closing(compressed), 502, "It is compressed (Content-Encoding: gzip)"),
    ];
    // One request of each rule, and one of none.
    let requests = [
        ("0.0.2.post1", "GET", PROXMOX_ENDPOINTS),
        ("0.0.3", "POST", SYNC_PROCESSES),
        ("0.0.6.post4", "PATCH", FIELD),
        ("0.0.2.post1", "GET", SITES),
    ];
    for (fault, status, why) in faults {
        for (release, method, target) in requests {
            // What ends by itself may take the time that a busy machine needs for it.
            let limit = if status == 504 { "300ms" } else { "10m" };
            let settings = [("limits.response_head", limit)];
            let faulty = Faulty::start(release, fault.clone(), &settings).await;
            let token = authorization(V1);
            let response = send(faulty.listener, method, target, &token);
            let response = timeout(LONG, response).await.expect("it does not hang");
            let what = format!("{release} {method} {target}, {why}: {}", response.text());
            assert_eq!(response.status, status, "{what}");
            assert!(response.detail().contains(why), "{what}");
            for secret in [PASSWORD, TOKEN_VALUE, V1] {
                assert!(!response.text().contains(secret), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_netbox_that_is_not_there_is_502_and_found_again_when_it_is() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let netbox = taken.local_addr().unwrap();
    drop(taken);
    let backend = of_release("0.0.2.post1").await;
    let front = TestBridge::start(config(backend.address, &[("backend.netbox_listen", "127.0.0.1:0")])).await;
    push(&front, "any", "/netbox/endpoint", &row(netbox, V1)).await;
    let listener = front.netbox_listeners()[0];
    let response = send(listener, "GET", SITES, &authorization(V1)).await;
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(response.detail().contains(&netbox.to_string()), "{}", response.text());
    let (server, token) = (TcpListener::bind(netbox).await.unwrap(), authorization(V1));
    let (response, ()) = tokio::join!(send(listener, "GET", SITES, &token), async {
        let (stream, _) = server.accept().await.unwrap();
        serve(stream, Fault::closing(cut(2, "{}")), mpsc::unbounded_channel().0).await;
    });
    assert_eq!((response.status, response.text()), (200, "{}"));
}

#[tokio::test]
async fn a_truncated_response_that_is_not_json_is_forwarded_truncated() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
    let faulty = Faulty::start("0.0.2.post1", Fault::closing(format!("{head}5\r\n<h1>N\r\n")), &[]).await;
    let request = format!("GET {SITES} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", authorization(V1));
    let mut client = Client::raw(faulty.listener, request.as_bytes()).await;
    assert_eq!(client.head().await.0, 200);
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert_eq!(rest, "5\r\n<h1>N\r\n", "there is no last chunk");
}

#[tokio::test]
async fn a_response_with_invalid_json_is_forwarded_unchanged() {
    for text in ["{\"results\": [{\"id\": 7", "\u{feff}[]", "{\"url\": \"http://", "", "nul\0l"] {
        let fault = Fault::closing(cut(text.len(), text));
        let faulty = Faulty::start("0.0.2.post1", fault, &[]).await;
        for target in [PROXMOX_ENDPOINTS, SITES] {
            let response = send(faulty.listener, "GET", target, &authorization(V1)).await;
            assert_eq!((response.status, response.text()), (200, text), "{target}");
        }
    }
}

#[tokio::test]
async fn a_large_page_is_forwarded_complete_with_all_links_rewritten() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let netbox = server.local_addr().unwrap();
    let rows: Vec<Value> = (0..20_000)
        .map(|id| json!({ "id": id, "url": format!("http://{netbox}{SITES}{id}/"), "comments": "x".repeat(300) }))
        .collect();
    let page = json!({ "count": rows.len(), "next": format!("http://{netbox}{SITES}?offset=20000"), "results": rows });
    let page = page.to_string();
    let backend = of_release("0.0.2.post1").await;
    let front = TestBridge::start(config(backend.address, &[("backend.netbox_listen", "127.0.0.1:0")])).await;
    push(&front, "any", "/netbox/endpoint", &row(netbox, V1)).await;
    let (listener, token) = (front.netbox_listeners()[0], authorization(V1));
    let (response, ()) = tokio::join!(send(listener, "GET", SITES, &token), async {
        let (stream, _) = server.accept().await.unwrap();
        serve(stream, Fault::closing(cut(page.len(), &page)), mpsc::unbounded_channel().0).await;
    });
    assert_eq!(response.status, 200);
    let wanted = page.replace(&format!("http://{netbox}"), &format!("http://{listener}"));
    assert!(response.text() == wanted, "{} bytes for {}", response.body.len(), wanted.len());
}

#[tokio::test]
async fn a_request_whose_backend_has_gone_is_taken_back_from_netbox() {
    for (release, method, target) in
        [("0.0.2.post1", "GET", PROXMOX_ENDPOINTS), ("0.0.3", "GET", SYNC_PROCESSES), ("0.0.3", "GET", SITES)]
    {
        for bytes in [String::new(), cut(100, "{\"results\":")] {
            let mut faulty = Faulty::start(release, Fault::staying(&bytes), &[]).await;
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n",
                authorization(V1)
            );
            let client = Client::raw(faulty.listener, request.as_bytes()).await;
            let seen = timeout(LONG, faulty.seen.recv()).await.unwrap().unwrap().unwrap();
            assert!(seen.starts_with(&format!("{method} {target} ")), "{seen}");
            drop(client);
            let ended = timeout(LONG, faulty.seen.recv()).await.expect("NetBox is not left waiting").unwrap();
            assert_eq!(ended, None);
        }
    }
}

#[tokio::test]
async fn a_netbox_that_hangs_delays_neither_clients_nor_operators() {
    let mut faulty = Faulty::start("0.0.2.post1", Fault::staying(""), &[]).await;
    let request = format!("GET {SITES} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", authorization(V1));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(Client::raw(faulty.listener, request.as_bytes()).await);
        timeout(LONG, faulty.seen.recv()).await.unwrap().unwrap();
    }
    let read = timeout(
        LONG,
        faulty.front.get("/netbox/endpoint", &[("X-Proxbox-API-Key", crate::support::bridge::KEY)]),
    );
    let shown = read.await.unwrap();
    assert_eq!((shown.status, &shown.json()[0]["port"]), (200, &json!(faulty.netbox.port())));
    assert_eq!(timeout(LONG, faulty.front.admin_request("GET", "/backends", &[])).await.unwrap().status, 200);
    drop(waiting);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_too_long_for_a_rule_never_reaches_netbox() {
    for (release, method, target) in [("0.0.3", "POST", SYNC_PROCESSES), ("0.0.6.post4", "PATCH", FIELD)] {
        let mut faulty =
            Faulty::start(release, Fault::closing(cut(2, "{}")), &[("limits.client_body", "300ms")]).await;
        let head = |length: usize| {
            format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n",
                authorization(V1)
            )
        };
        let slow = Client::raw(faulty.listener, format!("{}{{\"name\":", head(100)).as_bytes()).await;
        let response = timeout(LONG, slow.answer()).await.unwrap();
        assert!([400, 408].contains(&response.status), "{target}: {}", response.text());
        let long = format!("{}{}", head(300 << 10), " ".repeat(300 << 10));
        let mut client = Client::raw(faulty.listener, b"").await;
        client.write(long.as_bytes()).await;
        let (status, _) = timeout(LONG, client.head()).await.unwrap();
        assert!([400, 413].contains(&status), "{target}: {status}");
        drop(Client::raw(faulty.listener, format!("{}{{\"name\":", head(100)).as_bytes()).await);
        assert!(faulty.seen.try_recv().is_err(), "{target}: NetBox received something");
    }
}
