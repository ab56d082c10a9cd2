use crate::support::bridge::replayed;
use futures::SinkExt as _;
use proxbox_bridge::recording::{Direction, Headers, Protocol, RecordedEvent, RecordedKey, Recording};
use proxbox_bridge::replay::{ReplayOptions, ServerEvent, Side, Speed};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::client::{
    AT_ONCE, OLD, WITH_ENVELOPES, WITH_KEYS, Ws, command, greeted, json, request, send, serve,
    within_deadline,
};

const DEVICE: &str = r#"{"object":"device","type":"create","data":{"name":"caf\u00e9 é"}}"#;
const DEVICE_END: &str = r#"{"object":"device","end":true}"#;
const VALID: &str = "Valid commands: 'Sync Nodes', 'Sync Virtual Machines', 'Full Update Sync'";

fn sync_nodes(version: &str) -> Recording {
    command(greeted(version), "Sync Nodes", &["Sync Nodes", DEVICE, DEVICE_END])
}

fn invalid(version: &str) -> Recording {
    let bogus = "bogus <b>cmd</b>";
    command(greeted(version), bogus, &["Invalid command: bogus <b>cmd</b>", "Valid commands: 'As recorded'"])
}

fn recorded() -> ReplayOptions {
    ReplayOptions { speed: Speed::Recorded, ..AT_ONCE }
}

#[tokio::test]
async fn the_greeting_is_sent_at_once_if_no_key_is_required() {
    let server = serve(OLD, vec![sync_nodes(OLD)], AT_ONCE).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
    ws.send("Sync Nodes").await;
    ws.expect_texts(&["Sync Nodes", DEVICE, DEVICE_END]).await;
    assert_eq!(server.log().texts(), ["Sync Nodes"]);
}

#[tokio::test]
async fn a_command_is_answered_only_when_the_one_before_has_returned() {
    for (version, key) in [(OLD, None), (WITH_KEYS, Some("k"))] {
        let server = serve(version, vec![sync_nodes(version), invalid(version)], AT_ONCE).await;
        let mut ws = Ws::connect(server.local_addr(), key).await;
        ws.send("Sync Nodes").await;
        ws.send("nonsense").await;
        ws.expect_texts(&["Connected!", "Connected 2!", "Sync Nodes", DEVICE, DEVICE_END]).await;
        ws.expect_texts(&["Invalid command: nonsense", "Valid commands: 'As recorded'"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_barrier_is_answered_when_the_command_has_returned_and_not_at_its_last_frame() {
    let mut slow = command(greeted(OLD), "Sync Nodes", &[DEVICE_END]);
    slow.frames.last_mut().unwrap().t_ms += 5000.0;
    let server = serve(OLD, vec![slow, invalid(OLD)], recorded()).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
    let start = Instant::now();
    ws.send("Sync Nodes").await;
    ws.send("__barrier__").await;
    ws.expect_texts(&[DEVICE_END]).await;
    assert!(start.elapsed().as_millis() < 1000);
    ws.expect_texts(&["Invalid command: __barrier__"]).await;
    assert!(start.elapsed().as_millis() >= 5100, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn strays_of_a_command_fall_into_the_next_one() {
    let strays = command(greeted(OLD), "Sync Virtual Machines", &["end"]);
    let at = strays.frames.last().unwrap().t_ms;
    let strays = strays
        .with(at + 50.0, Direction::In, RecordedEvent::text("stray 1"))
        .with(at + 150.0, Direction::In, RecordedEvent::text("stray 2"))
        .with(at + 900.0, Direction::Ctl, RecordedEvent::Open);
    let server = serve(OLD, vec![strays, invalid(OLD)], recorded()).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
    ws.send("Sync Virtual Machines").await;
    ws.send("x").await;
    ws.expect_texts(&["end", "Invalid command: x", "stray 1", "Valid commands: 'As recorded'", "stray 2"])
        .await;
}

#[tokio::test]
async fn a_command_that_never_returned_holds_the_loop_and_the_socket() {
    let mut hanging = sync_nodes(OLD);
    hanging.frames.pop();
    let hanging = hanging.with(99_000.0, Direction::Ctl, RecordedEvent::Open);
    let server = serve(OLD, vec![hanging, invalid(OLD)], AT_ONCE).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
    ws.send("Sync Nodes").await;
    ws.expect_texts(&["Sync Nodes", DEVICE, DEVICE_END]).await;
    ws.send("nonsense").await;
    ws.expect_only_a_pong().await;
    drop(ws);
    within_deadline(server.log().wait_until_idle()).await;
    assert_eq!(server.log().entries().last(), Some(&ServerEvent::Closed { connection: 0, by: Side::Client }));
}

#[tokio::test]
async fn a_failed_command_closes_as_recorded() {
    let mut failing = greeted(WITH_KEYS);
    failing.push(1000.0, Direction::Out, RecordedEvent::text("Sync Virtual Machines"));
    failing.push(1040.0, Direction::In, RecordedEvent::Close { code: Some(1000), reason: String::new() });
    let server = serve(WITH_KEYS, vec![failing], AT_ONCE).await;
    let mut ws = Ws::connect(server.local_addr(), Some("k")).await;
    ws.send("Sync Virtual Machines").await;
    ws.expect_texts(&["Connected!", "Connected 2!", "close 1000 ", "gone"]).await;
}

#[tokio::test]
async fn a_session_can_end_right_after_its_key() {
    let refused = Recording::new(WITH_ENVELOPES, Protocol::Websocket, RecordedKey::Sent)
        .with(0.0, Direction::Out, RecordedEvent::get("/ws"))
        .with(1.0, Direction::In, RecordedEvent::Response { status: 101, headers: Headers::new() })
        .with(2.0, Direction::Out, RecordedEvent::text(r#"{"api_key":"<api-key>"}"#))
        .with(
            3.0,
            Direction::In,
            RecordedEvent::Close { code: Some(1001), reason: "Session ended".to_owned() },
        );
    let dir = tempfile::tempdir().unwrap();
    for (name, recording) in [("ws/connect", greeted(WITH_ENVELOPES)), ("fail/down", refused)] {
        let path = dir.path().join(format!("{name}.ndjson"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, recording.to_ndjson()).unwrap();
    }
    for (uses, first) in [(vec!["fail/down".to_owned()], "close 1001 Session ended"), (vec![], "Connected!")]
    {
        let library = proxbox_bridge::replay::Library::load(dir.path(), &uses).unwrap();
        let server = replayed(library, AT_ONCE).await;
        let mut ws = Ws::connect(server.local_addr(), Some("k")).await;
        ws.expect_texts(&[first]).await;
    }
}

#[tokio::test]
async fn a_key_that_is_missing_or_wrong_closes_4001_and_counts_over_http_too() {
    let recordings = vec![sync_nodes(WITH_KEYS), json(WITH_KEYS, RecordedKey::Sent, "/version", 200, "{}")];
    let server =
        serve(WITH_KEYS, recordings, ReplayOptions { api_key: Some("right".to_owned()), ..AT_ONCE }).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.send("Sync Nodes").await;
    ws.expect_texts(&["close 4001 API key required. 4 attempts remaining.", "gone"]).await;

    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.0.send(Message::Binary(r#"{"api_key":"right"}"#.into())).await.unwrap();
    ws.expect_texts(&["close 4001 API key required. 3 attempts remaining."]).await;

    let mut ws = Ws::connect(server.local_addr(), Some("wrong")).await;
    ws.expect_texts(&["close 4001 Invalid API key. 2 attempts remaining."]).await;

    let reply = request(server.local_addr(), "GET", "/version", &[]).await;
    assert_eq!(reply.text(), r#"{"detail":"API key required. 1 attempts remaining."}"#);
    let mut ws = Ws::connect(server.local_addr(), Some("right")).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_young_backend_says_little_and_waits_ten_seconds_for_a_key() {
    let server = serve(
        WITH_ENVELOPES,
        vec![greeted(WITH_ENVELOPES)],
        ReplayOptions { api_key: Some("right".to_owned()), ..recorded() },
    )
    .await;
    let start = Instant::now();
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.expect_texts(&["close 4001 Authentication failed"]).await;
    assert!((10_000..10_100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let mut ws = Ws::connect(server.local_addr(), Some("wrong")).await;
    ws.expect_texts(&["close 4001 Authentication failed"]).await;
}

#[tokio::test]
async fn an_envelope_gets_the_recorded_answers_with_its_own_run_id() {
    let run = |command: &str, id: &str| format!("{{\"command\":\"{command}\",\"run_id\":\"{id}\"}}");
    let enveloped = command(
        greeted(WITH_ENVELOPES),
        &run("Sync Nodes", "recorded-1"),
        &[r#"{"message":"Sync Nodes","run_id":"recorded-1"}"#],
    );
    let machines = command(greeted(WITH_ENVELOPES), "Sync Virtual Machines", &["words", DEVICE]);
    let nope = command(
        greeted(WITH_ENVELOPES),
        &run("Nope", "recorded-2"),
        &[r#"{"message":"Invalid sync command","run_id":"recorded-2"}"#],
    );
    let bare = command(greeted(WITH_ENVELOPES), "bogus", &["Invalid sync command"]);
    let server = serve(WITH_ENVELOPES, vec![enveloped, machines, nope, bare], AT_ONCE).await;
    let mut ws = Ws::connect(server.local_addr(), Some("k")).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
    ws.send(&run("Sync Nodes", "my-run-id-1")).await;
    ws.send(&run("Sync Virtual Machines", "my-run-id-2")).await;
    ws.send(&run("Unheard Of", "my-run-id-3")).await;
    ws.send(&run("Sync Nodes", "short")).await;
    ws.expect_texts(&[
        r#"{"message":"Sync Nodes","run_id":"my-run-id-1"}"#,
        r#"{"message":"words","run_id":"my-run-id-2"}"#,
        &DEVICE.replace("}}", r#"},"run_id":"my-run-id-2"}"#),
        r#"{"message":"Invalid sync command","run_id":"my-run-id-3"}"#,
        "Invalid sync command",
    ])
    .await;
}

#[tokio::test]
async fn an_envelope_is_an_unknown_text_where_none_was_recorded() {
    let server = serve(OLD, vec![sync_nodes(OLD)], AT_ONCE).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    let envelope = r#"{"command":"Sync Nodes","run_id":"12345678"}"#;
    ws.send(envelope).await;
    ws.expect_texts(&["Connected!", "Connected 2!"]).await;
    let (echo, invalid) = (format!("Received message: {envelope}"), format!("Invalid command: {envelope}"));
    ws.expect_texts(&[&echo, &invalid, VALID]).await;
}

#[tokio::test]
async fn a_binary_command_closes_the_socket() {
    let server = serve(OLD, vec![sync_nodes(OLD)], AT_ONCE).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.0.send(Message::Binary("Sync Nodes".into())).await.unwrap();
    ws.expect_texts(&["Connected!", "Connected 2!", "close 1000 ", "gone"]).await;
}

#[tokio::test]
async fn a_refused_handshake_is_an_answer_with_a_body() {
    let body = r#"{"message":"Could not return Proxmox Sessions"}"#;
    let refused = Recording::new(OLD, Protocol::Websocket, RecordedKey::None)
        .with(0.0, Direction::Out, RecordedEvent::get("/ws"))
        .with(9.0, Direction::In, RecordedEvent::Response { status: 400, headers: Headers::new() })
        .with(9.0, Direction::In, RecordedEvent::Body(body.into()))
        .with(9.0, Direction::In, RecordedEvent::End);
    let server = serve(OLD, vec![refused], AT_ONCE).await;
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let reply = request(server.local_addr(), "GET", "/ws?type=qemu", &upgrade).await;
    assert_eq!((reply.status, reply.text()), (400, body));
    let reply = request(server.local_addr(), "GET", "/elsewhere", &upgrade).await;
    assert_eq!((reply.status, reply.text()), (403, ""));
    assert_eq!(request(server.local_addr(), "GET", "/ws", &[]).await.status, 404);

    // A client that would go on using the connection cannot.
    within_deadline(send(server.local_addr(), "GET", "/ws", &upgrade).await.rest()).await;
    let entries = server.log().wait_for(|it| it.len() == 12).await;
    assert!(entries.contains(&ServerEvent::Closed { connection: 3, by: Side::Server }), "{entries:?}");
}

#[tokio::test]
async fn a_socket_is_cut_without_a_close_frame() {
    let server = serve(OLD, vec![sync_nodes(OLD)], ReplayOptions { cut_after: Some(3), ..AT_ONCE }).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.send("Sync Nodes").await;
    ws.expect_texts(&["Connected!", "Connected 2!", "Sync Nodes", "gone"]).await;
}

#[tokio::test]
async fn a_stalled_socket_answers_nothing_but_pings() {
    let server = serve(OLD, vec![sync_nodes(OLD)], ReplayOptions { stall_after: Some(3), ..AT_ONCE }).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.send("Sync Nodes").await;
    ws.expect_texts(&["Connected!", "Connected 2!", "Sync Nodes"]).await;
    ws.expect_only_a_pong().await;
    ws.expect_only_a_pong().await;
}

#[tokio::test]
async fn garbage_on_a_socket_is_followed_by_the_rest() {
    let server = serve(OLD, vec![sync_nodes(OLD)], ReplayOptions { garbage_after: Some(3), ..AT_ONCE }).await;
    let mut ws = Ws::connect(server.local_addr(), None).await;
    ws.send("Sync Nodes").await;
    ws.expect_texts(&["Connected!", "Connected 2!", "Sync Nodes"]).await;
    let (no_json, odd_json) = (ws.receive().await, ws.receive().await);
    assert!(serde_json::from_str::<serde_json::Value>(&no_json).is_err());
    assert!(serde_json::from_str::<serde_json::Value>(&odd_json).is_ok());
    ws.expect_texts(&[DEVICE, DEVICE_END]).await;
}
