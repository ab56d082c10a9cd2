//! The rules of the wire contract, R1 to R16, each checked on the bytes that a client receives.

use std::time::Duration;

use crate::support::bridge::{
    Answer, BridgedReplay, Client, DEVICES, KEY, MACHINES, TestBridge, WITH_KEY, config, fast, recordings,
};
use crate::support::plugin::{self, JobPage};
use crate::support::session::stream;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::recording::{Direction, Protocol, RecordedEvent, RecordedKey, Recording};
use proxbox_bridge::replay::{Library, ReplayOptions};
use tokio::net::TcpListener;

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";

async fn pair(version: &str) -> BridgedReplay {
    BridgedReplay::start(recordings(version, &[]), fast(), &[]).await
}

/// A backend of the newest release whose device stream has this body.
fn devices_library(body: &str) -> Library {
    let stream = exchange(DEVICES, 200, "text/event-stream; charset=utf-8", body);
    let version = exchange("/version", 200, "application/json", r#"{"version":"0.0.30.post2"}"#);
    Library::from_recordings("0.0.30.post2", vec![stream, version]).unwrap()
}

fn exchange(target: &str, status: u16, content_type: &str, body: &str) -> Recording {
    let headers = vec![("content-type".to_owned(), content_type.to_owned())];
    Recording::new("0.0.30.post2", Protocol::Http, RecordedKey::Sent)
        .with(0.0, Direction::Out, RecordedEvent::get(target))
        .with(1.0, Direction::In, RecordedEvent::Response { status, headers })
        .with(2.0, Direction::In, RecordedEvent::Body(body.to_owned().into()))
        .with(3.0, Direction::In, RecordedEvent::End)
}

async fn response_to(body: &str) -> Answer {
    let pair = BridgedReplay::start(devices_library(body), fast(), &[]).await;
    pair.front.get(DEVICES, &WITH_KEY).await
}

const COMPLETE: &str = "event: complete\ndata: {\"ok\": true, \"message\": \"devices sync completed.\"}\n\n";

#[tokio::test(start_paused = true)]
async fn r01_ids_come_only_to_clients_that_want_them_and_as_the_first_line() {
    let pair = pair(OLD).await;
    let plain = pair.front.get(DEVICES, &[]).await;
    stream::read(&plain.body);
    for (target, headers) in
        [(format!("{DEVICES}?bridge.ids=1"), vec![]), (DEVICES.to_owned(), vec![("Last-Event-ID", "")])]
    {
        let answer = pair.front.get(&target, &headers).await;
        let ids: Vec<String> =
            stream::read_with_ids(&answer.body).into_iter().filter_map(|event| event.id).collect();
        let (job, _) = ids[0].rsplit_once('.').unwrap();
        let expected: Vec<String> = (1..=ids.len()).map(|number| format!("{job}.{number}")).collect();
        assert_eq!(ids, expected);
    }
    assert!(!plain.text().contains("retry:"));
}

#[tokio::test(start_paused = true)]
async fn r02_the_charset_is_named() {
    let answer = pair(OLD).await.front.get(MACHINES, &[]).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
}

#[tokio::test(start_paused = true)]
async fn r03_json_is_ascii() {
    let answer = pair(OLD).await.front.get(MACHINES, &[]).await;
    assert!(answer.body.is_ascii());
    assert!(answer.text().contains(r"caf\u00e9-m\u00fcnchen"), "{}", answer.text());
    let hostile = "event: step\ndata: {\"step\": \"device\", \"status\": \"progress\", \"rowid\": \"a\u{85}b\u{2028}c\u{1f600}\"}\n\n";
    let answer = response_to(&format!("{hostile}{COMPLETE}")).await;
    assert!(answer.text().contains(r"a b c\ud83d\ude00"), "{}", answer.text());
    stream::read(&answer.body);
}

#[tokio::test(start_paused = true)]
async fn r04_lines_end_with_a_line_feed_alone() {
    let answer = response_to(&COMPLETE.replace('\n', "\r\n")).await;
    assert!(!answer.body.contains(&b'\r'));
    stream::read(&answer.body);
}

#[tokio::test(start_paused = true)]
async fn r05_a_stream_is_chunked_and_nothing_else() {
    for target in [MACHINES, "/full-update/stream"] {
        let answer = pair(OLD).await.front.get(target, &[("Accept-Encoding", "gzip, deflate")]).await;
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        for name in ["content-length", "content-encoding"] {
            assert_eq!(answer.header(name), None);
        }
    }
    // A reader that cannot take chunks gets a real answer, not a body that ends with its connection.
    let pair = pair(OLD).await;
    let request = format!("GET {DEVICES} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let (status, _) = Client::raw(pair.front.address, request.as_bytes()).await.head().await;
    assert_eq!(status, 505);
    assert_eq!(pair.log().requests(), []);
}

#[tokio::test(start_paused = true)]
async fn r06_there_is_one_end_and_then_the_body_ends() {
    let other = COMPLETE.replace("completed.", "completed again.");
    let answer = response_to(&format!("{COMPLETE}{other}")).await;
    // `answer` has read the last chunk; `read` has found exactly one `complete`.
    stream::read(&answer.body);

    // A backend that sends its final event and stays connected.
    let mut recording = exchange(DEVICES, 200, "text/event-stream", COMPLETE);
    recording.frames.pop();
    recording.push(3.0, Direction::Ctl, RecordedEvent::Open);
    let version = exchange("/version", 200, "application/json", r#"{"version":"0.0.30.post2"}"#);
    let library = Library::from_recordings("0.0.30.post2", vec![recording, version]).unwrap();
    let pair = BridgedReplay::start(library, fast(), &[]).await;
    let answer = pair.front.get(DEVICES, &WITH_KEY).await;
    assert_eq!(stream::read(&answer.body).last().unwrap().data["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn r07_the_end_has_the_shape_that_readers_take() {
    for (complete, ok) in [
        (r#"{"ok": true, "message": "m", "result": [1, 2]}"#, true),
        (r#"{"ok": true, "message": null, "result": "x", "errors": null}"#, true),
        (r#"{"ok": null, "message": "m"}"#, false),
        (r#"{"message": "m"}"#, false),
        (r#"{"ok": "true"}"#, false),
        (r#"{"ok": false, "errors": ["x"]}"#, false),
        (r#"{"ok": false, "errors": {"detail": {"a": 1}}}"#, false),
        (r#"{"ok": false, "errors": null}"#, false),
        ("[]", false),
        ("nonsense", false),
    ] {
        let answer = response_to(&format!("event: complete\ndata: {complete}\n\n")).await;
        let events = stream::read(&answer.body);
        assert_eq!(events.last().unwrap().data["ok"], ok, "{complete}");
        let page = plugin::read("text/event-stream; charset=utf-8", &answer.body);
        assert_eq!(matches!(page, JobPage::Success { .. }), ok, "{complete}: {page:?}");
        assert_eq!(matches!(page, JobPage::Failure(_)), !ok, "{complete}: {page:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r08_a_failure_is_an_error_and_then_an_end_that_is_not_ok() {
    let error = "event: error\ndata: {\"step\": \"devices\", \"error\": \"E\", \"detail\": \"D\"}\n\n";
    for body in [
        error.to_owned(),
        format!("{error}{COMPLETE}"),
        "event: complete\ndata: {\"ok\": false, \"message\": \"E\", \"errors\": [{\"detail\": \"D\"}]}\n\n"
            .to_owned(),
    ] {
        let answer = response_to(&body).await;
        let events = stream::read(&answer.body);
        let [.., error, complete] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((error.name.as_str(), complete.name.as_str()), ("error", "complete"));
        assert_eq!(error.text("error"), "E");
        assert!(error.text("detail").contains('D'));
        assert_eq!(complete.data["ok"], false);
        assert_eq!(complete.data["errors"][0]["detail"], error.data["detail"]);
    }
}

#[tokio::test(start_paused = true)]
async fn r09_the_failure_of_one_object_is_a_step_and_the_run_continues() {
    let failed = "event: item_progress\ndata: {\"phase\": \"devices\", \"status\": \"failed\", \
                  \"item\": {\"name\": \"pve1\"}, \"error\": \"no IP\"}\n\n";
    let detail = "event: error_detail\ndata: {\"phase\": \"devices\", \"item\": \"pve2\", \"message\": \"no rack\"}\n\n";
    let synced =
        "event: step\ndata: {\"step\": \"device\", \"status\": \"completed\", \"rowid\": \"pve3\"}\n\n";
    let answer = response_to(&format!("{failed}{detail}{synced}{COMPLETE}")).await;
    let events = stream::read(&answer.body);
    let failures: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event.text("status") == "failed")
        .map(|event| (event.text("rowid"), event.text("error")))
        .collect();
    assert_eq!(failures, [("pve1", "no IP"), ("pve2", "no rack")]);
    assert_eq!(events.last().unwrap().data["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn r10_a_backend_that_goes_away_leaves_a_failure() {
    for (version, target) in [(OLD, MACHINES), (NEW, MACHINES)] {
        let whole = BridgedReplay::start(recordings(version, &[]), fast(), &[]).await;
        let frames = stream::read(&whole.front.get(target, &WITH_KEY).await.body).len() as u64;
        for after in [1, 3, frames / 2] {
            let options = ReplayOptions { cut_after: Some(after), ..fast() };
            let pair = BridgedReplay::start(recordings(version, &[]), options, &[]).await;
            let answer = pair.front.get(target, &WITH_KEY).await;
            let events = stream::read(&answer.body);
            assert_eq!(events.last().unwrap().data["ok"], false, "{version} cut after {after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r11_a_silent_backend_is_covered_by_keepalives_until_a_limit_ends_it() {
    let options = ReplayOptions { stall_after: Some(3), ..fast() };
    let settings = [("limits.idle", "100s")];
    let pair = BridgedReplay::start(recordings(NEW, &[]), options, &settings).await;
    let began = tokio::time::Instant::now();
    let answer = pair.front.get(MACHINES, &WITH_KEY).await;
    assert_eq!(began.elapsed().as_secs(), 100);
    assert_eq!(answer.text().matches(": keepalive\n\n").count(), 6);
    let events = stream::read(&answer.body);
    let error = &events[events.len() - 2];
    assert!(error.text("detail").contains("said nothing for 1 min 40 s"), "{}", error.data);
}

#[tokio::test(start_paused = true)]
async fn r12_a_redirect_of_the_backend_is_no_redirect_of_ours() {
    let mut redirect = exchange(DEVICES, 307, "text/plain", "");
    if let RecordedEvent::Response { headers, .. } = &mut redirect.frames[1].event {
        headers.push(("location".to_owned(), format!("http://elsewhere{DEVICES}/")));
    }
    let version = exchange("/version", 200, "application/json", r#"{"version":"0.0.30.post2"}"#);
    let library = Library::from_recordings("0.0.30.post2", vec![redirect, version]).unwrap();
    let pair = BridgedReplay::start(library, fast(), &[]).await;
    let answer = pair.front.get(DEVICES, &WITH_KEY).await;
    assert_eq!((answer.status, answer.header("location")), (502, None));
    assert!(answer.detail().contains("307"), "{}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn r13_a_step_fits_into_the_log_line_of_netbox() {
    let pair = pair(NEW).await;
    // `read` measures every step that has no payload.
    let lean = pair.front.get(MACHINES, &WITH_KEY).await;
    assert!(stream::read(&lean.body).iter().all(|event| event.data.get("payload").is_none()));
    let full = pair.front.get(&format!("{MACHINES}?bridge.payload=1"), &WITH_KEY).await;
    let events = stream::read(&full.body);
    assert!(events.iter().any(|event| event.data["payload"]["object"] == "virtual_machine"));

    let long = "x".repeat(5000);
    let step = format!(
        "event: step\ndata: {{\"step\": \"device\", \"status\": \"failed\", \"rowid\": \"{long}\", \"message\": \"{long}\"}}\n\n"
    );
    stream::read(&response_to(&format!("{step}{COMPLETE}")).await.body);
}

#[tokio::test(start_paused = true)]
async fn r14_nothing_between_us_and_the_reader_may_buffer_or_cache() {
    let answer = pair(NEW).await.front.get(DEVICES, &WITH_KEY).await;
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("connection"), None);
}

#[tokio::test(start_paused = true)]
async fn r14_a_client_that_wants_its_connection_closed_gets_no_connection_header_and_its_wish() {
    let pair = pair(NEW).await;
    let closing = [("X-Proxbox-API-Key", KEY), ("Connection", "close")];
    let mut client = pair.front.open(DEVICES, &closing).await;
    let (status, headers) = client.head().await;
    assert_eq!(status, 200);
    assert!(headers.iter().all(|(name, _)| name != "connection"), "{headers:?}");
    while !client.chunk().await.is_empty() {}
    let began = tokio::time::Instant::now();
    client.ended().await;
    assert!(began.elapsed().as_secs() < 1, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn r14_holds_for_a_request_behind_others_and_nothing_behind_it_is_answered() {
    let pair = pair(NEW).await;
    let request = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Proxbox-API-Key: {KEY}\r\n{more}\r\n")
    };
    // The path is the one that backends make of it.
    let stream = request("/dcim/devices%2F%63reate/stream", "Connection: close\r\n");
    let requests = [request("/version", ""), stream, request("/version", "")].concat();
    let mut client = Client::raw(pair.front.address, requests.as_bytes()).await;
    let (status, headers) = client.head().await;
    let length = headers.iter().find(|(name, _)| name == "content-length").unwrap().1.parse().unwrap();
    assert_eq!((status, client.bytes(length).await.len()), (200, length));
    let (status, headers) = client.head().await;
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())));
    assert!(headers.iter().all(|(name, _)| name != "connection"), "{headers:?}");
    while !client.chunk().await.is_empty() {}
    assert_eq!(client.rest().await, b"", "the connection ends, and the third request is not answered");
}

#[tokio::test(start_paused = true)]
async fn r14_holds_for_a_request_that_would_leave_http_1_and_nothing_behind_it_is_answered() {
    let pair = pair(NEW).await;
    for connection in ["Upgrade", "Upgrade, close"] {
        let requests = format!(
            "GET {DEVICES} HTTP/1.1\r\nHost: a\r\nX-Proxbox-API-Key: {KEY}\r\nConnection: {connection}\r\n\
             Upgrade: websocket\r\n\r\nGET /version HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let mut client = Client::raw(pair.front.address, requests.as_bytes()).await;
        let (status, headers) = client.head().await;
        assert_eq!(status, 200);
        assert!(
            headers.contains(&("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned()))
        );
        assert!(headers.iter().all(|(name, _)| name != "connection"), "{headers:?}");
        while !client.chunk().await.is_empty() {}
        assert_eq!(client.rest().await, b"", "the connection ends, and the second request is not answered");
    }
}

#[tokio::test(start_paused = true)]
async fn r15_a_failure_before_the_stream_is_a_real_answer() {
    // The backend's own status and body, unchanged.
    let wrong = ReplayOptions { api_key: Some("another-key".to_owned()), ..fast() };
    let pair = BridgedReplay::start(recordings(NEW, &[]), wrong.clone(), &[]).await;
    let answer = pair.front.get(DEVICES, &WITH_KEY).await;
    assert_eq!(
        (answer.status, answer.text()),
        (401, r#"{"detail":"Invalid API key. 4 attempts remaining."}"#)
    );
    assert_eq!(pair.log().requests().len(), 1, "one bad key is one attempt");

    // A key that is refused on /ws: the same answer, from a close code. The first client's key is right,
    // so that the bridge knows the backend when the second one comes.
    let right = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    for version in ["0.0.11.post2", NEW] {
        let pair = BridgedReplay::start(
            recordings(version, &[]),
            right.clone(),
            &[("backend.channel", "websocket")],
        )
        .await;
        assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
        let answer = pair.front.get(DEVICES, &[("X-Proxbox-API-Key", "another-key")]).await;
        assert_eq!(answer.status, 401);
        assert!(answer.detail().contains("API key"), "{}", answer.text());
    }

    // A body that is not JSON is wrapped in JSON.
    let pair = BridgedReplay::start(recordings(OLD, &["fail/ws-netbox-down"]), fast(), &[]).await;
    let answer = pair.front.get(DEVICES, &[]).await;
    assert_eq!((answer.status, answer.detail().as_str()), (500, "Internal Server Error"));
    assert!(answer.json()["message"].is_string());
}

#[tokio::test(start_paused = true)]
async fn r16_a_backend_that_is_down_is_503_with_a_time_to_come_back() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let front = TestBridge::start(config(address, &[("limits.retry_after", "7s")])).await;
    for target in Kind::all().map(|kind| kind.row().stream_path).chain(["/health", "/version", "/"]) {
        let answer = front.get(target, &WITH_KEY).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")), "{target}");
        assert!(answer.detail().contains(&address.to_string()), "{}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_line_waits_for_the_backend_but_not_for_ever() {
    // A backend that takes the request and then thinks for minutes about its dependencies.
    let mut recording = exchange(DEVICES, 200, "text/event-stream", COMPLETE);
    for frame in &mut recording.frames[1..] {
        frame.t_ms += 120_000.0;
    }
    let version = exchange("/version", 200, "application/json", r#"{"version":"0.0.30.post2"}"#);
    let library = Library::from_recordings("0.0.30.post2", vec![recording, version]).unwrap();
    let pair = BridgedReplay::start(library, ReplayOptions::default(), &[]).await;
    let began = tokio::time::Instant::now();
    let mut client = pair.front.open(DEVICES, &WITH_KEY).await;
    let (status, _) = client.head().await;
    assert_eq!((status, began.elapsed().as_secs()), (200, 10));
    let first = client.chunk().await;
    assert!(first.starts_with(b"event: step\ndata: {\"step\": \"devices\", \"status\": \"started\""));
    let mut keepalives = 0;
    while client.chunk().await == b": keepalive\n\n" {
        keepalives += 1;
    }
    assert_eq!(keepalives, 7);
    assert!(began.elapsed() < Duration::from_secs(125));
}
