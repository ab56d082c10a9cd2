//! The setup of the NetBox listener tests: a bridge between a backend of some release and a NetBox.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxbox_bridge::core::domain::kind::Kind;
use serde_json::{Value, json};

use crate::support::bridge::{Answer, Client, KEY, TestBridge, config};
use crate::support::netbox::{
    NetBox, OTHER, PROXMOX_ENDPOINTS, Received, V1, V2, authorization, json_answer, objects,
};
use crate::support::scripted::{Backend, Body, answer};

/// The secrets of the Proxmox endpoint that the plugin pushes.
pub(super) const PASSWORD: &str = "p4ssword-of-pve-0123456789";
pub(super) const TOKEN_VALUE: &str = "70ken-value-of-pve-0123456789";

/// A bridge between a backend and a NetBox.
pub(super) struct NetboxHarness {
    _backend: Backend,
    pub(super) netbox: NetBox,
    pub(super) front: TestBridge,
    pub(super) listener: SocketAddr,
}

impl NetboxHarness {
    /// With a backend of `release`, to which the plugin has pushed a NetBox and `token`.
    pub(super) async fn of(release: &'static str, token: &str, settings: &[(&str, &str)]) -> Self {
        let between = Self::before(default_netbox().await, release, settings).await;
        between.push(token).await;
        between
    }

    /// Before `netbox`, with a backend of `release` to which nothing was pushed yet.
    pub(super) async fn before(netbox: NetBox, release: &'static str, settings: &[(&str, &str)]) -> Self {
        let backend = of_release(release).await;
        let all = [&[("backend.netbox_listen", "127.0.0.1:0")], settings].concat();
        let front = TestBridge::start(config(backend.address, &all)).await;
        let listener = front.netbox_listeners()[0];
        Self { _backend: backend, netbox, front, listener }
    }

    /// Pushes what the plugin pushes before a job.
    pub(super) async fn push(&self, token: &str) {
        push(&self.front, "any", "/netbox/endpoint", &self.netbox.row(token)).await;
        push(&self.front, "any", "/proxmox/endpoints", &proxmox(PASSWORD, TOKEN_VALUE)).await;
    }

    /// Sends a request of the backend to its NetBox.
    pub(super) async fn send(&self, method: &str, target: &str, token: &str) -> Answer {
        send(self.listener, method, target, &authorization(token)).await
    }
}

/// The row of the Proxmox endpoint 7 as the plugin pushes it.
pub(super) fn proxmox(password: &str, token_value: &str) -> Value {
    json!({
        "name": "pve (nb:7)", "ip_address": "10.0.0.5", "domain": "pve.example", "port": 8006,
        "username": "root@pam", "password": password, "token_name": "t", "token_value": token_value,
        "verify_ssl": false, "enabled": true,
    })
}

/// Pushes `row` to the backend with this `host`.
pub(super) async fn push(front: &TestBridge, host: &str, target: &str, row: &Value) {
    let body = row.to_string();
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nX-Proxbox-API-Key: {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let stored = Client::raw(front.address, request.as_bytes()).await.answer().await;
    assert_eq!(stored.status, 200, "{}", stored.text());
}

/// Sends a request with this `Authorization`, with an object of JSON if the method has one.
pub(super) async fn send(listener: SocketAddr, method: &str, target: &str, authorization: &str) -> Answer {
    let body = if ["POST", "PUT", "PATCH"].contains(&method) { "{\"name\": \"a\"}" } else { "" };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {listener}\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    received(Client::raw(listener, request.as_bytes()).await, method).await
}

/// The answer to a request with `method`.
pub(super) async fn received(mut client: Client, method: &str) -> Answer {
    if method == "HEAD" {
        let (status, headers) = client.head().await;
        return Answer { status, headers, body: Vec::new() };
    }
    client.answer().await
}

/// A NetBox that accepts the usual tokens.
pub(super) async fn default_netbox() -> NetBox {
    NetBox::start(&[V1, V2, OTHER], with_plugin).await
}

/// The custom field `proxmox_last_updated`, as the recordings of backends know it.
pub(super) const LAST_UPDATED: &str = "/api/extras/custom-fields/35/";

/// NetBox's answers, with the endpoints of Proxmox as the plugin of today lists them: without their secrets.
pub(super) fn with_plugin(received: &Received) -> Response<Body> {
    let host = received.header("host").unwrap_or_default();
    match (received.method.as_str(), received.path()) {
        ("GET", PROXMOX_ENDPOINTS) => {}
        (_, LAST_UPDATED) => {
            let types = ["dcim.rack", "dcim.site"];
            let (name, url) = ("proxmox_last_updated", format!("http://{host}{LAST_UPDATED}"));
            return json_answer(200, &json!({ "id": 35, "url": url, "name": name, "object_types": types }));
        }
        _ => return objects(received),
    }
    let row = |id: u64| {
        json!({
            "id": id, "url": format!("http://{host}{PROXMOX_ENDPOINTS}{id}/"), "name": "pve",
            "domain": "pve.example", "port": 8006, "ip_address": { "url": format!("http://{host}/api/ipam/ip-addresses/3/"), "address": "10.0.0.5/24" },
            "username": "root@pam", "token_name": "t", "verify_ssl": false,
        })
    };
    json_answer(200, &json!({ "count": 2, "next": null, "previous": null, "results": [row(7), row(8)] }))
}

/// A backend of `release`: its version, and the endpoint rows that the plugin stores.
pub(super) async fn of_release(release: &'static str) -> Backend {
    let rows: Arc<Mutex<Vec<Value>>> = Arc::default();
    Backend::start(move |request: Request<Incoming>| {
        let rows = Arc::clone(&rows);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (status, text) = reply(release, &rows, &head.method, head.uri.path(), &body);
            answer(status, &[("content-type", "application/json"), ("allow", "GET")], &text)
        }
    })
    .await
}

fn reply(release: &str, rows: &Mutex<Vec<Value>>, method: &Method, path: &str, body: &[u8]) -> (u16, String) {
    let is_new = !["0.0.1", "0.0.2.post1", "0.0.3"].contains(&release);
    let has_stream = |kind: &Kind| is_new || release == "0.0.3" && *kind == Kind::Devices;
    if Kind::all().any(|kind| kind.row().stream_path == path && has_stream(&kind)) {
        let text = if method == Method::HEAD { String::new() } else { json!({ "detail": "x" }).to_string() };
        return (405, text);
    }
    match (method, path) {
        (&Method::GET, "/version") if is_new => (200, json!({ "version": release }).to_string()),
        (&Method::GET, "/auth/bootstrap-status") if release == "0.0.7.post1" => {
            (200, json!({ "needs_bootstrap": false, "has_db_keys": true }).to_string())
        }
        (&Method::POST, "/netbox/endpoint" | "/proxmox/endpoints") => {
            let mut row: Value = serde_json::from_slice(body).unwrap();
            let mut rows = rows.lock().unwrap();
            row["id"] = json!(rows.len() + 1);
            rows.push(row.clone());
            (200, row.to_string())
        }
        (&Method::GET, "/netbox/endpoint") => (200, json!(*rows.lock().unwrap()).to_string()),
        (&Method::HEAD, _) => (404, String::new()),
        _ => (404, json!({ "detail": "Not Found" }).to_string()),
    }
}
