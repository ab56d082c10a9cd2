//! `/ws`, as used by old pages and WebSocket clients.

use futures::{SinkExt, StreamExt};
use proxbox_bridge::replay::ReplayOptions;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::bridge::{BridgedReplay, KEY, TestBridge, config, fast, recordings, replayed};
use crate::support::manual::ManualBackend;

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";
const DEFAULT_MODE: &str = "0.0.30.post2-default-mode";

/// A page that has opened `/ws`.
pub(super) struct Page(WebSocketStream<TcpStream>);

/// What a page received until its socket closed.
struct PageTranscript {
    frames: Vec<Value>,
    words: Vec<String>,
    close: (u16, String),
}

impl Page {
    pub(super) async fn open(front: &TestBridge, target: &str) -> Self {
        let stream = TcpStream::connect(front.address).await.unwrap();
        let url = format!("ws://{}{target}", front.address);
        Self(client_async(url, stream).await.unwrap().0)
    }

    async fn greeted(front: &TestBridge) -> Self {
        let mut page = Self::open(front, "/ws").await;
        page.greeting().await;
        page
    }

    pub(super) async fn greeting(&mut self) {
        assert_eq!(self.text().await, "Connected!");
        assert_eq!(self.text().await, "Connected 2!");
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn text(&mut self) -> String {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The frames up to the first that is `last`.
    pub(super) async fn frames_to(&mut self, last: Value) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let text = self.text().await;
            let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
            frames.push(frame);
            if frames.last() == Some(&last) {
                return frames;
            }
        }
    }

    /// The code and the reason with which its socket is closed.
    pub(super) async fn closed(self) -> (u16, String) {
        self.rest().await.close
    }

    async fn rest(mut self) -> PageTranscript {
        let mut received =
            PageTranscript { frames: Vec::new(), words: Vec::new(), close: (0, String::new()) };
        while let Some(message) = self.0.next().await {
            match message {
                Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                    Ok(frame) => received.frames.push(frame),
                    Err(_) => received.words.push(text.to_string()),
                },
                Ok(Message::Close(Some(frame))) => {
                    received.close = (frame.code.into(), frame.reason.to_string());
                }
                Ok(_) | Err(_) => {}
            }
        }
        received
    }
}

fn names<'a>(frames: &'a [Value], object: &str) -> Vec<&'a str> {
    let of = frames.iter().filter(|frame| frame["object"] == object && frame["data"]["completed"] == false);
    of.map(|frame| frame["data"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_old_page_in_front_of_an_old_backend_gets_its_rows_and_the_job_is_one_like_any_other() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let mut page = Page::greeted(&pair.front).await;
    page.say("Full Update Sync").await;
    let frames = page.frames_to(json!({ "object": "full-update", "end": true, "status": "completed" })).await;
    assert_eq!(names(&frames, "device"), ["pve1", "pve2", "pve3"]);
    assert_eq!(names(&frames, "virtual_machine").len(), 12);
    let place = |wanted: Value| frames.iter().position(|frame| *frame == wanted).unwrap();
    let ends = ["device", "virtual_machine"].map(|object| place(json!({ "object": object, "end": true })));
    assert!(ends[0] < ends[1], "{ends:?}");
    let synced = |frame: &&Value| frame["data"]["increment_count"] == "yes";
    assert_eq!(frames.iter().filter(synced).count(), 12);
    // And the next command on the same socket.
    page.say("Sync Nodes").await;
    assert_eq!(page.text().await, "Sync Nodes");
    page.frames_to(json!({ "object": "device", "end": true })).await;

    let jobs = pair.front.admin_request("GET", "/jobs", &[]).await.json()["results"].clone();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    assert_eq!((&jobs[1]["kind"], &jobs[1]["outcome"]), (&json!("full-update"), &json!("completed")));
    assert_eq!(jobs[1]["channels"], json!(["websocket"]));
    let cleared = pair.log().requests().iter().filter(|(_, target)| target == "/clear-cache").count();
    assert_eq!(cleared, 2, "0.0.2 looks in NetBox again for each sync");
}

#[tokio::test(start_paused = true)]
async fn an_old_page_in_front_of_a_backend_without_ws_gets_the_same_from_its_streams() {
    let recorded = recordings("0.0.11.post2", &[]);
    let pair = BridgedReplay::start(recorded, fast(), &[("backend.channel", "native")]).await;
    let mut page = Page::open(&pair.front, "/ws").await;
    page.say(&json!({ "api_key": KEY }).to_string()).await;
    page.greeting().await;
    page.say("Sync Virtual Machines").await;
    let frames = page.frames_to(json!({ "object": "virtual_machine", "end": true })).await;
    assert_eq!(names(&frames, "virtual_machine").len(), 12);
    for frame in frames.iter().filter(|frame| frame.get("data").is_some()) {
        for cell in
            ["sync_status", "netbox_id", "name", "status", "device", "cluster", "vm_interfaces", "role"]
        {
            assert!(frame["data"].get(cell).is_some(), "{cell} in {frame}");
        }
    }
    let received = pair.log().requests();
    assert!(received.iter().all(|(_, target)| !target.starts_with("/ws")), "{received:?}");
    let jobs = pair.front.admin_request("GET", "/jobs", &[]).await.json()["results"].clone();
    assert_eq!(jobs[0]["channels"], json!(["native"]));
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_over_the_socket_of_the_backend_where_it_has_one_and_natively_where_it_is_denied() {
    for (version, uses, channel, outcome) in
        [(NEW, &[][..], "websocket", "completed"), (DEFAULT_MODE, &[][..], "native", "errored")]
    {
        let pair = BridgedReplay::start(recordings(version, uses), fast(), &[]).await;
        let mut page = Page::open(&pair.front, "/ws?proxmox_endpoint_ids=1%2C2").await;
        page.say(&json!({ "api_key": KEY }).to_string()).await;
        page.greeting().await;
        page.say("Sync Nodes").await;
        let received = page.rest_or(json!({ "object": "device", "end": true })).await;
        let jobs = pair.front.admin_request("GET", "/jobs", &[]).await.json()["results"].clone();
        assert_eq!(jobs[0]["channels"], json!([channel]), "{version}: {received:?}");
        assert_eq!(jobs[0]["outcome"], outcome, "{version}");
        assert_eq!(jobs[0]["query"], "proxmox_endpoint_ids=1%2C2");
    }
}

impl Page {
    /// Everything up to `last`, or to the end of the socket.
    async fn rest_or(&mut self, last: Value) -> Vec<String> {
        let mut received = Vec::new();
        while let Some(Ok(message)) = self.0.next().await {
            received.push(message.to_string());
            if serde_json::from_str::<Value>(received.last().unwrap()).is_ok_and(|frame| frame == last) {
                break;
            }
        }
        received
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_says_so_and_ends_the_socket_as_backends_do() {
    let pair = BridgedReplay::start(recordings(OLD, &["fail/ws-proxmox-down"]), fast(), &[]).await;
    let mut page = Page::greeted(&pair.front).await;
    page.say("Sync Virtual Machines").await;
    let received = page.rest().await;
    assert_eq!(received.close.0, 1000);
    assert!(received.close.1.contains("Could not return Proxmox Sessions"), "{:?}", received.close);
    assert!(received.words.iter().any(|word| word.starts_with("Error: ")), "{:?}", received.words);
    assert!(received.frames.iter().all(|frame| frame.get("end").is_none()), "{:?}", received.frames);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_today_gets_its_run_id_in_every_frame_and_an_end_that_says_how_it_went() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[("backend.channel", "native")]).await;
    let mut page = Page::open(&pair.front, "/ws").await;
    page.say(&json!({ "api_key": KEY }).to_string()).await;
    page.greeting().await;
    let run = "0123456789abcdef0123456789abcdef";
    page.say(&json!({ "command": "Full Update", "run_id": run }).to_string()).await;
    let mut last = Value::Null;
    while last["object"] != "full-update" {
        last = serde_json::from_str(&page.text().await).unwrap();
        assert_eq!(last["run_id"], run);
    }
    assert_eq!((&last["end"], &last["status"]), (&json!(true), &json!("completed")), "{last}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_command_is_answered_and_harmless() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let mut page = Page::greeted(&pair.front).await;
    page.say("<img src=x onerror=alert(1)>").await;
    assert_eq!(page.text().await, "Invalid command: &lt;img src=x onerror=alert(1)&gt;");
    assert!(page.text().await.starts_with("Valid commands: "));
    page.0.send(Message::binary(&b"Sync Nodes"[..])).await.unwrap();
    assert_eq!(page.rest().await.close.0, 1003);

    let mut page = Page::greeted(&pair.front).await;
    page.say(&"x".repeat(70_000)).await;
    assert_eq!(page.rest().await.close.0, 1009);
    assert_eq!(pair.front.admin_request("GET", "/jobs", &[]).await.json()["results"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_refused_with_4001_and_the_backend_gets_one_request() {
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let pair = BridgedReplay::start(recordings(NEW, &[]), options, &[]).await;
    for target in ["/ws", "/ws?x=1", "/%77s"] {
        let mut page = Page::open(&pair.front, target).await;
        page.say(&json!({ "api_key": "x".repeat(32) }).to_string()).await;
        let received = page.rest().await;
        assert_eq!(received.close.0, 4001);
        assert!(received.close.1.contains("Invalid API key."), "{:?}", received.close);
    }
    let tried = pair.log().requests().iter().filter(|(_, target)| target == "/version").count();
    assert_eq!(tried, 1);
    // A command in its place is no attempt either.
    let mut page = Page::open(&pair.front, "/ws").await;
    page.say("Sync Nodes").await;
    assert_eq!(page.rest().await.close, (4001, "API key required.".to_owned()));
    let page = Page::open(&pair.front, "/ws").await;
    assert_eq!(page.rest().await.close, (4001, "API key required.".to_owned()), "nor is silence");
    let tried = pair.log().requests().iter().filter(|(_, target)| target == "/version").count();
    assert_eq!(tried, 1);
}

#[tokio::test(start_paused = true)]
async fn the_bridges_own_key_serves_clients_that_know_of_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let options = ReplayOptions { api_key: Some(KEY.to_owned()), ..fast() };
    let settings = [("backend.api_key_file", file.to_str().unwrap())];
    let pair = BridgedReplay::start(recordings(NEW, &[]), options, &settings).await;
    for first in [None, Some(json!({ "api_key": "" }).to_string())] {
        let mut page = Page::greeted(&pair.front).await;
        if let Some(first) = first {
            page.say(&first).await;
        }
        page.say("Sync Nodes").await;
        assert_eq!(page.text().await, "Sync Nodes");
        page.frames_to(json!({ "object": "device", "end": true })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn commands_wait_for_each_other_and_two_pages_watch_one_job() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let mut page = Page::open(&front, "/ws").await;
    page.say(&json!({ "api_key": KEY }).to_string()).await;
    page.greeting().await;
    page.say("Sync Nodes").await;
    page.say("Sync Virtual Machines").await;
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "completed").await;
    assert_eq!(page.text().await, "Sync Nodes");
    let frame: Value = serde_json::from_str(&page.text().await).unwrap();
    assert_eq!(frame["data"]["name"], "pve1");
    assert!(backend.is_idle(), "the second command waits");

    let mut other = Page::open(&front, "/ws").await;
    other.say(&json!({ "api_key": KEY }).to_string()).await;
    other.greeting().await;
    other.say("Sync Nodes").await;
    assert_eq!(other.text().await, "Sync Nodes");
    let frame: Value = serde_json::from_str(&other.text().await).unwrap();
    assert_eq!(frame["data"]["name"], "pve1");
    stream.complete().await;
    for page in [&mut page, &mut other] {
        page.frames_to(json!({ "object": "device", "end": true })).await;
    }
    let second = backend.next_stream().await;
    assert!(second.target.starts_with("/virtualization/virtual-machines/create/stream"));
    second.complete().await;
    page.frames_to(json!({ "object": "virtual_machine", "end": true })).await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_leaves_does_not_end_the_sync_at_once_and_a_bridge_that_stops_says_goodbye() {
    let (mut backend, mut front) = ManualBackend::bridged(&[]).await;
    let mut page = Page::open(&front, "/ws").await;
    page.say(&json!({ "api_key": KEY }).to_string()).await;
    page.greeting().await;
    page.say("Sync Nodes").await;
    let mut stream = backend.next_stream().await;
    drop(page);
    let mut again = Page::open(&front, "/ws").await;
    again.say(&json!({ "api_key": KEY }).to_string()).await;
    again.greeting().await;
    again.say("Sync Nodes").await;
    stream.device("pve1", "completed").await;
    assert_eq!(again.text().await, "Sync Nodes");
    assert!(again.text().await.contains("pve1"));
    assert!(backend.is_idle());

    let mut idle = Page::open(&front, "/ws").await;
    idle.say(&json!({ "api_key": KEY }).to_string()).await;
    idle.greeting().await;
    front.request_stop();
    front.request_immediate_stop();
    assert_eq!(idle.rest().await.close.0, 1001);
    let received = again.rest().await;
    assert!(received.words.iter().any(|word| word.contains("stop")), "{:?}", received.words);
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_refused_with_a_status_where_there_is_no_backend_and_where_it_is_none() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nowhere.local_addr().unwrap();
    drop(nowhere);
    let front = TestBridge::start(config(address, &[])).await;
    let stream = TcpStream::connect(front.address).await.unwrap();
    let refused = client_async(format!("ws://{}/ws", front.address), stream).await.unwrap_err();
    let Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));

    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let socket = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(pair.front.get("/ws", &socket).await.status, 426);
    assert_eq!(pair.front.get("/ws", &[]).await.status, 404, "and without an upgrade it is the backend's");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_pinged_and_dropped_when_it_gives_no_sign_of_life() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let mut page = Page::greeted(&pair.front).await;
    assert!(matches!(page.0.next().await.unwrap().unwrap(), Message::Ping(_)));
    // Pings are answered while reading, so a client that does not read answers none.
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    let left = async { while page.0.next().await.is_some_and(|message| message.is_ok()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), left).await.expect("it was dropped");
}

#[tokio::test(start_paused = true)]
async fn deeply_nested_or_broken_text_is_no_command_and_breaks_nothing() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let mut page = Page::greeted(&pair.front).await;
    for hostile in ["[".repeat(30_000), format!("{}1", "{\"a\":".repeat(5_000)), "{\"command\":".to_owned()] {
        page.say(&hostile).await;
        assert!(page.text().await.starts_with("Invalid command: "));
        assert!(page.text().await.starts_with("Valid commands: "));
    }
    let body = format!("{{\"api_key\":{}", "[".repeat(10_000));
    let request = format!(
        "POST /auth/register-key HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer =
        crate::support::bridge::Client::raw(pair.front.address, request.as_bytes()).await.answer().await;
    assert_eq!(answer.status, 422);
}

#[tokio::test(start_paused = true)]
async fn a_page_whose_backend_is_gone_from_the_configuration_is_sent_away_at_its_next_command() {
    let old = replayed(recordings(OLD, &[]), fast()).await;
    let other = replayed(recordings(OLD, &[]), fast()).await;
    let address = other.local_addr();
    let front = TestBridge::reloading(config(old.local_addr(), &[]), move || Ok(config(address, &[]))).await;
    let mut page = Page::greeted(&front).await;
    assert_eq!(front.admin_request("POST", "/reload", &[]).await.status, 200);
    page.say("Sync Nodes").await;
    assert_eq!(page.closed().await.0, 1001);
    assert!(old.log().texts().is_empty() && other.log().texts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bridge_in_front_of_a_bridge_can_drive_it() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let settings = [("backend.channel", "websocket")];
    let outer = TestBridge::start(config(pair.front.address, &settings)).await;
    let answer = outer.get("/virtualization/virtual-machines/create/stream", &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let events = crate::support::session::stream::read(&answer.body);
    let last = events.last().unwrap();
    assert_eq!(last.data["ok"], true, "{}", last.data);
    assert_eq!(last.data["result"]["objects"]["virtual_machine"]["completed"], 12);
    assert!(pair.log().texts().contains(&"Sync Virtual Machines".to_owned()));
}
