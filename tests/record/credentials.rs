//! Credentials are in no recording, wherever the client or the backend sent them.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxbox_bridge::record::TrafficRecorder;
use proxbox_bridge::server::Server;
use serde_json::json;

use crate::support::bridge::{Client, DEVICES, TestBridge, config};
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
