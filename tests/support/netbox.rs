//! A NetBox that authorises requests as NetBox 4.7 does, and keeps those that it received.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::scripted::{Backend, Body, full_body, single_header, texts};

/// A v1 token.
pub const V1: &str = "0123456789abcdef0123456789abcdef01234567";
/// A v2 token.
pub const V2: &str = "nbt_abcdefghijkl.0123456789abcdefghijklmnopqrstuvwxyzABCD";
/// Another user's token, which NetBox accepts too.
pub const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// The paths of the plugin that old backends use.
pub const PROXMOX_ENDPOINTS: &str = "/api/plugins/proxbox/endpoints/proxmox/";
pub const SYNC_PROCESSES: &str = "/api/plugins/proxbox/sync-processes/";

/// A request as NetBox received it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Whether NetBox authorised it.
    pub is_authorised: bool,
    /// The response of NetBox, if its body is complete.
    pub answer: Sent,
}

/// An answer of NetBox.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Received {
    /// The value of a header that occurs at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        single_header(&self.headers, name)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// A NetBox. It ends with the test.
pub struct NetBox {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _backend: Backend,
}

impl NetBox {
    /// One that accepts `tokens`, and answers what it authorises with `answer`.
    pub async fn start<A>(tokens: &[&str], answer: A) -> Self
    where
        A: Fn(&Received) -> Response<Body> + Send + Sync + 'static,
    {
        let tokens: Arc<[String]> = tokens.iter().map(|token| (*token).to_owned()).collect();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&received), Arc::new(answer));
        let backend = Backend::start(move |request| {
            let (kept, answer, tokens) = (Arc::clone(&kept), Arc::clone(&answer), Arc::clone(&tokens));
            async move {
                let mut received = read(request).await;
                let refused = refusal(received.header("authorization"), &tokens);
                received.is_authorised = refused.is_none();
                let response = match refused {
                    // What no path matches is 404 before anybody is authenticated.
                    _ if received.path().starts_with(SYNC_PROCESSES) => not_found(),
                    Some(detail) => json_answer(403, &json!({ "detail": detail })),
                    None => answer(&received),
                };
                let (response, sent) = noted(response).await;
                received.answer = sent;
                kept.lock().unwrap().push(received);
                response
            }
        })
        .await;
        Self { address: backend.address, received, _backend: backend }
    }

    /// The requests that it received, in order.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The requests that it received since the last call.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }

    /// The row that the plugin pushes for it, with a v1 or a v2 token.
    pub fn row(&self, token: &str) -> Value {
        row(self.address, token)
    }
}

/// The row that the plugin pushes for the NetBox at `address`, with a v1 or a v2 token.
pub fn row(address: SocketAddr, token: &str) -> Value {
    let (version, key, secret) = match token.strip_prefix("nbt_").and_then(|rest| rest.split_once('.')) {
        Some((key, secret)) => ("v2", json!(key), secret),
        None => ("v1", Value::Null, token),
    };
    json!({
        "name": "netbox", "ip_address": address.ip().to_string(), "domain": "", "port": address.port(),
        "verify_ssl": false, "token_version": version, "token_key": key, "token": secret,
    })
}

/// `Authorization` with `token`, in the form that NetBox documents for it.
pub fn authorization(token: &str) -> String {
    let scheme = if token.starts_with("nbt_") { "Bearer" } else { "Token" };
    format!("{scheme} {token}")
}

async fn read(request: Request<Incoming>) -> Received {
    let (head, body) = request.into_parts();
    // A sender that breaks off sends no more.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Received {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: texts(&head.headers),
        body,
        is_authorised: false,
        answer: Sent::default(),
    }
}

/// `response`, and what is known of it before it is sent.
async fn noted(response: Response<Body>) -> (Response<Body>, Sent) {
    let (head, body) = response.into_parts();
    let sent = Sent { status: head.status.as_u16(), headers: texts(&head.headers), body: Bytes::new() };
    if body.size_hint().exact().is_none() {
        return (Response::from_parts(head, body), sent);
    }
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, full_body(body.clone())), Sent { body, ..sent })
}

/// The error of NetBox for an unauthorised request; `None` if it is authorised.
///
/// v1 tokens are documented with `Token`, v2 tokens with `Bearer`, and other pairs are refused here.
fn refusal(authorization: Option<&str>, tokens: &[String]) -> Option<&'static str> {
    let words: Vec<&str> = authorization.unwrap_or_default().split_ascii_whitespace().collect();
    let (is_v1, token) = match words[..] {
        [scheme, token] if scheme.eq_ignore_ascii_case("token") => (true, token),
        [scheme, token] if scheme.eq_ignore_ascii_case("bearer") => (false, token),
        [scheme, ..] if scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer") => {
            return Some(
                "Invalid authorization header: Must be in the form \"Bearer <key>.<token>\" or \"Token <token>\"",
            );
        }
        _ => return Some("Authentication credentials were not provided."),
    };
    let is_known = tokens.iter().any(|known| known == token) && is_v1 != token.starts_with("nbt_");
    (!is_known).then_some(if is_v1 { "Invalid v1 token" } else { "Invalid v2 token" })
}

/// The answer to a path that NetBox does not have.
pub fn not_found() -> Response<Body> {
    let text = "<!doctype html>\n<title>Not Found</title>\n<p>The requested resource was not found.</p>\n";
    let response = Response::builder().status(404).header("content-type", "text/html; charset=utf-8");
    response.body(full_body(text)).unwrap()
}

/// A usual response of NetBox: an object, or a page of them, with links.
pub fn objects(received: &Received) -> Response<Body> {
    let (path, host) = (received.path(), received.header("host").unwrap_or_default());
    let url = |path: &str| format!("http://{host}{path}");
    let object = |id: u64, path: &str| {
        json!({
            "id": id, "url": url(path), "display_url": url(path.trim_start_matches("/api")), "name": "a name",
            "site": { "id": 1, "url": url("/api/dcim/sites/1/"), "name": "café" },
            "comments": format!("see {} and http://elsewhere/api/", url("/api/dcim/sites/")),
            "custom_fields": { "url": url("/x") },
        })
    };
    let id = path.trim_end_matches('/').rsplit('/').next().and_then(|last| last.parse().ok());
    match (received.method.as_str(), id) {
        ("DELETE", _) => Response::builder().status(204).body(full_body("")).unwrap(),
        ("POST", _) => json_answer(201, &object(11, &format!("{path}11/"))),
        ("GET", None) if path != "/api/status/" => {
            let rows: Vec<Value> = (7..9).map(|id| object(id, &format!("{path}{id}/"))).collect();
            let next = url(&format!("{path}?limit=2&offset=2"));
            json_answer(200, &json!({ "count": 4, "next": next, "previous": null, "results": rows }))
        }
        ("GET", None) => json_answer(200, &json!({ "netbox-version": "4.7.3" })),
        (_, id) => json_answer(200, &object(id.unwrap_or(1), path)),
    }
}

/// An answer of NetBox in JSON, with headers as it sends them.
pub fn json_answer(status: u16, value: &Value) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("vary", "HX-Request, Accept, Cookie, origin")
        .header("allow", "GET, POST, HEAD, OPTIONS")
        .header("api-version", "4.7")
        .header("x-request-id", "5f0dd7e5-7b5e-4e0d-9a53-0f6a1f2c3d4e")
        .header("x-frame-options", "SAMEORIGIN");
    response.body(full_body(value.to_string())).unwrap()
}
