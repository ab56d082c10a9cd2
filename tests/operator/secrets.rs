//! API keys that a backend repeats are neither logged nor stored.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{RunningBridge, TOKEN};
use crate::support::bridge::{Answer, Client, DEVICES, STORAGE, poll_until};
use crate::support::scripted::{Backend, Body, answer};

pub(super) const CLIENT: &str = "client-key/with+\"quotes\"-0123456789";
const IN_QUERY: &str = "query-key-0123456789";
const CONFIGURED: &str = "configured-key-0123456789abcdef";
const PUSHED: &str = "pushed-password-0123456789";
pub(super) const SECRETS: [&str; 5] = [CLIENT, IN_QUERY, CONFIGURED, PUSHED, TOKEN];

/// The forms in which a secret may be repeated.
fn forms(secret: &str) -> [String; 5] {
    [
        secret.to_owned(),
        format!("Token {secret}"),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string().replace("%2D", "-"),
        STANDARD.encode(format!("me:{secret}")),
        json!({ "detail": secret }).to_string(),
    ]
}

/// What of `secrets` cannot be in anything that is stored or logged.
fn traces(secrets: &[&str]) -> Vec<String> {
    let of = |secret: &str| {
        let [plain, _, percent, base64, _] = forms(secret);
        // What is left of it behind `me:`, without what depends on the bytes around it.
        let base64 = base64[5..base64.len() - 4].to_owned();
        [plain, percent, base64, secret.replace('"', "\\\"")]
    };
    // And what is left where one was cut.
    secrets.iter().flat_map(|secret| of(secret)).chain(["client-key".to_owned()]).collect()
}

/// A backend that repeats everything that it receives.
async fn echo() -> Backend {
    async fn response(request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let _pushed = request.into_body().collect().await.unwrap();
        match path.as_str() {
            "/" | "/health" | "/auth/bootstrap-status" | "/sync/active" | "/netbox/endpoint" => {
                answer(200, &[], "{}")
            }
            "/version" => answer(200, &[], "{\"version\": \"0.0.30.post2\"}"),
            STORAGE => answer(422, &[], &json!({ "detail": format!("Not for {CLIENT}.") }).to_string()),
            DEVICES => stream(),
            _ => answer(404, &[], "{\"detail\": \"Not Found\"}"),
        }
    }

    Backend::start(|request| async {
        if request.method() == "HEAD" {
            return answer(405, &[("allow", "GET")], "");
        }
        response(request).await
    })
    .await
}

fn stream() -> Response<Body> {
    repeating(&SECRETS)
}

/// A stream that repeats `secrets` wherever it can, and the key of the client.
pub(super) fn repeating(secrets: &[&str]) -> Response<Body> {
    let mut text = String::new();
    let mut say = |name: &str, data: serde_json::Value| {
        text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    };
    for (number, form) in secrets.iter().flat_map(|secret| forms(secret)).enumerate() {
        let message = format!("No {form}!");
        say(
            "step",
            json!({ "step": "device", "status": "failed", "message": &message, "error": &message, "rowid": format!("pve{number}") }),
        );
        say("step", json!({ "step": form, "status": "progress", "message": &form, "rowid": form }));
    }
    let long = format!("{}{CLIENT}", "x".repeat(180));
    say(
        "step",
        json!({ "step": "device", "status": "failed", "message": &long, "error": &long, "rowid": "pve" }),
    );
    let detail = format!("{long} and {CLIENT}");
    say("error", json!({ "step": "devices", "status": "failed", "error": &detail, "detail": &detail }));
    say("complete", json!({ "ok": false, "message": &long, "errors": [{ "detail": detail }] }));
    in_pieces(&text)
}

/// A stream in chunks that split every event.
pub(super) fn in_pieces(text: &str) -> Response<Body> {
    let pieces = text.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let frames = pieces.into_iter().map(|piece| Ok(http_body::Frame::data(piece)));
    let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(BodyExt::boxed(body)).unwrap()
}

pub(super) async fn request_with_key(bridge: &RunningBridge, target: &str) -> Answer {
    let headers = [("X-Proxbox-API-Key", CLIENT), ("X-Proxbox-Actor", CLIENT)];
    Client::send(bridge.process.address, "GET", target, &headers).await.answer().await
}

pub(super) fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            found.push((path.display().to_string(), text));
        }
    }
    found
}

fn hides(place: &str, text: &str) {
    hides_all(&SECRETS, place, text);
}

pub(super) fn hides_all(secrets: &[&str], place: &str, text: &str) {
    for trace in traces(secrets) {
        let at = text.find(&trace);
        let near = at.map(|at| {
            String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(200)..(at + 100).min(text.len())])
        });
        assert!(at.is_none(), "{trace} is in {place}: {}", near.unwrap());
    }
}

#[tokio::test]
async fn a_key_that_the_backend_repeats_is_not_in_the_log_the_ledger_or_a_recording() {
    let backend = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, CONFIGURED).unwrap();
    let settings = [("jobs.recording", "on"), ("shims.api_key_file", key.to_str().unwrap())];
    let bridge = RunningBridge::start(backend.address, &settings);
    assert_eq!(bridge.admin("PUT", "/log?filter=trace").await.status, 200);

    let push = json!({ "name": "netbox", "token": PUSHED }).to_string();
    let head = format!(
        "POST /netbox/endpoint HTTP/1.1\r\nHost: bridge\r\nX-Proxbox-API-Key: {CLIENT}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{push}",
        push.len()
    );
    let pushed = Client::raw(bridge.process.address, head.as_bytes()).await.answer().await;
    assert_eq!(pushed.status, 200);

    let answer = request_with_key(&bridge, &format!("{DEVICES}?a=1&api_key={IN_QUERY}")).await;
    assert_eq!(answer.status, 200);
    hides("the stream", answer.text());
    assert!(answer.text().contains("[hidden]"), "{}", answer.text());
    // The answer in the place of a stream is the backend's own, for the client that has the key (R15).
    let answer = request_with_key(&bridge, STORAGE).await;
    assert_eq!((answer.status, answer.detail()), (422, format!("Not for {CLIENT}.")));
    let target = format!("/sync/storage/?api_key={IN_QUERY}");
    let queued = bridge.admin("POST", &target).await;
    assert_eq!(queued.status, 202, "{}", queued.text());
    let jobs = poll_until(async || {
        let jobs = bridge.admin("GET", "/jobs").await;
        let ended = jobs.json()["results"].as_array()?.iter().all(|job| job["completed"].is_string());
        ended.then_some(jobs)
    })
    .await;
    hides("the list of jobs", jobs.text());
    let queries: Vec<_> =
        jobs.json()["results"].as_array().unwrap().iter().map(|job| job["query"].clone()).collect();
    assert_eq!(queries, ["api_key=[hidden]", "", "a=1&api_key=[hidden]"]);

    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    let (code, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    hides("the log", &log);
    assert!(log.contains("Job failed.") && log.contains("Not for [hidden]."), "{log}");
    let files = files(&super::ledger(data.path()));
    for end in ["ledger.sqlite3", ".1.ndjson"] {
        assert!(
            files.iter().any(|(path, text)| path.ends_with(end) && text.contains("[hidden]")),
            "{files:?}"
        );
    }
    for (path, text) in &files {
        hides(path, text);
    }
}
