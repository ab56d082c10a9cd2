//! What a page of another origin may read: what the backend lets it read, of every response.

use std::time::Duration;

use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use proxbox_bridge::replay::ReplayOptions;
use serde_json::json;
use tokio::time::advance;

use crate::support::bridge::{
    Answer, BridgedReplay, Client, DEVICES, TestBridge, WITH_KEY, config, fast, recordings,
};
use crate::support::scripted::{Backend, answer};

const PAGE: (&str, &str) = ("Origin", "https://netbox.example");
const OTHER: (&str, &str) = ("Origin", "https://evil.example");

/// A backend with a stream that answers as Starlette's `CORSMiddleware` does, which lets NetBox's pages read.
async fn backend() -> Backend {
    Backend::start(|request: Request<Incoming>| async move {
        let named = |name: &str, headers: &HeaderMap| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let is_page = named("origin", request.headers()).as_deref() == Some(PAGE.1);
        let is_preflight = named("access-control-request-method", request.headers()).is_some();
        let mut headers = vec![];
        if is_page {
            headers.push(("access-control-allow-origin", PAGE.1));
            headers.push(("access-control-allow-credentials", "true"));
            headers.push(("vary", "Accept-Encoding, Origin"));
        }
        let (status, body) = match (request.method(), request.uri().path()) {
            (&Method::OPTIONS, _) if is_preflight => (if is_page { 200 } else { 400 }, "OK"),
            (&Method::GET, "/") => (200, "{}"),
            (&Method::HEAD, DEVICES) => (405, ""),
            (&Method::GET, DEVICES) => {
                (200, "event: complete\ndata: {\"ok\":true,\"message\":\"Done.\"}\n\n")
            }
            _ => (404, "{\"detail\":\"Not Found\"}"),
        };
        match status {
            405 => headers.push(("allow", "GET")),
            200 if body.starts_with("event") => headers.push(("content-type", "text/event-stream")),
            _ => headers.push(("content-type", "application/json")),
        }
        answer(status, &headers, body)
    })
    .await
}

/// The CORS headers of an answer.
fn cors(answer: &Answer) -> Vec<(&str, &str)> {
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers.filter(|(name, _)| name.starts_with("access-control-") || *name == "vary").collect()
}

const ALLOWED: [(&str, &str); 3] = [
    ("access-control-allow-credentials", "true"),
    ("access-control-allow-origin", PAGE.1),
    ("vary", "Origin"),
];

/// How often the backend was asked what pages may read.
fn asked(backend: &Backend) -> usize {
    backend.requests().iter().filter(|request| request.target == "/").count()
}

#[tokio::test(start_paused = true)]
async fn a_page_that_may_read_the_backend_may_read_streams_refusals_and_the_bridges_own_answers() {
    let backend = backend().await;
    let settings = [("backend.channel", "native"), ("limits.replay", "0s")];
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let unknown = format!("{DEVICES}?bridge.nope=1");
    for (method, target, status) in
        [("GET", DEVICES, 200), ("GET", &*unknown, 400), ("OPTIONS", DEVICES, 405), ("POST", DEVICES, 405)]
    {
        let request = |header| async move {
            Client::send(front.address, method, target, &[header]).await.answer().await
        };
        let read = request(PAGE).await;
        assert_eq!(read.status, status, "{method} {target}: {}", read.text());
        let mut headers = cors(&read);
        headers.sort_unstable();
        assert_eq!(headers, ALLOWED, "{method} {target}");
        assert_eq!(cors(&request(OTHER).await), [], "{method} {target}");
    }
    assert_eq!(asked(&backend), 2, "once for each origin");
    let before = asked(&backend);
    assert_eq!(cors(&front.get(DEVICES, &[]).await), []);
    assert_eq!(asked(&backend), before, "a client that is no page costs nothing");
    advance(Duration::from_secs(60)).await;
    front.get(&unknown, &[PAGE]).await;
    assert_eq!(asked(&backend), before + 1, "what pages may read can change");
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_answered_by_the_backend_on_the_bridges_own_paths_too() {
    let backend = backend().await;
    let front = TestBridge::start(config(backend.address, &[("backend.channel", "native")])).await;
    let wanted = ("Access-Control-Request-Method", "GET");
    for target in [DEVICES, "/ws", "/health", "/dcim/devices/create"] {
        let preflight = |header| {
            let headers = [header, wanted];
            async move { Client::send(front.address, "OPTIONS", target, &headers).await.answer().await }
        };
        let allowed = preflight(PAGE).await;
        assert_eq!((allowed.status, cors(&allowed).len()), (200, 3), "{target}: {allowed:?}");
        assert_eq!(preflight(OTHER).await.status, 400, "{target}");
    }
    let methods: Vec<String> = backend.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["OPTIONS"; 8], "nothing else was requested, and nothing was started");
}

#[tokio::test(start_paused = true)]
async fn a_page_can_read_that_the_backend_is_down() {
    let backend = backend().await;
    let front = TestBridge::start(config(backend.address, &[("backend.channel", "native")])).await;
    assert_eq!(front.get("/x", &[PAGE]).await.status, 404);
    assert_eq!(asked(&backend), 0, "a response that passes through has its own");
    front.get(&format!("{DEVICES}?bridge.nope=1"), &[PAGE]).await;
    drop(backend);
    advance(Duration::from_secs(3600)).await;
    for target in ["/x", DEVICES] {
        let down = front.get(target, &[PAGE]).await;
        assert_eq!((down.status, cors(&down).len()), (503, 3), "{target}: {down:?}");
        assert_eq!(cors(&front.get(target, &[OTHER]).await), [], "nothing is known of this one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_for_event_source_resumes_and_attaches_instead_of_starting_another_sync() {
    let pair = BridgedReplay::start(recordings("0.0.30.post2", &[]), fast(), &[]).await;
    let first = pair.front.get(&format!("{DEVICES}?a=1&lastEventId=&_=1"), &WITH_KEY).await;
    let ids: Vec<&str> = first.text().lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert!(ids.len() > 2, "{}", first.text());
    for name in ["lastEventId", "Last-Event-ID"] {
        let rest =
            pair.front.get(&format!("{DEVICES}?_=2&a=1&{name}={}", ids[ids.len() - 2]), &WITH_KEY).await;
        assert!(rest.text().starts_with(&format!("id: {}\n", ids[ids.len() - 1])), "{}", rest.text());
        let end =
            pair.front.get(&format!("{DEVICES}?a=1&{name}={}&_=3", ids[ids.len() - 1]), &WITH_KEY).await;
        assert_eq!(end.status, 204, "{name}");
    }
    let jobs = pair.front.admin_request("GET", "/jobs", &[]).await.json();
    assert_eq!((jobs["results"].as_array().unwrap().len(), &jobs["results"][0]["query"]), (1, &json!("a=1")));
    let job = jobs["results"][0]["id"].as_str().unwrap();
    let watched = format!("/jobs/{job}/events?_=4&lastEventId={}", ids[ids.len() - 1]);
    assert_eq!(pair.front.admin_request("GET", &watched, &[]).await.status, 204);
    let runs: Vec<_> =
        pair.log().requests().into_iter().filter(|(_, target)| target.contains(DEVICES)).collect();
    assert_eq!(runs.last(), Some(&("GET".to_owned(), format!("{DEVICES}?a=1"))));

    let stalling = ReplayOptions { stall_after: Some(3), ..fast() };
    let pair = BridgedReplay::start(recordings("0.0.30.post2", &[]), stalling, &[]).await;
    let mut jobs = Vec::new();
    for buster in ["_=1", "_=2"] {
        let mut client = pair.front.open(&format!("{DEVICES}?{buster}"), &WITH_KEY).await;
        let (_, headers) = client.head().await;
        jobs.push(headers.into_iter().find(|(name, _)| name == "x-proxbox-bridge-job").unwrap());
    }
    assert_eq!(jobs[0], jobs[1]);
}
