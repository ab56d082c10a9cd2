//! The NetBox listener: the proxy through which backends reach NetBox.

mod limits;
mod upstream;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxbox_bridge::server::Server;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::compat::{Rows, push};
use super::tls::Authority;
use crate::support::bridge::{
    Answer, Client, DEVICES, KEY, NOWHERE, TestBridge, WITH_KEY, config, without_pseudonym,
};
use crate::support::scripted::{Backend, Body, ReceivedRequest, answer, bridged};

pub(super) const STATUS: &str = "/api/status/";
pub(super) const ENDPOINTS: &str = "/api/plugins/proxbox/endpoints/proxmox/";
pub(super) const PROCESSES: &str = "/api/plugins/proxbox/sync-processes/";
pub(super) const FIELDS: &str = "/api/extras/custom-fields/";
const INTERFACES: &str = "/api/virtualization/interfaces/";
const SETTINGS: &str = "/proxbox/settings/netbox";
pub(super) const V1: &str = "Token 0123456789abcdef";

/// A fake NetBox that accepts two tokens.
#[derive(Clone, Default)]
pub(super) struct FakeNetBox {
    /// The bodies that were written to it.
    written: Arc<Mutex<Vec<Value>>>,
}

impl FakeNetBox {
    pub(super) async fn start(self) -> Backend {
        Backend::start(move |request| self.clone().answer(request)).await
    }

    async fn answer(self, request: Request<Incoming>) -> http::Response<Body> {
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (method, path, host) =
            (request.method().clone(), request.uri().path().to_owned(), header("host"));
        let json = [("content-type", "application/json")];
        if path.starts_with(PROCESSES) {
            return answer(404, &[("content-type", "text/html")], "<h1>Not Found</h1>");
        }
        if ![V1, "Bearer nbt_key.secret"].contains(&header("authorization").as_str()) {
            return answer(403, &json, r#"{"detail":"Invalid v1 token"}"#);
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let url = |path: &str| format!("http://{host}{path}");
        let field = |types: &Value| json!({ "id": 4, "url": url("/api/extras/custom-fields/4/"), "name": "proxmox_last_updated", "object_types": types });
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let text = match (&method, path.as_str()) {
            (_, STATUS) => json!({ "netbox-version": "4.7.3" }),
            (&Method::GET, ENDPOINTS) => json!({ "count": 2, "next": null, "previous": null, "results": [
                { "id": 7, "url": url("/api/plugins/proxbox/endpoints/proxmox/7/"), "name": "pve", "token_name": "t",
                  "domain": "pve.example", "ip_address": { "address": "10.0.0.5/24" }, "port": 8006 },
                { "id": 8, "url": url("/api/plugins/proxbox/endpoints/proxmox/8/"), "name": "other" },
            ] }),
            (&Method::GET, "/api/extras/custom-fields/4/") => field(&json!(["dcim.site", "dcim.rack"])),
            (_, path) if path.starts_with(INTERFACES) => json!({
                "id": 3, "url": url(path), "primary_mac_address": { "id": 1, "display": "BC:24:11:00:00:01" },
            }),
            (&Method::GET, FIELDS) => {
                let written = self.written.lock().unwrap();
                let has =
                    |field: &&Value| query == format!("name={}&limit=0", field["name"].as_str().unwrap());
                let results: Vec<Value> = written.iter().filter(has).cloned().collect();
                json!({ "count": results.len(), "next": null, "results": results })
            }
            (&Method::PATCH | &Method::POST, _) => {
                let written: Value = serde_json::from_slice(&body).unwrap();
                self.written.lock().unwrap().push(written.clone());
                field(&written["object_types"])
            }
            _ => json!({ "url": url(&path), "comments": url("/x") }),
        };
        answer(200, &json, &text.to_string())
    }
}

/// A bridge between a backend of 0.0.2 and NetBox, and the address of its NetBox listener.
pub(super) async fn between(
    settings: &[(&str, &str)],
) -> (Rows, Backend, Backend, FakeNetBox, TestBridge, SocketAddr) {
    let rows = Rows::default();
    let serving = rows.clone();
    let backend = Backend::start(move |request| serving.clone().answer(request)).await;
    let netbox = FakeNetBox::default();
    let server = netbox.clone().start().await;
    let all = [&[("backend.netbox_listen", "127.0.0.1:0")], settings].concat();
    let front = TestBridge::start(config(backend.address, &all)).await;
    let listener = front.netbox_listeners()[0];
    (rows, backend, server, netbox, front, listener)
}

/// A bridge before the NetBox at `url`, with a backend of unknown release; and its NetBox listener.
async fn before(url: &str, settings: &[(&str, &str)]) -> (TestBridge, SocketAddr) {
    let own = [("backend.netbox_listen", "127.0.0.1:0"), ("backend.netbox_url", url)];
    let front = TestBridge::start(config(NOWHERE, &[&own, settings].concat())).await;
    let listener = front.netbox_listeners()[0];
    (front, listener)
}

/// The row that the plugin pushes for the NetBox at `address`.
pub(super) fn pushed(address: SocketAddr) -> Value {
    json!({
        "name": "netbox", "ip_address": address.ip().to_string(), "domain": "", "port": address.port(),
        "verify_ssl": false, "token_version": "v1", "token": "0123456789abcdef", "token_key": null,
    })
}

async fn request(listener: SocketAddr, method: &str, target: &str, token: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {listener}\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n\
         X-Forwarded-Host: elsewhere\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::raw(listener, request.as_bytes()).await.answer().await
}

pub(super) async fn get(listener: SocketAddr, target: &str, token: &str) -> Answer {
    request(listener, "GET", target, token, &Value::Null).await
}

#[tokio::test]
async fn the_backend_is_given_the_listener_and_the_plugin_is_shown_its_own_netbox() {
    let (rows, _backend, netbox, _, front, listener) = between(&[]).await;
    let early = get(listener, STATUS, V1).await;
    assert_eq!(early.status, 503);
    assert!(early.detail().contains("does not know yet where NetBox is"), "{}", early.text());
    let stored = push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    assert_eq!((stored.status, &stored.json()["port"]), (200, &json!(netbox.address.port())));
    let row = rows.0.lock().unwrap()[0].clone();
    assert_eq!((&row["ip_address"], &row["port"]), (&json!("127.0.0.1"), &json!(listener.port())));
    assert_eq!(row["token"], "0123456789abcdef");
    let shown = front.get("/netbox/endpoint", &WITH_KEY).await.json();
    assert_eq!(
        (&shown[0]["port"], &shown[0]["token_version"]),
        (&json!(netbox.address.port()), &json!("v1"))
    );
    assert!(!shown.to_string().contains("0123456789abcdef"));
    let again = push(&front, "PUT", "/netbox/endpoint/1", &pushed(netbox.address)).await;
    assert_eq!((again.status, rows.0.lock().unwrap().len()), (200, 1), "nothing is to be changed");
}

#[tokio::test]
async fn a_request_is_forwarded_and_authorised_and_its_links_lead_back() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let response = get(listener, "/api/dcim/sites/3/?brief=1&x=%2F", V1).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["url"], format!("http://{listener}/api/dcim/sites/3/"));
    assert_eq!(response.json()["comments"], format!("http://{}/x", netbox.address), "that is no link");
    let received: ReceivedRequest = netbox.last();
    assert_eq!(received.target, "/api/dcim/sites/3/?brief=1&x=%2F");
    assert_eq!(received.header("host"), Some(netbox.address.to_string().as_str()));
    assert_eq!(received.header("x-forwarded-host"), None, "NetBox would build its links from it");
    let refused = get(listener, "/api/dcim/sites/", "Token wrong").await;
    assert_eq!((refused.status, refused.detail().as_str()), (403, "Invalid v1 token"));
}

#[tokio::test]
async fn no_spelling_of_a_forwarding_header_reaches_netbox() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let removed = [
        "Forwarded", "X-Forwarded-For", "X_Forwarded_Host", "X-Forwarded_Proto", "x_forwarded-port",
        "X-Forwarded-Prefix", "X-Real-IP", "X_Real_IP",
    ];
    let kept = ["X-Forward", "X_Realm", "Forwarded-By"];
    let headers: Vec<_> = removed.iter().chain(&kept).map(|name| (*name, "elsewhere")).collect();
    Client::send(listener, "GET", STATUS, &headers).await.answer().await;
    for name in removed {
        assert_eq!(netbox.last().header(&name.to_lowercase()), None, "{name}");
    }
    for name in kept {
        assert_eq!(netbox.last().header(&name.to_lowercase()), Some("elsewhere"), "{name}");
    }
}

#[tokio::test]
async fn proxmox_credentials_are_filled_in_only_for_requests_that_netbox_authorises() {
    let (_, backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let endpoint = json!({
        "name": "pve (nb:7)", "ip_address": "10.0.0.5", "domain": "pve.example", "port": 8006, "username": "root@pam",
        "password": null, "token_name": "t", "token_value": "s3cret-value", "verify_ssl": false, "enabled": true,
    });
    let stored = push(&front, "POST", "/proxmox/endpoints", &endpoint).await;
    assert_eq!((stored.status, &stored.json()["id"]), (200, &json!(7)), "{}", stored.text());
    let listed = front.get("/proxmox/endpoints", &WITH_KEY).await;
    assert_eq!(listed.json()[0]["name"], "pve (nb:7)");
    assert!(!listed.text().contains("s3cret-value"));
    assert!(backend.requests().iter().all(|received| !received.target.starts_with("/proxmox/endpoints")));

    let page = get(listener, &format!("{ENDPOINTS}?limit=0"), V1).await;
    let rows = page.json()["results"].as_array().unwrap().clone();
    assert_eq!(
        (rows.len(), &rows[0]["token_value"], &rows[0]["password"]),
        (1, &json!("s3cret-value"), &Value::Null)
    );
    assert_eq!(page.header("x-proxbox-bridge-shim"), Some("proxmox_credentials"));
    for (method, target, token) in [
        ("GET", ENDPOINTS, "Token wrong"),
        ("GET", ENDPOINTS, "Bearer nbt_key.secret"),
        ("POST", ENDPOINTS, V1),
        ("GET", "/api/dcim/sites/", V1),
    ] {
        let other = request(listener, method, target, token, &json!({})).await;
        assert!(!other.text().contains("s3cret-value"), "{method} {target}: {}", other.text());
    }
    let off = json!({ "enabled": false });
    assert_eq!(push(&front, "PUT", "/proxmox/endpoints/7", &off).await.status, 200);
    assert!(!get(listener, ENDPOINTS, V1).await.text().contains("s3cret-value"), "it is disabled");
}

/// The row that the plugin pushes for the Proxmox endpoint with the primary key `key` in NetBox.
fn proxmox(key: u64, domain: &str, ip_address: &str) -> Value {
    json!({
        "name": format!("pve (nb:{key})"), "domain": domain, "ip_address": ip_address, "port": 8006,
        "password": format!("s3cret-{key}"), "enabled": true,
    })
}

#[tokio::test]
async fn a_request_for_one_of_several_proxmox_endpoints_selects_it_by_its_address() {
    let (_, backend, netbox, _, front, _) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let status = |ids: &str| format!("/proxmox/cluster/status?proxmox_endpoint_ids={ids}");
    let early = front.get(&status("7"), &WITH_KEY).await;
    assert_eq!(early.status, 422, "{}", early.text());
    assert!(early.detail().contains("NetBox has not pushed it since the bridge started"), "{}", early.text());
    for row in [proxmox(7, "pve.example", "10.0.0.5/24"), proxmox(8, "", "10.0.0.6/24")] {
        assert_eq!(push(&front, "POST", "/proxmox/endpoints", &row).await.status, 200);
    }
    for (ids, selected) in [("7", "&domain=pve.example"), ("8", "&ip_address=10.0.0.6"), ("7,8", "")] {
        front.get(&status(ids), &WITH_KEY).await;
        assert_eq!(backend.last().target, format!("{}{selected}", status(ids)));
    }
    let before = backend.requests().len();
    push(&front, "POST", "/proxmox/endpoints", &proxmox(9, "other.example", "10.0.0.7/24")).await;
    for (ids, why) in [("7,8", "Start one sync for each"), ("10", "has not pushed the Proxmox endpoint 10")] {
        let refused = front.get(&status(ids), &WITH_KEY).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.detail().contains(why), "{}", refused.text());
    }
    assert_eq!(backend.requests().len(), before, "nothing reaches the backend without its endpoint");
}

#[tokio::test]
async fn a_proxmox_endpoint_that_netbox_does_not_list_any_more_is_forgotten_with_its_secrets() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    for row in [proxmox(7, "pve.example", "10.0.0.5"), proxmox(9, "gone.example", "10.0.0.7")] {
        assert_eq!(push(&front, "POST", "/proxmox/endpoints", &row).await.status, 200);
    }
    let kept = async || front.get("/proxmox/endpoints", &WITH_KEY).await.json().as_array().unwrap().len();
    let page = get(listener, &format!("{ENDPOINTS}?name=pve"), V1).await;
    assert!(page.text().contains("s3cret-7") && !page.text().contains("s3cret-9"), "{}", page.text());
    assert_eq!(kept().await, 2, "this list was to leave rows out");
    get(listener, &format!("{ENDPOINTS}?limit=0"), V1).await;
    assert_eq!(kept().await, 1);
    assert_eq!(front.get("/proxmox/endpoints/9", &WITH_KEY).await.status, 404);
}

#[tokio::test]
async fn a_v2_token_reaches_netbox_as_bearer_and_a_replaced_one_as_the_one_in_force() {
    let (rows, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    assert_eq!(
        get(listener, STATUS, V1).await.status,
        200,
        "NetBox accepts it, so that the backend may have it"
    );
    let mut v2 = pushed(netbox.address);
    v2["token_version"] = json!("v2");
    v2["token_key"] = json!("key");
    v2["token"] = json!("secret");
    assert_eq!(push(&front, "PUT", "/netbox/endpoint/1", &v2).await.status, 200);
    assert_eq!(rows.0.lock().unwrap()[0]["token"], "nbt_key.secret");
    for sent in ["Token nbt_key.secret", V1] {
        assert_eq!(get(listener, STATUS, sent).await.status, 200, "{sent}");
        assert_eq!(netbox.last().header("authorization"), Some("Bearer nbt_key.secret"), "{sent}");
    }
}

#[tokio::test]
async fn a_token_that_netbox_never_accepted_is_not_exchanged_for_the_one_in_force() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    let mut own = pushed(netbox.address);
    own["token"] = json!("of-a-stranger");
    push(&front, "POST", "/netbox/endpoint", &own).await;
    assert_eq!(get(listener, STATUS, "Token of-a-stranger").await.status, 403);
    push(&front, "PUT", "/netbox/endpoint/1", &pushed(netbox.address)).await;
    assert_eq!(get(listener, STATUS, "Token of-a-stranger").await.status, 403);
    assert_eq!(netbox.last().header("authorization"), Some("Token of-a-stranger"));
}

#[tokio::test]
async fn a_replaced_token_is_exchanged_for_the_release_that_was_learned_last() {
    // What is known of the backend is never recent enough.
    let (_, _backend, netbox, _, front, listener) = between(&[("limits.capabilities", "0s")]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    get(listener, STATUS, V1).await;
    let mut other = pushed(netbox.address);
    other["token"] = json!("fedcba9876543210");
    push(&front, "PUT", "/netbox/endpoint/1", &other).await;
    get(listener, STATUS, V1).await;
    assert_eq!(netbox.last().header("authorization"), Some("Token fedcba9876543210"));
}

#[tokio::test]
async fn syncs_wait_until_the_backend_has_bound_its_session_to_the_listener() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let held = front.get(DEVICES, &WITH_KEY).await;
    assert_eq!(held.status, 503);
    assert!(held.detail().starts_with("Restart proxbox-api"), "{}", held.text());
    // Its own `/netbox/status` reads the new row, and the session that writes has the old one still.
    for (target, token) in [(STATUS, V1), (ENDPOINTS, V1), ("/api/dcim/sites/", "Bearer nbt_key.secret")] {
        assert_eq!(get(listener, target, token).await.status, 200);
        assert_eq!(front.get(DEVICES, &WITH_KEY).await.status, 503, "{target} says nothing of the session");
    }
    assert_eq!(get(listener, "/api/dcim/manufacturers/?name=x", V1).await.status, 200);
    assert_ne!(front.get(DEVICES, &WITH_KEY).await.status, 503, "they go on at once");
    // Another NetBox needs no restart: the backend's own row stays.
    let mut moved = pushed(netbox.address);
    moved["domain"] = json!("localhost");
    assert_eq!(push(&front, "PUT", "/netbox/endpoint/1", &moved).await.status, 200);
    assert_ne!(front.get(DEVICES, &WITH_KEY).await.status, 503);
}

#[tokio::test]
async fn a_release_that_needs_no_sync_processes_gets_netboxs_own_answer() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    // The plugin's push makes the release known: it is 0.0.2.
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let created = request(listener, "POST", PROCESSES, V1, &json!({ "name": "sync-devices" })).await;
    assert_eq!(created.status, 404, "{}", created.text());
}

#[tokio::test]
async fn a_rule_that_is_turned_off_changes_nothing() {
    let (_, _backend, netbox, _, front, listener) =
        between(&[("shims.netbox_token", "off"), ("shims.proxmox_credentials", "off")]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    push(
        &front,
        "POST",
        "/proxmox/endpoints",
        &json!({ "name": "pve (nb:7)", "token_value": "s3cret-value" }),
    )
    .await;
    let page = get(listener, ENDPOINTS, V1).await;
    assert_eq!((page.status, page.text().contains("s3cret-value")), (200, false));
    assert_eq!(get(listener, STATUS, "Token nbt_key.secret").await.status, 403);
}

#[tokio::test]
async fn what_needs_a_rule_that_is_turned_off_is_refused() {
    let (rows, _backend, netbox, _, front, _) =
        between(&[("shims.netbox_token", "off"), ("shims.proxmox_credentials", "off")]).await;
    let v2 = json!({ "token_version": "v2", "token_key": "key", "token": "secret" });
    let mut row = pushed(netbox.address);
    row.as_object_mut().unwrap().extend(v2.as_object().unwrap().clone());
    let refused = push(&front, "POST", "/netbox/endpoint", &row).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("only supports v1 tokens of NetBox"), "{}", refused.text());
    assert!(rows.0.lock().unwrap().is_empty());
    let refused = push(&front, "POST", "/proxmox/endpoints", &json!({ "name": "pve (nb:7)" })).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("set shims.proxmox_credentials = \"on\""), "{}", refused.text());
}

#[tokio::test]
async fn a_replaced_token_is_forgotten_once_the_session_that_writes_has_the_one_in_force() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    get(listener, STATUS, V1).await;
    let mut v2 = pushed(netbox.address);
    v2["token_version"] = json!("v2");
    v2["token_key"] = json!("key");
    v2["token"] = json!("secret");
    push(&front, "PUT", "/netbox/endpoint/1", &v2).await;
    let sent_as = async |target: &str, token: &str| {
        get(listener, target, token).await;
        netbox.last().header("authorization").unwrap().to_owned()
    };
    let in_force = "Token nbt_key.secret";
    sent_as(STATUS, in_force).await;
    assert_eq!(
        sent_as("/api/dcim/sites/", V1).await,
        "Bearer nbt_key.secret",
        "it may be the one of its start"
    );
    sent_as("/api/dcim/sites/", in_force).await;
    assert_eq!(sent_as("/api/dcim/sites/", V1).await, V1);
}

#[tokio::test]
async fn a_request_without_the_token_of_the_backend_is_none_of_its_requests() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let last = async || {
        front.admin_request("GET", "/backends", &[]).await.json()["results"][0]["netbox_listener"]["last_request"]
            .clone()
    };
    get(listener, STATUS, "Token wrong").await;
    assert_eq!(last().await, Value::Null);
    get(listener, STATUS, V1).await;
    assert_ne!(last().await, Value::Null);
}

#[tokio::test]
async fn links_lead_to_the_open_port_where_the_request_has_no_host() {
    let (_, _backend, netbox, _, front, listener) = between(&[]).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let request = format!("GET /api/dcim/sites/3/ HTTP/1.0\r\nAuthorization: {V1}\r\n\r\n");
    let text = Client::raw(listener, request.as_bytes()).await.rest().await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("http://{listener}/api/dcim/sites/3/")), "{text}");
}

#[tokio::test]
async fn syncs_wait_for_a_restart_where_the_client_hangs_up_before_the_row_is_answered() {
    let (rows, stored) = (Rows::default(), Arc::new(tokio::sync::Notify::new()));
    let (serving, storing) = (rows.clone(), Arc::clone(&stored));
    let (_backend, front) =
        bridged(&[("backend.netbox_listen", "127.0.0.1:0")], move |request: Request<Incoming>| {
            let (serving, storing) = (serving.clone(), Arc::clone(&storing));
            async move {
                let is_push = request.method() == Method::POST;
                let response = serving.answer(request).await;
                if is_push {
                    storing.notify_one();
                    std::future::pending::<()>().await;
                }
                response
            }
        })
        .await;
    let body = pushed(NOWHERE).to_string();
    let request = format!(
        "POST /netbox/endpoint HTTP/1.1\r\nHost: a\r\nX-Proxbox-API-Key: {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let client = Client::raw(front.address, request.as_bytes()).await;
    stored.notified().await;
    drop(client);
    let held = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while front.get(DEVICES, &WITH_KEY).await.status != 503 {
            tokio::task::yield_now().await;
        }
    });
    held.await.expect("syncs are held");
}

#[tokio::test]
async fn what_0_0_3_records_is_kept_and_what_0_0_6_narrows_stays_wide_for_whom_netbox_authorises() {
    let netbox = FakeNetBox::default();
    let server = netbox.clone().start().await;
    // Nothing is known of this backend, as of one that starts.
    let (_front, listener) = before(&format!("http://{}", server.address), &[]).await;
    let narrow = json!({ "object_types": ["dcim.site"] });
    let patched = request(listener, "PATCH", &format!("{FIELDS}4/"), V1, &narrow).await;
    assert_eq!(patched.status, 200, "{}", patched.text());
    let written = netbox.written.lock().unwrap()[0]["object_types"].as_array().unwrap().len();
    assert_eq!(written, 15, "those that it writes, and what NetBox had");
    let created = request(listener, "POST", PROCESSES, V1, &json!({ "name": "sync" })).await;
    assert_eq!((created.status, &created.json()["id"]), (201, &json!(1)), "{}", created.text());
    assert_eq!(created.json()["url"], format!("http://{listener}{PROCESSES}1/"));
    assert_eq!(get(listener, PROCESSES, "Token wrong").await.status, 403);
    assert_eq!(get(listener, PROCESSES, V1).await.json()["count"], 1);
    assert_eq!(get(listener, "/api/dcim/sites/1/", V1).await.status, 200);
}

#[tokio::test]
async fn release_0_0_2_reads_mac_addresses_as_texts_and_others_as_netbox_answers_them() {
    for (switch, is_text) in [("on", true), ("off", false)] {
        let (_, _backend, netbox, _, front, listener) = between(&[("shims.nested_objects", switch)]).await;
        push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
        let object = json!({ "id": 1, "display": "BC:24:11:00:00:01" });
        let expected = if is_text { json!("BC:24:11:00:00:01") } else { object };
        for (method, body) in [("GET", Value::Null), ("POST", json!({ "name": "net0" }))] {
            let response = request(listener, method, INTERFACES, V1, &body).await;
            assert_eq!(response.json()["primary_mac_address"], expected, "{method}, {switch}");
            assert_eq!(response.json()["url"], format!("http://{listener}{INTERFACES}"));
        }
        assert_eq!(get(listener, INTERFACES, "Token wrong").await.status, 403);
    }
}

/// A backend of 0.0.1, and a bridge between it and NetBox.
async fn first(settings: &[(&str, &str)]) -> (Backend, Backend, FakeNetBox, TestBridge, SocketAddr) {
    let rows = Rows::default();
    let backend = Backend::start(move |request| {
        let rows = rows.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            match (&method, path.as_str()) {
                (&Method::HEAD, SETTINGS) => answer(405, &[("allow", "GET")], ""),
                (_, SETTINGS) => answer(200, &[], r#"{"domain":"nb","http_port":8000,"token":"s3cret"}"#),
                (_, path) if path.starts_with("/proxmox/") => answer(200, &[], "[]"),
                _ => rows.answer(request).await,
            }
        }
    })
    .await;
    let netbox = FakeNetBox::default();
    let server = netbox.clone().start().await;
    let url = format!("http://{}", server.address);
    let listen = [("backend.netbox_listen", "127.0.0.1:0"), ("backend.netbox_url", url.as_str())];
    let front = TestBridge::start(config(backend.address, &[&listen, settings].concat())).await;
    let listener = front.netbox_listeners()[0];
    (backend, server, netbox, front, listener)
}

#[tokio::test]
async fn a_custom_field_that_0_0_1_looks_for_is_created_with_its_token() {
    let (_backend, _server, netbox, front, listener) = first(&[]).await;
    let field = format!("{FIELDS}?name=proxmox_vm_id&limit=0");
    assert_eq!(get(listener, &field, V1).await.json()["count"], 0, "the release is not known yet");
    assert_eq!(front.get("/version", &WITH_KEY).await.json()["version"], "0.0.1");
    assert_eq!(get(listener, &field, "Token wrong").await.status, 403);
    assert!(netbox.written.lock().unwrap().is_empty());
    for _ in 0..2 {
        let found = get(listener, &field, V1).await.json();
        assert_eq!((&found["count"], &found["results"][0]["type"]), (&json!(1), &json!("integer")));
    }
    assert_eq!(netbox.written.lock().unwrap().len(), 1, "it is created once");
    let other = get(listener, &format!("{FIELDS}?name=other&limit=0"), V1).await;
    assert_eq!(other.json()["count"], 0);
}

#[tokio::test]
async fn what_netbox_refuses_of_a_custom_field_is_answered() {
    let netbox = Backend::start(|request: Request<Incoming>| async move {
        let json = [("content-type", "application/json")];
        match request.method() {
            &Method::POST => answer(400, &json, r#"{"object_types":["Invalid value."]}"#),
            _ => answer(200, &json, r#"{"count":0,"next":null,"previous":null,"results":[]}"#),
        }
    })
    .await;
    let url = format!("http://{}", netbox.address);
    let (_backend, _server, _, front, listener) = first(&[("backend.netbox_url", &url)]).await;
    assert_eq!(front.get("/version", &WITH_KEY).await.json()["version"], "0.0.1");
    let refused = get(listener, &format!("{FIELDS}?name=proxmox_vm_id&limit=0"), V1).await;
    assert_eq!((refused.status, refused.text()), (400, r#"{"object_types":["Invalid value."]}"#));
}

#[tokio::test]
async fn a_custom_field_that_cannot_be_read_is_not_written() {
    let netbox = Backend::start(|request: Request<Incoming>| async move {
        let json = [("content-type", "application/json")];
        let status = if request.method() == Method::GET { 500 } else { 200 };
        answer(status, &json, r#"{"error":"x"}"#)
    })
    .await;
    let (_front, listener) = before(&format!("http://{}", netbox.address), &[]).await;
    let narrow = json!({ "object_types": ["dcim.site"] });
    let failed = request(listener, "PATCH", &format!("{FIELDS}4/"), V1, &narrow).await;
    assert_eq!((failed.status, failed.text()), (500, r#"{"error":"x"}"#));
    assert_eq!(netbox.last().method, "GET");
}

#[tokio::test]
async fn release_0_0_1_is_given_no_listener_that_it_cannot_reach_and_no_sync_whose_end_it_cannot_tell() {
    let (_backend, server, _, front, _) = first(&[]).await;
    let refused = push(&front, "POST", "/netbox/endpoint", &pushed(server.address)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("only on port 8000"), "{}", refused.text());
    assert_eq!(front.get("/netbox/endpoint", &WITH_KEY).await.json(), json!([]));
    let refused = front.get(DEVICES, &WITH_KEY).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.detail().contains("0.0.2.post1 or newer"), "{}", refused.text());
}

#[tokio::test]
async fn release_0_0_1_is_queried_for_the_endpoints_of_netbox_and_exposes_no_token() {
    let (backend, _server, _, front, _) = first(&[]).await;
    push(&front, "POST", "/proxmox/endpoints", &json!({ "name": "pve (nb:7)", "token_value": "x" })).await;
    let read = front.get("/proxmox/cluster/status?source=database&proxmox_endpoint_ids=7", &WITH_KEY).await;
    assert_eq!(read.status, 200, "{}", read.text());
    assert_eq!(backend.last().target, "/proxmox/cluster/status?proxmox_endpoint_ids=7");
    let settings = front.get(SETTINGS, &WITH_KEY).await;
    assert_eq!(settings.json(), json!({ "domain": "nb", "http_port": 8000 }));
}

#[tokio::test]
async fn release_0_0_1_is_not_read_for_one_of_several_proxmox_endpoints() {
    let (backend, _server, _, front, _) = first(&[]).await;
    for row in [proxmox(7, "pve.example", "10.0.0.5"), proxmox(8, "other.example", "10.0.0.6")] {
        push(&front, "POST", "/proxmox/endpoints", &row).await;
    }
    for ids in ["7", "7,8"] {
        let path = format!("/proxmox/cluster/status?proxmox_endpoint_ids={ids}");
        let refused = front.get(&path, &WITH_KEY).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.detail().contains("2 are enabled"), "{}", refused.text());
    }
    assert!(backend.requests().iter().all(|received| !received.target.starts_with("/proxmox/cluster")));
}

#[tokio::test]
async fn a_push_that_the_backend_refuses_changes_nothing() {
    let (_backend, front) =
        bridged(&[("backend.netbox_listen", "127.0.0.1:0")], |request: Request<Incoming>| async move {
            let json = [("content-type", "application/json")];
            match (request.method().as_str(), request.uri().path()) {
                ("GET", "/netbox/endpoint") => {
                    answer(200, &json, r#"[{"id":1,"ip_address":"10.0.0.9","port":80,"token_version":"v1"}]"#)
                }
                ("GET", "/version") => answer(200, &json, r#"{"version":"0.0.19"}"#),
                ("GET", "/auth/bootstrap-status") => {
                    answer(200, &json, r#"{"needs_bootstrap":false,"has_db_keys":true}"#)
                }
                _ => answer(403, &json, r#"{"detail":"Not allowed."}"#),
            }
        })
        .await;
    let listener = front.netbox_listeners()[0];
    let elsewhere = FakeNetBox::default().start().await;
    let refused = push(&front, "PUT", "/netbox/endpoint/1", &pushed(elsewhere.address)).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(get(listener, STATUS, V1).await.status, 503, "where NetBox is is not known");
    assert!(elsewhere.requests().is_empty());
    let shown = front.get("/netbox/endpoint", &WITH_KEY).await.json();
    assert_eq!(shown[0]["ip_address"], "10.0.0.9", "a row that leads past the listener is shown as it is");
}

/// A TLS connection to the listener, by its IP address, as releases make it that verify certificates.
async fn secured(listener: SocketAddr, authority: &Authority, alpn: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(listener).await.unwrap();
    let name = ServerName::IpAddress(listener.ip().into());
    let client = authority.client(&[alpn], None);
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
}

async fn get_secured(listener: SocketAddr, authority: &Authority, target: &str) -> String {
    let mut stream = secured(listener, authority, "http/1.1").await;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {listener}\r\nAuthorization: {V1}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_netbox_listener_with_a_certificate_speaks_tls_and_the_pushed_row_says_so() {
    let authority = Authority::new("ours");
    authority.issue("listener", "127.0.0.1");
    let [certificate, key] = ["listener.pem", "listener-key.pem"].map(|name| authority.path(name));
    let settings = [
        ("backend.netbox_certificate", certificate.to_str().unwrap()),
        ("backend.netbox_key", key.to_str().unwrap()),
    ];
    let (rows, _backend, netbox, _, front, listener) = between(&settings).await;
    push(&front, "POST", "/netbox/endpoint", &pushed(netbox.address)).await;
    let row = rows.0.lock().unwrap()[0].clone();
    assert_eq!((&row["ip_address"], &row["verify_ssl"]), (&json!("127.0.0.1"), &json!(true)));
    let text = get_secured(listener, &authority, "/api/dcim/sites/3/").await;
    assert!(text.contains(&format!("https://{listener}/api/dcim/sites/3/")), "{text}");

    let (mut client, connection) =
        h2::client::handshake(secured(listener, &authority, "h2").await).await.unwrap();
    let task = tokio::spawn(connection);
    let request = Request::get(format!("https://{listener}/api/dcim/sites/4/")).header("authorization", V1);
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let mut response = response.await.unwrap();
    let body = response.body_mut().data().await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert!(String::from_utf8_lossy(&body).contains(&format!("https://{listener}/api/dcim/sites/4/")));
    assert_eq!(netbox.last().header("via").map(without_pseudonym), Some("2.0 proxbox-bridge"));
    task.abort();

    let plain = get(listener, STATUS, V1).await;
    assert_eq!(plain.status, 400);
    assert!(plain.detail().contains("https://"), "{}", plain.text());
}

#[tokio::test(start_paused = true)]
async fn the_files_of_a_listeners_certificate_are_read_at_the_start_and_again_when_they_change() {
    let authority = Authority::new("ours");
    let [certificate, key] = ["listener.pem", "listener-key.pem"].map(|name| authority.path(name));
    let settings = [
        ("backend.netbox_listen", "127.0.0.1:0"),
        ("backend.netbox_certificate", certificate.to_str().unwrap()),
        ("backend.netbox_key", key.to_str().unwrap()),
    ];
    let config = || config(NOWHERE, &settings);
    let missing = Server::bind(config()).await.unwrap_err().to_string();
    assert!(missing.contains("cannot read the certificate") && missing.contains("listener.pem"), "{missing}");
    authority.issue("listener", "127.0.0.1");
    let front = TestBridge::start(config()).await;
    let listener = front.netbox_listeners()[0];
    let shown = async || {
        let stream = secured(listener, &authority, "http/1.1").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    authority.issue("listener", "127.0.0.1");
    while shown().await == before {
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
    }
}
