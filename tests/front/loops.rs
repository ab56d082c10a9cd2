//! A `backend.url` that leads back to the bridge, and bridges in front of each other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::http2::Http2Client;
use super::socket::Page;
use crate::support::bridge::{
    Answer, BridgedReplay, Client, DEVICES, Forwarder, NOWHERE, TestBridge, WITH_KEY, config, fast,
    poll_until, recordings,
};
use crate::support::scripted::{Backend, answer};

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
/// Requests for each part of the bridge.
const TARGETS: [&str; 8] = [
    "/proxmox/version", "/version", "/health", "/auth/bootstrap-status", "/auth/keys", "/netbox/endpoint",
    DEVICES, "/ws",
];
/// How many requests one request of a client may become: the bridge detects capabilities first.
const MOST: usize = 4;

/// A reverse proxy that appends to `Via`, and counts the requests. Its target is set later.
struct ReverseProxy {
    proxy: Backend,
    target: Arc<Mutex<SocketAddr>>,
}

impl ReverseProxy {
    async fn start() -> Self {
        let target = Arc::new(Mutex::new(NOWHERE));
        let current = Arc::clone(&target);
        let proxy = Backend::start(move |request: Request<Incoming>| {
            let current = Arc::clone(&current);
            async move {
                let target = *current.lock().unwrap();
                let text = |name: &str| {
                    let values = request.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
                    values.collect::<Vec<_>>().join(", ")
                };
                let (via, key) = (format!("{}, 1.1 nginx", text("via")), text("x-proxbox-api-key"));
                let headers = [("via", via.as_str()), ("x-proxbox-api-key", &key)];
                let headers = &headers[..if key.is_empty() { 1 } else { 2 }];
                let path = request.uri().to_string();
                let Answer { status, body, .. } =
                    Client::send(target, request.method().as_str(), &path, headers).await.answer().await;
                answer(status, &[("content-type", "application/json")], &String::from_utf8(body).unwrap())
            }
        })
        .await;
        Self { proxy, target }
    }

    fn lead_to(&self, bridge: &TestBridge) {
        *self.target.lock().unwrap() = bridge.address;
    }
}

fn headers_for(target: &str) -> Vec<(&'static str, &'static str)> {
    let upgrade = if target == "/ws" { &UPGRADE[..] } else { &[] };
    WITH_KEY.iter().chain(upgrade).copied().collect()
}

async fn assert_loop_detected(front: &TestBridge, target: &str) {
    let response = front.get(target, &headers_for(target)).await;
    assert_eq!(response.status, 508, "{target}: {}", response.text());
    let body = response.json();
    assert_eq!(body["message"], "Loop detected.", "{target}");
    assert!(body["detail"].as_str().unwrap().contains("backend.url"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_the_bridge_itself_is_508_on_every_path() {
    for target in TARGETS {
        let forwarder = Forwarder::new(NOWHERE).await;
        let front = TestBridge::start(config(forwarder.address, &[])).await;
        forwarder.forward_to(front.address);
        assert_loop_detected(&front, target).await;
        // Also once it is known.
        assert_loop_detected(&front, target).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_back_names_the_listener_and_is_counted() {
    let forwarder = Forwarder::new(NOWHERE).await;
    let front = TestBridge::start(config(forwarder.address, &[])).await;
    forwarder.forward_to(front.address);
    let body = front.get("/proxmox/version", &WITH_KEY).await.json();
    assert_eq!(body["code"], "loop_detected");
    let detail = body["detail"].as_str().unwrap();
    let (listener, url) = (front.address.to_string(), format!("http://{}", forwarder.address));
    assert!(detail.contains(&listener) && detail.contains(&url), "{detail}");
    let metrics = front.admin_request("GET", "/metrics", &[]).await;
    let series = "proxbox_bridge_rejections_total{reason=\"loop\"}";
    assert!(
        metrics.text().lines().any(|line| line.starts_with(series) && !line.ends_with(" 0")),
        "{}",
        metrics.text()
    );
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_two_bridges_or_a_proxy_that_keeps_via_ends_soon() {
    for second in [true, false] {
        for target in TARGETS {
            let proxy = ReverseProxy::start().await;
            let last = TestBridge::start(config(proxy.proxy.address, &[])).await;
            let first = if second { TestBridge::start(config(last.address, &[])).await } else { last };
            proxy.lead_to(&first);
            assert_loop_detected(&first, target).await;
            let requests = proxy.proxy.requests();
            assert!((1..=MOST).contains(&requests.len()), "{second} {target}: {requests:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_over_http_2_is_not_sent_around_either() {
    let forwarder = Forwarder::new(NOWHERE).await;
    let front = TestBridge::start(config(forwarder.address, &[])).await;
    forwarder.forward_to(front.address);
    let mut client = Http2Client::open(&front).await;
    for target in ["/proxmox/version", DEVICES] {
        let response = client.get(target, &WITH_KEY).await.unwrap();
        assert_eq!(response.status(), 508, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_leaves_no_requests_and_no_jobs_behind() {
    let forwarder = Forwarder::new(NOWHERE).await;
    let front = TestBridge::start(config(forwarder.address, &[])).await;
    forwarder.forward_to(front.address);
    let clients = (0..50).map(|index| {
        let target = TARGETS[index % TARGETS.len()];
        let front = &front;
        async move { front.get(target, &headers_for(target)).await.status }
    });
    let statuses = futures::future::join_all(clients).await;
    assert!(statuses.iter().all(|status| [508, 503, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 508).count() > 25, "{statuses:?}");
    let backends = front.admin_request("GET", "/backends", &[]).await.json();
    let load = &backends["results"][0];
    assert_eq!((&load["running"], &load["waiting"]), (&0.into(), &0.into()), "{load}");
}

#[tokio::test(start_paused = true)]
async fn a_bridge_in_front_of_another_one_is_served() {
    let behind = BridgedReplay::start(recordings("0.0.30.post2", &[]), fast(), &[]).await;
    let front = TestBridge::start(config(behind.front.address, &[])).await;
    let stream = front.get(DEVICES, &WITH_KEY).await;
    assert_eq!((stream.status, behind.front.get(DEVICES, &WITH_KEY).await.status), (200, 200));
    assert!(stream.text().contains("event: complete\ndata: {\"ok\": true"), "{}", stream.text());
    assert_eq!(front.get("/proxmox/cluster/status", &WITH_KEY).await.status, 200);
    let ready = front.admin_request("GET", "/readyz?backend", &[]).await;
    assert_eq!((ready.status, &ready.json()["reasons"]), (200, &json!([])));

    // A release without keys: the outer bridge must not take the emulated `/auth/bootstrap-status` for the backend's.
    let behind = BridgedReplay::start(recordings("0.0.2.post1", &[]), fast(), &[]).await;
    let front = TestBridge::start(config(behind.front.address, &[])).await;
    let mut page = Page::open(&front, "/ws").await;
    page.greeting().await;
    page.say("Sync Nodes").await;
    page.frames_to(json!({ "object": "device", "end": true })).await;
    let status = front.get("/auth/bootstrap-status", &[]).await.json();
    assert_eq!(status, json!({ "needs_bootstrap": true, "has_db_keys": false }));
}

#[tokio::test]
async fn a_loop_is_noticed_without_a_client_and_so_is_its_end() {
    let forwarder = Forwarder::new(NOWHERE).await;
    let front = TestBridge::start(config(forwarder.address, &[("limits.check", "10ms")])).await;
    let name = forwarder.address.to_string();
    let reason = async || -> Option<Value> {
        let ready = front.admin_request("GET", "/readyz", &[]).await;
        let reasons = ready.json()["reasons"].clone();
        let reason =
            reasons.as_array().unwrap().iter().find(|reason| reason.as_str().unwrap().contains("come back"));
        assert_eq!(ready.status, if reason.is_some() { 503 } else { 200 }, "{reasons}");
        reason.cloned()
    };
    assert_eq!(reason().await, None);
    forwarder.forward_to(front.address);
    let problem = poll_until(&reason).await;
    assert!(problem.as_str().unwrap().contains(&name), "{problem}");
    let backends = front.admin_request("GET", "/backends", &[]).await.json();
    assert_eq!(backends["results"][0]["problem"], problem);

    let backend = Backend::start(|_| async { answer(200, &[], "{}") }).await;
    forwarder.forward_to(backend.address);
    poll_until(async || reason().await.is_none().then_some(())).await;
}
