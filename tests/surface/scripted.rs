//! A backend that answers every request, equal requests with equal responses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;

use super::calls::TAG;
use super::headers::{self, Headers};
use super::listing::Listing;
use crate::support::scripted::{Backend, Body, full_body};

/// A request that the backend received.
#[derive(Debug)]
pub(super) struct SeenRequest {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
}

impl SeenRequest {
    /// Whether its response may be cached.
    fn is_cheap(&self) -> bool {
        ["/", "/version", "/health"].contains(&self.target.split('?').next().unwrap_or_default())
    }
}

pub(super) struct EchoBackend {
    backend: Backend,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
}

impl EchoBackend {
    /// An old one has neither `/health` nor keys; a young one has both.
    pub(super) async fn start(listing: &Listing) -> Self {
        let lacks: &[&str] = if listing.is_old { &LACKING } else { &[] };
        let seen: Arc<Mutex<Vec<SeenRequest>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let backend = Backend::start(move |request: Request<Incoming>| {
            let noted = Arc::clone(&noted);
            async move {
                let seen = read(request).await;
                let answer = answer(&seen, lacks);
                noted.lock().unwrap().push(seen);
                answer
            }
        })
        .await;
        Self { backend, seen }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// The requests since the last call, without the probes of the bridge.
    pub(super) fn seen(&self) -> Vec<SeenRequest> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.into_iter().filter(|seen| seen.headers.contains_key(TAG)).collect()
    }
}

async fn read(request: Request<Incoming>) -> SeenRequest {
    let (head, body) = request.into_parts();
    let mut names = Headers::new();
    for (name, value) in &head.headers {
        headers::add(&mut names, name.as_str(), value.as_bytes());
    }
    // To its end, or the next request would not be one.
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    SeenRequest { method: head.method.to_string(), target: head.uri.to_string(), headers: names, body }
}

/// The paths that an old backend lacks.
const LACKING: [&str; 4] = ["/health", "/auth/bootstrap-status", "/auth/register-key", "/auth/keys"];

/// The response, which depends on the request alone. The paths in `lacks` are unknown.
fn answer(seen: &SeenRequest, lacks: &[&str]) -> Response<Body> {
    let path = seen.target.split('?').next().unwrap_or_default();
    if lacks.contains(&path) {
        let text = if seen.method == "HEAD" { "" } else { "{\"detail\":\"Not Found\"}" };
        return crate::support::scripted::answer(404, &[("content-type", "application/json")], text);
    }
    let mut choice = SeededRandom(hash(&[seen.method.as_bytes(), seen.target.as_bytes(), &seen.body]));
    let (status, reason) = choice.pick(&STATUSES);
    let is_there = matches!(path, "/health" | "/auth/bootstrap-status");
    let status = if is_there && status == 404 { 200 } else { status };
    let mut response = Response::new(body(seen, status, &mut choice));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if !reason.is_empty() {
        response.extensions_mut().insert(ReasonPhrase::try_from(reason.as_bytes()).unwrap());
    }
    dress(response.headers_mut(), status, &mut choice);
    if status == 307 {
        let host = headers::one(&seen.headers, "host").map_or("", |host| std::str::from_utf8(host).unwrap());
        let location = format!("http://{host}{path}/?again=%2F");
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    response
}

const STATUSES: [(u16, &str); 20] = [
    (200, ""),
    (200, ""),
    (200, "Fine, thank you"),
    (201, ""),
    (202, ""),
    (204, ""),
    (206, ""),
    (299, "Odd"),
    (304, ""),
    (307, ""),
    (400, ""),
    (401, ""),
    (403, ""),
    (404, ""),
    (409, ""),
    (422, ""),
    (429, ""),
    (500, ""),
    (503, ""),
    (599, ""),
];

fn body(seen: &SeenRequest, status: u16, choice: &mut SeededRandom) -> Body {
    if matches!(status, 204 | 304) {
        return full_body("");
    }
    let echo = echo(seen);
    let pieces = |pieces: Vec<Bytes>| in_pieces(pieces.into_iter().map(Frame::data).collect());
    match choice.below(64) {
        0 => pieces(vec![Bytes::from(noise(7_000, 7)); 43]),
        1..=9 => full_body(""),
        10..=14 => pieces(Vec::new()),
        15..=22 => full_body(noise(1_000, choice.0)),
        23..=30 => pieces(vec![Bytes::from(noise(900, choice.0)), Bytes::from(echo)]),
        // What serves several has none.
        31..=38 if !seen.is_cheap() => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from(hash(&[echo.as_bytes()])));
            in_pieces(vec![Frame::data(Bytes::from(echo)), Frame::trailers(trailers)])
        }
        39..=44 => pieces(vec![Bytes::from(echo)]),
        _ => full_body(echo),
    }
}

fn in_pieces(frames: Vec<Frame<Bytes>>) -> Body {
    BodyExt::boxed(StreamBody::new(stream::iter(frames.into_iter().map(Ok))))
}

/// The parts of the request that must be equal.
fn echo(seen: &SeenRequest) -> String {
    let told = ["host", "content-type", "accept-encoding", "x-odd", "origin", "content-length"];
    let headers: Vec<(&str, String)> =
        told.iter().filter_map(|name| Some((*name, format!("{:?}", seen.headers.get(*name)?)))).collect();
    let body = hash(&[&seen.body]);
    serde_json::json!({ "method": seen.method, "target": seen.target, "headers": headers, "body": body })
        .to_string()
}

fn dress(headers: &mut HeaderMap, status: u16, choice: &mut SeededRandom) {
    let policy = format!("default-src 'self'; img-src {}", "https://netbox.example ".repeat(40));
    let long = "y".repeat(if choice.below(8) == 0 { 20_000 } else { 20 });
    let more: &[(&'static str, &str)] = match choice.below(7) {
        0 => &[("content-type", "application/json"), ("server", "uvicorn")],
        1 => &[
            ("set-cookie", "a=1; Path=/; HttpOnly"),
            ("vary", "Accept-Encoding"),
            ("set-cookie", "b=\"2\"; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
            ("vary", "Origin"),
            ("etag", "W/\"a,b\""),
            ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ],
        2 => &[
            ("content-type", "text/html; charset=iso-8859-1"),
            ("content-security-policy", &policy),
            ("cache-control", "no-store, private"),
            ("cache-control", "max-age=0"),
            ("x-frame-options", "DENY"),
        ],
        3 => &[("content-encoding", "gzip"), ("content-type", "application/octet-stream"), ("age", "0")],
        4 => &[
            ("via", "1.1 nginx"),
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("trailer", "x-sum"),
        ],
        5 => &[("x-long", &long), ("link", "<https://a.example/>; rel=\"next\", <b>"), ("x-empty", "")],
        _ => &[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("content-disposition", "attachment; filename*=UTF-8''caf%C3%A9"),
            ("warning", "199 - \"odd\""),
            ("trailer", "x-sum"),
        ],
    };
    for (name, value) in more {
        headers.append(*name, value.parse().unwrap());
    }
    headers.insert("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    match status {
        // Not with 429, which the bridge would heed.
        503 => drop(headers.insert("retry-after", HeaderValue::from_static("120"))),
        401 => {
            headers.append("www-authenticate", HeaderValue::from_static("Basic realm=\"a, b\""));
            headers.append("www-authenticate", HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    if choice.below(10) == 0 {
        for _ in 0..60 {
            headers.append("x-many", HeaderValue::from(choice.below(1_000_000)));
        }
    }
}

/// Pseudo-random numbers, equal for an equal seed.
struct SeededRandom(u64);

impl SeededRandom {
    fn below(&mut self, most: u64) -> u64 {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut choice = SeededRandom(seed);
    (0..length).map(|_| choice.below(256) as u8).collect()
}

/// FNV-1a.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
