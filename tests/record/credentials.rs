//! Credentials are in no recording, wherever the client or the backend sent them.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxbox_bridge::record::TrafficRecorder;
use proxbox_bridge::recording::{RecordedEvent, Recording};
use proxbox_bridge::server::Server;
use serde_json::json;

use crate::support::bridge::{Client, DEVICES, TestBridge, config};
use crate::support::credentials::{assert_hidden, planted};
use crate::support::scripted::{Backend, Body, answer};

const KEY: &str = "key-of-the-client-0123456789";
const BEARER: &str = "bearer-of-a-page-0123456789";
const COOKIE: &str = "cookie-of-a-page-0123456789";
const QUERY: &str = "query-token-0123456789";
const PUSHED: &str = "pushed-pass-\"w\\rd-0123456789";
const STORED: &str = "stored-token-0123456789";
const SESSION: &str = "session-of-the-backend-0123456789";
const ALL: [&str; 7] = [KEY, BEARER, COOKIE, QUERY, PUSHED, STORED, SESSION];

/// A backend that returns its own credentials, and in a stream those of everybody.
async fn backend() -> Backend {
    async fn response(request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let accepts_coding = request.headers().get("accept-encoding").is_some_and(|it| it != "identity");
        assert!(!accepts_coding, "a compressed body cannot be searched");
        request.into_body().collect().await.unwrap();
        match path.as_str() {
            DEVICES if method == "GET" => {
                let step = json!({ "step": "devices", "status": "progress", "message": ALL.join(" "), "rowid": null });
                let (stream, end) =
                    (format!("event: step\ndata: {step}\n\n"), "event: complete\ndata: {\"ok\": true}\n\n");
                answer(200, &[("content-type", "text/event-stream")], &format!("{stream}{end}"))
            }
            "/netbox/endpoint" => {
                let cookie = format!("sessionid={SESSION}; HttpOnly");
                let stored = json!([{ "name": "netbox", "token": STORED, "note": format!("as {STORED}") }]);
                answer(200, &[("set-cookie", &cookie)], &stored.to_string())
            }
            "/" | "/health" | "/sync/active" => answer(200, &[], "{}"),
            "/version" => answer(200, &[], "{\"version\": \"0.0.30.post2\"}"),
            _ if method == "HEAD" => answer(405, &[("allow", "GET")], ""),
            _ => answer(404, &[], "{\"detail\": \"Not Found\"}"),
        }
    }

    Backend::start(response).await
}

#[tokio::test]
async fn no_credential_is_in_any_recording() {
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let recorder = TrafficRecorder::new(folder.path(), [""; 0]).unwrap();
    let server = Server::bind(config(backend.address, &[])).await.unwrap();
    let bridge = TestBridge::serve(server.observed_by(Arc::new(recorder.clone())));

    let cookie = format!("sessionid={COOKIE}");
    let bearer = format!("Bearer {BEARER}");
    let headers = [
        ("X-Proxbox-API-Key", KEY),
        ("Authorization", bearer.as_str()),
        ("Cookie", cookie.as_str()),
        ("Accept-Encoding", "gzip"),
    ];
    let pushed = json!({ "name": "pve", "password": PUSHED }).to_string();
    let push = format!(
        "POST /proxmox/endpoints HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{pushed}",
        pushed.len()
    );
    Client::raw(bridge.address, push.as_bytes()).await.answer().await;
    for target in [&format!("/x?token={QUERY}"), "/netbox/endpoint", DEVICES] {
        bridge.get(target, &headers).await;
    }
    bridge.stop().await;
    recorder.finish().unwrap();

    let mut text = String::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        text.push_str(&format!("{}\n{}", path.display(), std::fs::read_to_string(&path).unwrap()));
    }
    for secret in ALL {
        let escaped = serde_json::Value::from(secret).to_string();
        for form in [secret, escaped.trim_matches('"')] {
            assert!(!text.contains(form), "{form} is in {text}");
        }
    }
    for kept in ["<api-key>", "[hidden]", r#"\"name\":\"netbox\""#, r#"\"note\":\"as [hidden]\""#] {
        assert!(text.contains(kept), "{kept} is not in {text}");
    }
}

/// The body of `/json`, `/text` and the stream: every form of a credential.
fn forms(path: &str) -> (String, &'static str) {
    let texts: Vec<String> = planted().into_iter().map(|(_, text)| text).collect();
    let event = |text: &String| {
        let step = json!({ "step": "devices", "status": "progress", "message": text, "rowid": null });
        format!("event: step\ndata: {step}\n\n")
    };
    match path {
        "/json" => (json!(texts).to_string(), "application/json"),
        "/text" => (texts.join("\n"), "text/plain"),
        _ => {
            let steps = texts.iter().map(event).collect::<String>();
            (format!("{steps}event: complete\ndata: {{\"ok\": true}}\n\n"), "text/event-stream")
        }
    }
}

/// What a recorder has written to `folder`.
fn written(folder: &std::path::Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[tokio::test]
async fn no_form_of_a_credential_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = TrafficRecorder::new(folder.path(), [""; 0]).unwrap();
    let backend = Backend::start(|request: Request<Incoming>| async move {
        let path = request.uri().path().to_owned();
        let is_other = matches!(path.as_str(), "/" | "/health" | "/sync/active") || request.method() == "HEAD";
        match path.as_str() {
            "/version" => answer(200, &[], "{\"version\": \"0.0.30.post2\"}"),
            _ if is_other => answer(200, &[], "{}"),
            "/refused" => {
                let sent: serde_json::Value =
                    serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
                let echoed = json!({ "detail": [{ "loc": ["body", "token"], "msg": "no", "input": sent["token"] }],
                    "message": format!("not {}", sent["pin_secret"].as_str().unwrap()) });
                answer(422, &[("content-type", "application/json")], &echoed.to_string())
            }
            path => {
                let (body, kind) = forms(path);
                answer(200, &[("content-type", kind)], &body)
            }
        }
    })
    .await;
    let config = config(backend.address, &[("shims.scope", "off")]);
    let server = Server::bind(config).await.unwrap().observed_by(Arc::new(recorder.clone()));
    let bridge = TestBridge::serve(server);
    for target in ["/json", "/text", DEVICES] {
        bridge.get(target, &[]).await;
    }
    for (secret, text) in planted().iter().filter(|(_, text)| text.starts_with("/x?")) {
        let answer = bridge.get(text, &[("X-Note", &format!("token={secret}"))]).await;
        assert_eq!(answer.status, 200, "{text}");
    }
    // Shorter than what is looked for everywhere.
    let sent = json!({ "token": "qzx", "pin_secret": "Qz7k" }).to_string();
    let push = format!(
        "POST /refused HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{sent}",
        sent.len()
    );
    Client::raw(bridge.address, push.as_bytes()).await.answer().await;
    bridge.stop().await;
    recorder.finish().unwrap();
    let text = written(folder.path());
    let all = planted();
    assert_hidden(all.iter().map(|(secret, _)| secret.as_str()).chain(["qzx", "Qz7k"]), "a recording", &text);
    for kept in ["not [hidden]", "\\\"port\\\":8006", "Authorization: Bearer [hidden]"] {
        assert!(text.contains(kept), "{kept} is not in {text}");
    }
}

#[tokio::test]
async fn a_credential_across_the_place_where_a_long_body_is_cut_is_not_recorded() {
    const HELD: usize = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let recorder = TrafficRecorder::new(folder.path(), [""; 0]).unwrap();
    let secret = planted().remove(0).0;
    let begin = "[{\"token\": \"";
    // The limit is within the secret.
    let filler = json!({ "a": "x".repeat(HELD - 40) }).to_string();
    let filler = format!("[{filler},{}", " ".repeat(HELD - filler.len() - 2 - begin.len() - 8));
    let body = format!("{filler}{}{secret}\"}}]]", begin);
    let expected = body.replace(&secret, "[hidden]");
    let backend = Backend::start(move |request: Request<Incoming>| {
        let body = body.clone();
        async move {
            match request.uri().path() {
                "/version" => answer(200, &[], "{\"version\": \"0.0.30.post2\"}"),
                "/long" => answer(200, &[("content-type", "application/json")], &body),
                _ => answer(200, &[], "{}"),
            }
        }
    })
    .await;
    let server = Server::bind(config(backend.address, &[])).await.unwrap();
    let bridge = TestBridge::serve(server.observed_by(Arc::new(recorder.clone())));
    bridge.get("/long", &[]).await;
    bridge.stop().await;
    recorder.finish().unwrap();
    let recordings = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_long = |path: &std::path::PathBuf| path.to_str().unwrap().ends_with("get-long.ndjson");
    let recording = Recording::read(recordings.into_iter().find(is_long).unwrap()).unwrap();
    let parts = recording.frames.iter().filter_map(|frame| match &frame.event {
        RecordedEvent::Body(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    let recorded = parts.collect::<Vec<_>>().concat();
    assert!(recorded == expected.as_bytes(), "{}", String::from_utf8_lossy(&recorded[HELD - 60..]));
}
