//! The rules of the NetBox listener: what each changes, its switch and its counter.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::compat::{Rows, push};
use super::netbox::{ENDPOINTS, FIELDS, FakeNetBox, PROCESSES, STATUS, V1, between, get, pushed};
use super::reload::{ReloadableBridge, file};
use crate::support::bridge::{Client, NOWHERE, TestBridge, WITH_KEY, config, configured};
use crate::support::scripted::{Backend, Body, answer};

const OFF: [(&str, &str); 6] = [
    ("shims.netbox_token", "off"),
    ("shims.netbox_links", "off"),
    ("shims.current_token", "off"),
    ("shims.proxmox_credentials", "off"),
    ("shims.sync_processes", "off"),
    ("shims.last_updated", "off"),
];
/// A response of a NetBox behind a proxy: a body that is marked as compressed.
const ANSWERED: [(&str, &str); 7] = [
    ("content-type", "application/json"),
    ("content-encoding", "gzip"),
    ("location", "http://netbox/api/dcim/sites/1/"),
    ("etag", "W/\"1\""),
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("x-request-id", "0123"),
];
const SENT: &str = "Accept-Encoding: gzip, br\r\nAuthorization: Token nbt_key.secret\r\nAccept: */*\r\n\
                    Content-Type: application/json\r\nCookie: c=1\r\nIf-None-Match: W/\"0\"\r\nX-Twice: 1\r\n\
                    X-Twice: 2\r\nUser-Agent: python-requests/2.32\r\nX-Request-ID: 0123\r\n\
                    Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

/// The headers but those that belong to one connection, `Host` and `Via`, in an order that any of them may have.
fn end_to_end(headers: &[(String, String)]) -> Vec<(String, String)> {
    let of_hop = ["host", "via", "connection", "transfer-encoding", "date"];
    let mut headers: Vec<_> =
        headers.iter().filter(|(name, _)| !of_hop.contains(&name.as_str())).cloned().collect();
    headers.sort();
    headers
}

/// The state of the NetBox listener in `/backends`.
async fn seen(front: &TestBridge) -> Value {
    front.admin_request("GET", "/backends", &[]).await.json()["results"][0]["netbox_listener"].clone()
}

#[tokio::test]
async fn with_every_rule_off_requests_and_answers_pass_byte_for_byte() {
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let noted = Arc::clone(&bodies);
    let netbox = Backend::start(move |request: Request<Incoming>| {
        let noted = Arc::clone(&noted);
        async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            noted.lock().unwrap().push(body.to_vec());
            let text = format!("{{\"url\": \"http://{host}/api/dcim/sites/1/\",\"results\":[ ]}}");
            response(&host, &text)
        }
    })
    .await;
    let url = format!("http://{}", netbox.address);
    let settings =
        [&OFF[..], &[("backend.netbox_listen", "127.0.0.1:0"), ("backend.netbox_url", &url)]].concat();
    // Nothing is known of this backend, and every rule would be for it.
    let front = TestBridge::start(config(NOWHERE, &settings)).await;
    let address = front.netbox_listeners()[0];
    let narrowed = r#"{ "name":"proxmox_last_updated",  "object_types":["dcim.site"] }"#;
    let field = format!("{FIELDS}4/");
    for (method, target, body) in [
        ("GET", "/api/dcim/sites/?q=%2F&&x=a+b&brief", ""),
        ("GET", ENDPOINTS, ""),
        ("PATCH", &field, narrowed),
        ("POST", PROCESSES, r#"{"name":"sync"}"#),
        ("DELETE", "/api/dcim/sites/1/", ""),
    ] {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{SENT}{length}");
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{head}\r\n{body}");
        let came = Client::raw(address, request.as_bytes()).await.answer().await;
        let received = netbox.last();
        assert_eq!((received.method.as_str(), received.target.as_str()), (method, target));
        let sent = head.lines().map(|line| line.split_once(": ").unwrap());
        let sent: Vec<_> = sent.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        assert_eq!(end_to_end(&received.headers), end_to_end(&sent), "{method} {target}");
        assert_eq!(bodies.lock().unwrap().last().unwrap(), body.as_bytes(), "{method} {target}");
        let host = netbox.address.to_string();
        let text = format!("{{\"url\": \"http://{host}/api/dcim/sites/1/\",\"results\":[ ]}}");
        assert_eq!((came.status, came.text()), (200, text.as_str()), "{method} {target}");
        let mut wanted =
            ANSWERED.map(|(name, value)| (name.to_owned(), value.replace("netbox", &host))).to_vec();
        wanted.push(("content-length".to_owned(), text.len().to_string()));
        assert_eq!(end_to_end(&came.headers), end_to_end(&wanted), "{method} {target}");
    }
    let requests = seen(&front).await["requests"].clone();
    assert_eq!(requests[0], json!({ "rule": null, "count": 5 }));
    assert!(requests.as_array().unwrap()[1..].iter().all(|line| line["count"] == 0), "{requests}");
}

fn response(host: &str, text: &str) -> http::Response<Body> {
    let headers = ANSWERED.map(|(name, value)| (name, value.replace("netbox", host)));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    answer(200, &headers, text)
}

#[tokio::test]
async fn links_and_a_replaced_token_pass_as_they_came_where_their_rules_are_off() {
    let off = [("shims.netbox_links", "off"), ("shims.current_token", "off")];
    let (_, _backend, netbox, _, front, listener) = between(&off).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let mut v2 = pushed(netbox.address);
    v2["token_version"] = json!("v2");
    v2["token_key"] = json!("key");
    v2["token"] = json!("secret");
    push(&front, "PUT", "/netbox/endpoint/1", &v2).await;
    let response = get(listener, "/api/dcim/sites/3/", V1).await;
    assert_eq!(netbox.last().header("authorization"), Some(V1));
    assert_eq!(response.json()["url"], format!("http://{}/api/dcim/sites/3/", netbox.address));
    // The rule for the form of tokens is another one.
    assert_eq!(get(listener, STATUS, "Token nbt_key.secret").await.status, 200);
}

#[tokio::test]
async fn each_rule_counts_each_request_once_and_backends_says_so() {
    let (_, backend, netbox, _, front, listener) = between(&[]).await;
    let before = seen(&front).await;
    assert_eq!((&before["address"], &before["netbox"]), (&json!(listener.to_string()), &Value::Null));
    assert!(before["problem"].as_str().unwrap().contains("does not know yet where NetBox is"), "{before}");
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    for row in [
        json!({ "name": "pve (nb:7)", "token_name": "t", "token_value": "s3cret-value" }),
        json!({ "name": "bare (nb:9)" }),
    ] {
        push(&front, "POST", "/proxmox/endpoints", &row).await;
    }
    let pushed = seen(&front).await;
    assert!(pushed["held"].as_str().unwrap().starts_with("Restart proxbox-api"), "{pushed}");
    assert_eq!(pushed["proxmox_endpoints"], json!({ "count": 2, "without_secrets": ["bare (nb:9)"] }));
    // Two links in one answer, a list with secrets and links, a v2 token that is refused, and nothing to change.
    for (target, token) in
        [("/api/dcim/sites/3/", V1), (ENDPOINTS, V1), (STATUS, "Token nbt_wrong.secret"), (STATUS, V1)]
    {
        get(listener, target, token).await;
    }
    let now = seen(&front).await;
    let count = |rule: &str| {
        let mut lines = now["requests"].as_array().unwrap().iter();
        lines.find(|line| line["rule"].as_str().unwrap_or("none") == rule).unwrap()["count"].clone()
    };
    for (rule, wanted) in [
        ("none", 1),
        ("netbox_links", 2),
        ("proxmox_credentials", 1),
        ("netbox_token", 1),
        ("current_token", 0),
        ("sync_processes", 0),
        ("last_updated", 0),
    ] {
        assert_eq!(count(rule), wanted, "{rule}: {now}");
    }
    assert_eq!(now["netbox"], json!({ "url": format!("http://{}", netbox.address), "source": "pushed" }));
    assert_eq!(now["problem"], Value::Null);
    assert!(now["last_request"].as_str().unwrap().ends_with('Z'), "{now}");
    assert_eq!(now["held"], Value::Null, "the backend has bound its session to the listener");
    // NetBox lists the one alone.
    assert_eq!(now["proxmox_endpoints"], json!({ "count": 1, "without_secrets": [] }));
    assert!(
        !now.to_string().contains("s3cret-value") && !now.to_string().contains("0123456789abcdef"),
        "{now}"
    );
    get(listener, "/api/dcim/manufacturers/", V1).await;
    while seen(&front).await["held"] != Value::Null {
        tokio::task::yield_now().await;
    }
    drop(backend);
}

/// The configuration of a bridge on `data`, whose backend has a NetBox listener.
fn moved_in(backend: SocketAddr, data: &Path) -> String {
    format!("{}netbox_listen = \"127.0.0.1:0\"\n", moved_out(backend, data))
}

fn moved_out(backend: SocketAddr, data: &Path) -> String {
    file(backend, &format!("data_dir = {data:?}"))
}

/// What is kept of NetBox endpoints.
fn kept(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("netbox-endpoints.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn without_the_listener_its_netbox_is_forgotten_and_the_backend_is_given_the_true_one() {
    let rows = Rows::default();
    let serving = rows.clone();
    let backend = Backend::start(move |request| serving.clone().answer(request)).await;
    let netbox = FakeNetBox::default().start().await;
    let data = tempfile::tempdir().unwrap();
    let text = moved_in(backend.address, data.path());
    let changing = ReloadableBridge::start(text.clone()).await;
    let front = &changing.front;
    let first = front.netbox_listeners()[0];
    push(front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    push(front, "POST", "/proxmox/endpoints", &json!({ "name": "pve (nb:7)", "token_value": "s3cret" }))
        .await;
    assert_eq!(rows.0.lock().unwrap()[0]["port"], first.port());
    assert_eq!(kept(data.path()).as_object().unwrap().len(), 1);

    let (status, detail) = changing.reload(moved_out(backend.address, data.path())).await;
    assert_eq!(status, 200, "{detail}");
    while kept(data.path()) != json!({}) {
        tokio::task::yield_now().await;
    }
    assert_eq!(seen(front).await, Value::Null);
    let row = front.get("/netbox/endpoint", &WITH_KEY).await.json();
    assert_eq!(row[0]["port"], first.port(), "the plugin sees that the backend has another address");
    assert_eq!(push(front, "PUT", "/netbox/endpoint/1", &pushed(netbox.address)).await.status, 200);
    let row = rows.0.lock().unwrap().last().unwrap().clone();
    assert_eq!((&row["port"], &row["token"]), (&json!(netbox.address.port()), &json!("0123456789abcdef")));

    // Moved in again, it begins anew.
    assert_eq!(changing.reload(text).await.0, 200);
    assert_eq!(seen(front).await["netbox"], Value::Null);
    assert_eq!(front.get("/proxmox/endpoints", &WITH_KEY).await.json(), json!([]));
}

#[tokio::test]
async fn a_bridge_that_starts_without_the_listener_forgets_its_netbox() {
    let backend = Backend::start(|_| async { answer(404, &[], "") }).await;
    let data = tempfile::tempdir().unwrap();
    let row = json!({ "row": { "domain": "netbox.example" }, "token": "", "replaced": [] });
    let url = format!("http://{}", backend.address);
    fs::write(data.path().join("netbox-endpoints.json"), json!({ url.clone(): row }).to_string()).unwrap();
    let with = TestBridge::start(configured(&moved_in(backend.address, data.path()))).await;
    assert_eq!(seen(&with).await["netbox"]["url"], "https://netbox.example");
    assert_eq!(kept(data.path())[&url], row);
    with.stop().await;
    let without = TestBridge::start(configured(&moved_out(backend.address, data.path()))).await;
    while kept(data.path()) != json!({}) {
        tokio::task::yield_now().await;
    }
    without.stop().await;
}
