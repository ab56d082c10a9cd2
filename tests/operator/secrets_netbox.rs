//! Secrets that are pushed for the NetBox listener, or pass through it, appear nowhere else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::secrets::{CLIENT, files, hides_all, repeating, request_with_key};
use super::{RunningBridge, TOKEN};
use crate::support::bridge::{Answer, Client, DEVICES, poll_until};
use crate::support::netbox::{NetBox, PROXMOX_ENDPOINTS, Received, SYNC_PROCESSES, json_answer, row};
use crate::support::scripted::{Backend, Body, answer, full_body};

const V1: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";
const V2: &str = "nbt_kkkkkkkkkkkk.v2-secret-0123456789-ABCDEFGHIJKLMNOPQRS";
const V2_SECRET: &str = "v2-secret-0123456789-ABCDEFGHIJKLMNOPQRS";
/// Another user's token. NetBox accepts it, and the bridge does not know it.
const OTHER: &str = "70ken-of-somebody-else-0123456789abcdefgh";
const PASSWORD: &str = "password/of+\"pve\"-0123456789";
const TOKEN_VALUE: &str = "11111111-2222-3333-4444-555555555555";
/// What NetBox holds of its own, and what a request to it brings beside a token.
const IN_NETBOX: &str = "secret-in-netbox-0123456789";
const IN_QUERY: &str = "secret-in-a-query-0123456789";
const IN_HEADER: &str = "secret-in-a-header-0123456789";
const PUSHED: [&str; 4] = [V1, V2_SECRET, PASSWORD, TOKEN_VALUE];
const SECRETS: [&str; 9] = [CLIENT, TOKEN, V1, V2_SECRET, PASSWORD, TOKEN_VALUE, OTHER, IN_NETBOX, IN_QUERY];
const HTML: &str = "/api/html/";
const LINK: &str = "/api/link/";
const INVALID: &str = "/api/dcim/sites/";
const FIELD: &str = "/api/extras/custom-fields/4/";

/// A backend without `/version` that stores rows: with the stream of devices it is 0.0.3, without it 0.0.2.
async fn backend(streams: &'static [&'static str]) -> Backend {
    let rows: Arc<Mutex<Vec<Value>>> = Arc::default();
    Backend::start(move |request: Request<Incoming>| {
        let rows = Arc::clone(&rows);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            stored(&rows, streams, head.method.as_str(), head.uri.path(), &body)
        }
    })
    .await
}

fn stored(
    rows: &Mutex<Vec<Value>>,
    streams: &[&str],
    method: &str,
    path: &str,
    body: &[u8],
) -> Response<Body> {
    match (method, path) {
        ("HEAD", path) if streams.contains(&path) => answer(405, &[("allow", "GET")], ""),
        ("GET", path) if streams.contains(&path) => repeating(&PUSHED),
        ("HEAD", _) => answer(404, &[], ""),
        ("POST", "/netbox/endpoint" | "/proxmox/endpoints") => {
            let mut row: Value = serde_json::from_slice(body).unwrap();
            let mut rows = rows.lock().unwrap();
            row["id"] = json!(rows.len() + 1);
            rows.push(row.clone());
            answer(200, &[], &row.to_string())
        }
        ("GET", "/netbox/endpoint" | "/proxmox/endpoints") => {
            answer(200, &[], &json!(*rows.lock().unwrap()).to_string())
        }
        // Its error repeats the request.
        ("PUT", _) => answer(422, &[], &json!({ "detail": String::from_utf8_lossy(body) }).to_string()),
        _ => answer(404, &[], "{\"detail\":\"Not Found\"}"),
    }
}

/// A NetBox whose responses repeat the request, and have secrets of their own.
fn repeated(received: &Received) -> Response<Body> {
    let host = received.header("host").unwrap_or_default();
    let said = format!("{} {:?} {IN_NETBOX}", received.target, received.headers);
    match received.path() {
        PROXMOX_ENDPOINTS => {
            let url = format!("http://{host}{PROXMOX_ENDPOINTS}7/?key={IN_NETBOX}");
            let row = json!({ "id": 7, "url": url, "name": "pve", "comments": said });
            json_answer(200, &json!({ "count": 1, "results": [row], "next": null }))
        }
        HTML => {
            let response = Response::builder().status(500).header("content-type", "text/html");
            response.body(full_body(format!("<pre>{said}</pre>"))).unwrap()
        }
        LINK => {
            let location = format!("http://{host}/api/x/?token={IN_NETBOX}");
            Response::builder().status(302).header("location", location).body(full_body("")).unwrap()
        }
        INVALID => json_answer(400, &json!({ "detail": said })),
        FIELD => json_answer(200, &json!({ "name": "proxmox_last_updated", "object_types": [], "x": said })),
        _ => json_answer(200, &json!({ "netbox-version": "4.7.3", "token": IN_NETBOX, "detail": said })),
    }
}

/// A NetBox that sends back what it receives, which is no answer.
async fn echo() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = vec![0; 4096];
            let length = stream.read(&mut read).await.unwrap_or_default();
            let _ = stream.write_all(&read[..length]).await;
        }
    });
    (address, tasks)
}

async fn push(bridge: &RunningBridge, method: &str, target: &str, row: &Value) -> Answer {
    let body = row.to_string();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: bridge\r\nX-Proxbox-API-Key: {CLIENT}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::raw(bridge.process.address, request.as_bytes()).await.answer().await
}

fn proxmox() -> Value {
    json!({ "name": "pve (nb:7)", "username": "root@pam", "password": PASSWORD, "token_name": "t", "token_value": TOKEN_VALUE })
}

/// Sends requests of each kind to the NetBox listener. Returns all responses.
async fn requests(listener: SocketAddr) -> String {
    let mut answered = String::new();
    let paths = [PROXMOX_ENDPOINTS, SYNC_PROCESSES, FIELD, HTML, LINK, INVALID, "/api/status/"];
    let tokens = [V1, V2, OTHER].map(|token| format!("Token {token}"));
    for (path, token) in paths.iter().flat_map(|path| tokens.iter().map(move |token| (path, token))) {
        for method in ["GET", "PATCH"] {
            let body = match method {
                "GET" => String::new(),
                _ => json!({ "object_types": ["dcim.site"], "password": PASSWORD, "comments": token })
                    .to_string(),
            };
            let request = format!(
                "{method} {path}?token={IN_QUERY}&q={OTHER} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\
                 Cookie: sessionid={IN_HEADER}\r\nX-Secret: {IN_HEADER}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = Client::raw(listener, request.as_bytes()).await.answer().await;
            answered.push_str(answer.text());
        }
    }
    answered
}

/// Everything that operators can read, each with its name.
async fn places(bridge: &RunningBridge) -> Vec<(String, String)> {
    let mut targets: Vec<String> =
        ["/", "/page/app.js", "/metrics", "/jobs", "/backends", "/openapi.json", "/log", "/readyz?backend"]
            .map(str::to_owned)
            .into();
    let jobs = bridge.admin("GET", "/jobs").await.json();
    for job in jobs["results"].as_array().unwrap() {
        let id = job["id"].to_string().replace('"', "");
        targets.extend(["", "/events", "/recording"].map(|part| format!("/jobs/{id}{part}")));
    }
    let mut found = Vec::new();
    for target in targets {
        let answer = bridge.admin("GET", &target).await;
        found.push((target, answer.text().to_owned()));
    }
    found
}

#[tokio::test]
async fn what_is_pushed_for_the_listener_or_passes_it_is_nowhere_but_where_it_belongs() {
    for streams in [&[][..], &[DEVICES]] {
        nowhere_else(streams).await;
    }
}

async fn nowhere_else(streams: &'static [&'static str]) {
    let all = [&SECRETS[..], &[IN_HEADER]].concat();
    let hides = |place: &str, text: &str| hides_all(&all, place, text);
    let backend = backend(streams).await;
    let netbox = NetBox::start(&[V1, V2, OTHER], repeated).await;
    let settings = [("jobs.recording", "on"), ("backend.netbox_listen", "127.0.0.1:0")];
    let mut bridge = RunningBridge::start(backend.address, &settings);
    let listener = bridge.process.listening();
    assert_eq!(bridge.admin("PUT", "/log?filter=trace").await.status, 200);

    for token in [V1, V2] {
        let stored = push(&bridge, "POST", "/netbox/endpoint", &netbox.row(token)).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
    }
    let stored = push(&bridge, "POST", "/proxmox/endpoints", &proxmox()).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    for target in ["/netbox/endpoint", "/proxmox/endpoints"] {
        let headers = [("X-Proxbox-API-Key", CLIENT)];
        let shown = Client::send(bridge.process.address, "GET", target, &headers).await.answer().await;
        hides(target, shown.text());
    }
    // A row that is refused, or that is none.
    push(&bridge, "PUT", "/netbox/endpoint/9", &netbox.row(V2)).await;
    push(&bridge, "POST", "/proxmox/endpoints", &json!({ "name": "none", "password": PASSWORD })).await;

    let answered = requests(listener).await;
    // Where they belong: NetBox's own answers, and those that 0.0.2 reads.
    assert!(answered.contains(IN_NETBOX) && answered.contains(IN_HEADER), "{answered}");
    assert_eq!(answered.contains(TOKEN_VALUE), streams.is_empty(), "{answered}");

    let (address, _echo) = echo().await;
    let stored = push(&bridge, "POST", "/netbox/endpoint", &row(address, V1)).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    hides("what is said of a NetBox that gives no answer", &requests(listener).await);

    let streamed = request_with_key(&bridge, DEVICES).await;
    hides("the stream", streamed.text());
    if !streams.is_empty() {
        assert!(streamed.text().contains("[hidden]"), "{}", streamed.text());
        poll_until(async || {
            let jobs = bridge.admin("GET", "/jobs").await.json();
            jobs["results"].as_array()?.iter().all(|job| job["completed"].is_string()).then_some(())
        })
        .await;
    }
    for (place, text) in places(&bridge).await {
        hides(&place, &text);
    }
    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    let (code, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    hides("the log", &log);
    assert!(log.contains("NetBox did not answer requests of this backend."), "{log}");
    assert!(log.contains("\"route\":\"netbox\""), "{log}");
    let kept = files(&super::ledger(data.path()));
    for end in ["ledger.sqlite3", "netbox-endpoints.json"] {
        assert!(kept.iter().any(|(path, _)| path.ends_with(end)), "{end} is not kept");
    }
    for (path, text) in &kept {
        hides(path, text);
    }
}
