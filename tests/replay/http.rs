use std::time::Duration;

use proxbox_bridge::recording::{Direction, Headers, Protocol, RecordedEvent, RecordedKey, Recording};
use proxbox_bridge::replay::{ReplayOptions, ServerEvent, Side, Speed};
use tokio::time::Instant;

use super::client::{
    AT_ONCE, OLD, WITH_KEYS, get, get_body, json, recording, request, response, send, serve, sse,
    within_deadline,
};

const STREAM: &str = "/dcim/devices/create/stream";
const ONE: &str = "event: step\ndata: {\"step\": \"devices\", \"n\": 1}\n\n";
const TWO: &str = ": keepalive\n\n";
const THREE: &str = "event: complete\ndata: {\"ok\": true}\n\n";

fn stream(parts: &[&str]) -> Recording {
    sse(WITH_KEYS, RecordedKey::Sent, STREAM, parts)
}

fn ended(recording: Recording) -> Recording {
    recording.with(900.0, Direction::In, RecordedEvent::End)
}

#[tokio::test]
async fn a_stream_is_replayed_byte_for_byte_however_it_was_chunked() {
    let text = [ONE, TWO, THREE, "event: odd\r\ndata: caf\u{e9}\n\n"].concat();
    for parts in [vec![text.as_str()], vec![&text[..7], &text[7..60], &text[60..]]] {
        let server = serve(WITH_KEYS, vec![ended(stream(&parts))], AT_ONCE).await;
        let target = format!("{STREAM}?endpoint_ids=1");
        let reply = get(server.local_addr(), &target).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"), "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"), "{reply:?}");
        assert!(
            reply.header("server") == Some("uvicorn") && reply.header("content-length").is_none(),
            "{reply:?}"
        );
        assert_eq!(get_body(server.local_addr(), &target).await, (text.clone().into_bytes(), true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_as_long_as_it_took() {
    for (speed, milliseconds) in [(Speed::Recorded, 890), (Speed::Times(10.0), 89), (Speed::Max, 0)] {
        let recordings = vec![ended(stream(&[ONE, TWO, THREE]))];
        let server = serve(WITH_KEYS, recordings, ReplayOptions { speed, ..AT_ONCE }).await;
        let start = Instant::now();
        get(server.local_addr(), STREAM).await;
        // The paused clock counts in whole milliseconds.
        let took = start.elapsed().as_millis();
        assert!((milliseconds..milliseconds + 5).contains(&took), "{speed} took {took} ms");
    }
}

#[tokio::test]
async fn any_other_body_declares_its_length() {
    let recordings = vec![json(OLD, RecordedKey::None, "/full-update", 400, r#"{"message":"no"}"#)];
    let server = serve(OLD, recordings, AT_ONCE).await;
    let reply = get(server.local_addr(), "/full-update").await;
    assert_eq!((reply.status, reply.text()), (400, r#"{"message":"no"}"#));
    assert!(
        reply.header("content-length") == Some("16") && reply.header("transfer-encoding").is_none(),
        "{reply:?}"
    );
}

#[tokio::test]
async fn only_what_can_be_got_refuses_other_methods() {
    let recordings = vec![
        ended(sse(OLD, RecordedKey::None, STREAM, &[ONE])),
        json(OLD, RecordedKey::None, "/version", 404, r#"{"detail":"Not Found"}"#),
    ];
    let server = serve(OLD, recordings, AT_ONCE).await;
    for method in ["HEAD", "POST", "OPTIONS", "DELETE"] {
        let reply = request(server.local_addr(), method, STREAM, &[]).await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET"), "{reply:?}");
        let body = if method == "HEAD" { "" } else { r#"{"detail":"Method Not Allowed"}"# };
        assert_eq!(reply.text(), body);
    }
    for (method, path) in [("HEAD", "/version"), ("GET", "/version"), ("GET", "/nope"), ("POST", "/nope")] {
        assert_eq!(request(server.local_addr(), method, path, &[]).await.status, 404, "{method} {path}");
    }
    assert_eq!(get(server.local_addr(), "/nope").await.text(), r#"{"detail":"Not Found"}"#);
    assert_eq!(server.log().requests()[0], ("HEAD".to_owned(), STREAM.to_owned()));
}

#[tokio::test]
async fn five_failures_lock_everybody_out_except_from_what_needs_no_key() {
    let recordings = vec![
        ended(stream(&[ONE])),
        json(WITH_KEYS, RecordedKey::None, "/health", 200, "{}"),
        json(WITH_KEYS, RecordedKey::Sent, "/", 200, "[]"),
    ];
    let server =
        serve(WITH_KEYS, recordings, ReplayOptions { api_key: Some("right".to_owned()), ..AT_ONCE }).await;
    let address = server.local_addr();
    assert_eq!(get(address, STREAM).await.status, 200);

    let missing = request(address, "GET", STREAM, &[]).await;
    assert_eq!(missing.status, 401);
    assert_eq!(missing.text(), r#"{"detail":"API key required. 4 attempts remaining."}"#);
    for remaining in [" 3 attempts remaining.", " 2 attempts remaining.", " 1 attempts remaining.", ""] {
        let wrong = request(address, "GET", "/nope", &[("X-Proxbox-API-Key", "wrong")]).await;
        assert_eq!(wrong.status, 401);
        assert_eq!(wrong.text(), format!("{{\"detail\":\"Invalid API key.{remaining}\"}}"));
    }
    let right = get(address, STREAM).await;
    assert_eq!(right.status, 429);
    assert_eq!(right.header("retry-after"), Some("300"), "{right:?}");
    let sentence = r#"{"detail":"Too many failed authentication attempts. Please try again later."}"#;
    assert_eq!(right.text(), sentence);
    for (path, body) in [("/health", "{}"), ("/", "[]")] {
        assert_eq!(request(address, "GET", path, &[]).await.text(), body);
    }
}

#[tokio::test]
async fn a_recorded_answer_to_a_missing_key_is_given() {
    let recordings = vec![
        json("0.0.0", RecordedKey::Sent, "/version", 200, r#"{"version":"x"}"#),
        json("0.0.0", RecordedKey::None, "/version", 401, r#"{"detail":"As recorded."}"#),
    ];
    let server = serve("0.0.0", recordings, AT_ONCE).await;
    let without = request(server.local_addr(), "GET", "/version", &[]).await;
    assert_eq!((without.status, without.text()), (401, r#"{"detail":"As recorded."}"#));
    assert_eq!(get(server.local_addr(), "/version").await.status, 200);
}

#[tokio::test]
async fn a_recorded_cut_is_replayed_after_every_byte_before_it() {
    // More than any buffer on the way holds, so that the cut has to wait for the client.
    let long = "x".repeat(4_000_000);
    let recordings = vec![stream(&[ONE, &long, "\n\n"]).with(900.0, Direction::In, RecordedEvent::Cut)];
    let server = serve(WITH_KEYS, recordings, AT_ONCE).await;
    let (body, ended) = get_body(server.local_addr(), STREAM).await;
    assert_eq!((body.len(), ended), (ONE.len() + long.len() + 2, false));
    let entries = server.log().wait_for(|it| matches!(it.last(), Some(ServerEvent::Closed { .. }))).await;
    assert_eq!(entries.last(), Some(&ServerEvent::Closed { connection: 0, by: Side::Server }));
}

#[tokio::test]
async fn a_connection_that_was_cut_before_its_answer_gets_none() {
    let recording = Recording::new(OLD, Protocol::Http, RecordedKey::None)
        .with(0.0, Direction::Out, RecordedEvent::get("/version"))
        .with(10.0, Direction::In, RecordedEvent::Cut);
    let server = serve(OLD, vec![recording], AT_ONCE).await;
    let client = send(server.local_addr(), "GET", "/version", &[]).await;
    assert_eq!(within_deadline(client.rest()).await, b"");
}

#[tokio::test]
async fn an_open_end_is_silent_until_the_client_leaves() {
    let headers = Headers::new();
    let silent = Recording::new(WITH_KEYS, Protocol::Http, RecordedKey::Sent)
        .with(0.0, Direction::Out, RecordedEvent::get("/full-update"))
        .with(99.0, Direction::Ctl, RecordedEvent::Open);
    let headless = Recording::new(WITH_KEYS, Protocol::Http, RecordedKey::Sent)
        .with(0.0, Direction::Out, RecordedEvent::get("/headless"))
        .with(9.0, Direction::In, RecordedEvent::Response { status: 200, headers })
        .with(99.0, Direction::Ctl, RecordedEvent::Open);
    let recordings = vec![stream(&[ONE]).with(900.0, Direction::Ctl, RecordedEvent::Open), silent, headless];
    let server = serve(WITH_KEYS, recordings, AT_ONCE).await;

    let mut streaming = send(server.local_addr(), "GET", STREAM, &[("X-Proxbox-API-Key", "k")]).await;
    streaming.head().await;
    within_deadline(streaming.read_until(ONE)).await;
    let waiting = send(server.local_addr(), "GET", "/full-update", &[("X-Proxbox-API-Key", "k")]).await;
    let log = server.log();
    within_deadline(log.wait_for(|_| log.requests().len() == 2)).await;
    assert_eq!(log.open_connections(), 2);

    drop((streaming, waiting));
    within_deadline(log.wait_until_idle()).await;
    let entries = log.entries();
    let left = |connection| entries.contains(&ServerEvent::Closed { connection, by: Side::Client });
    assert!(left(0) && left(1), "{entries:?}");
}

#[tokio::test]
async fn a_stream_is_cut_between_two_events() {
    for (cut_after, expected) in
        [(0, ""), (1, ONE), (2, &[ONE, TWO].concat()), (3, &[ONE, TWO, THREE].concat())]
    {
        let recordings = vec![ended(stream(&[&[ONE, TWO, THREE].concat()]))];
        let options = ReplayOptions { cut_after: Some(cut_after), ..AT_ONCE };
        let server = serve(WITH_KEYS, recordings, options).await;
        let (body, ended) = get_body(server.local_addr(), STREAM).await;
        assert_eq!((String::from_utf8(body).unwrap().as_str(), ended), (expected, false), "{cut_after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_keeps_the_connection() {
    let recordings = vec![ended(stream(&[ONE, TWO, THREE]))];
    let options = ReplayOptions { stall_after: Some(2), speed: Speed::Recorded, ..AT_ONCE };
    let server = serve(WITH_KEYS, recordings, options).await;
    let mut stalled = send(server.local_addr(), "GET", STREAM, &[("X-Proxbox-API-Key", "k")]).await;
    stalled.head().await;
    within_deadline(stalled.read_until(TWO)).await;
    // The clock is paused: this hour passes when all tasks are idle.
    let more = tokio::time::timeout(Duration::from_secs(3600), stalled.chunk()).await;
    assert!(more.is_err(), "more came: {more:?}");
    assert_eq!(server.log().open_connections(), 1);
}

#[tokio::test]
async fn garbage_stands_between_two_events_and_the_rest_follows() {
    let recordings = vec![ended(stream(&[ONE, TWO, THREE]))];
    let server = serve(WITH_KEYS, recordings, ReplayOptions { garbage_after: Some(1), ..AT_ONCE }).await;
    let (body, ended) = get_body(server.local_addr(), STREAM).await;
    assert!(ended && body.starts_with(ONE.as_bytes()));
    let rest = &body[ONE.len()..];
    assert!(rest.ends_with([TWO, THREE].concat().as_bytes()));
    assert!(std::str::from_utf8(rest).is_err(), "garbage is no UTF-8");
}

#[tokio::test]
async fn a_json_answer_is_one_frame() {
    let body = r#"{"count":3}"#;
    let serving = |options| serve(OLD, vec![json(OLD, RecordedKey::None, "/x", 200, body)], options);
    let server = serving(ReplayOptions { cut_after: Some(0), ..AT_ONCE }).await;
    assert_eq!(get_body(server.local_addr(), "/x").await, (Vec::new(), false));
    let server = serving(ReplayOptions { cut_after: Some(1), ..AT_ONCE }).await;
    assert_eq!(get_body(server.local_addr(), "/x").await, (body.into(), false));
    let server = serving(ReplayOptions { cut_after: Some(2), ..AT_ONCE }).await;
    assert_eq!(get_body(server.local_addr(), "/x").await, (body.into(), true));
    let server = serving(ReplayOptions { garbage_after: Some(0), ..AT_ONCE }).await;
    let (garbled, ended) = get_body(server.local_addr(), "/x").await;
    assert!(ended && garbled.ends_with(body.as_bytes()) && garbled.len() > body.len());
}

#[tokio::test]
async fn a_stopped_server_has_closed_everything() {
    let recordings = vec![response(recording(OLD, RecordedKey::None), "/x", 200, "text/plain", &["a"])];
    let server = serve(OLD, recordings, AT_ONCE).await;
    let (address, log) = (server.local_addr(), server.log());
    let mut open = send(address, "GET", "/x", &[]).await;
    open.head().await;
    assert_eq!(within_deadline(open.bytes(1)).await, b"a");
    within_deadline(server.stop()).await;
    assert_eq!(log.open_connections(), 0);
    assert_eq!(log.entries().last(), Some(&ServerEvent::Closed { connection: 0, by: Side::Server }));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
