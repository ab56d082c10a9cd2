//! `/events` and `/backends`, which the live page uses.

use serde_json::Value;

use super::OLD;
use crate::support::bridge::{BridgedReplay, Client, DEVICES, TOKEN, TestBridge, config, fast, recordings};
use crate::support::manual::ManualBackend;

/// A client of `/events`.
struct EventsReader {
    client: Client,
    text: String,
}

impl EventsReader {
    async fn open(front: &TestBridge, headers: &[(&str, &str)]) -> Self {
        let mut client = Client::send(front.admin, "GET", "/events", headers).await;
        let (status, headers) = client.head().await;
        assert_eq!(status, 200);
        let kind = ("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned());
        assert!(headers.contains(&kind), "{headers:?}");
        Self { client, text: String::new() }
    }

    /// The next event, or `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let frame = frame.to_owned();
                self.text = rest.to_owned();
                let Some((name, data)) = frame.split_once('\n') else { continue };
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                return Some((name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()));
            }
            let chunk = self.client.chunk().await;
            if chunk.is_empty() {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_reported_from_its_beginning_to_its_end_and_not_again() {
    let (mut backend, mut front) = ManualBackend::bridged(&[]).await;
    let mut reader = EventsReader::open(&front, &[]).await;
    let (name, bridge) = reader.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &bridge["ready"], &bridge["can_act"]),
        ("bridge", &true.into(), &false.into())
    );
    let mut client = front.open(DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    stream.device("pve1", "progress").await;
    assert_eq!(client.head().await.0, 200);
    let seen = loop {
        let (name, job) = reader.next().await.unwrap();
        assert_eq!((name.as_str(), &job["kind"]), ("job", &"devices".into()));
        if job["data"]["counts"]["device"]["seen"] == 1 {
            break job;
        }
    };
    assert_eq!(seen["status"], "running");
    // A client that connects in between gets the current state.
    let mut late = EventsReader::open(&front, &[("Authorization", &format!("Bearer {TOKEN}"))]).await;
    assert_eq!(late.next().await.unwrap().1["can_act"], true);
    assert_eq!(late.next().await.unwrap().1["id"], seen["id"]);
    stream.device("pve1", "completed").await;
    stream.complete().await;
    let ended = loop {
        let (_, job) = reader.next().await.unwrap();
        if job["status"] == "completed" {
            break job;
        }
    };
    assert_eq!(ended["data"]["counts"]["device"]["completed"], 1);
    // A later client gets the bridge alone; the job is not sent again.
    let mut last = EventsReader::open(&front, &[]).await;
    assert_eq!(last.next().await.unwrap().0, "bridge");
    front.request_stop();
    for reader in [&mut reader, &mut last] {
        while let Some((name, object)) = reader.next().await {
            assert_eq!((name.as_str(), &object["draining"]), ("bridge", &true.into()));
        }
    }
    front.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_backends_are_listed_with_the_channel_of_each_kind_and_nothing_is_started() {
    let BridgedReplay { backend, front } = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let list = front.admin_request("GET", "/backends", &[]).await.json();
    let old = &list["results"][0];
    assert_eq!(
        (&old["version"], &old["dialect"], &old["up"]),
        (&"0.0.2".into(), &"0.0.2".into(), &true.into())
    );
    let kind = |name: &str| {
        let kinds = old["kinds"].as_array().unwrap().iter();
        kinds.clone().find(|kind| kind["kind"] == name).unwrap().clone()
    };
    assert_eq!(kind("devices")["channel"], "websocket");
    assert_eq!((&kind("storage")["channel"], &kind("storage")["known"]), (&Value::Null, &true.into()));
    assert_eq!(kind("full-update")["without"][0], "storage");
    assert_eq!(kind("full-update")["queue_path"], "/sync/full-update/");
    assert_eq!(kind("sdn")["queue_path"], "/sync/sdn/", "the plugin cannot queue it, an operator can");
    assert_eq!((&old["listen"], &old["tls"]), (&front.address.to_string().into(), &false.into()));
    assert_eq!(old["hosts"], serde_json::json!([]));
    assert!(backend.log().requests().iter().all(|(_, target)| !target.contains("/ws")));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_requires_a_key_is_probed_only_at_health_without_one() {
    let BridgedReplay { backend, front } =
        BridgedReplay::start(recordings("0.0.30.post2", &[]), fast(), &[]).await;
    let list = front.admin_request("GET", "/backends", &[]).await.json();
    let young = &list["results"][0];
    assert_eq!((&young["version"], &young["kinds"][0]["known"]), (&Value::Null, &false.into()));
    assert!(young["problem"].as_str().unwrap().contains("backend.api_key_file"), "{young}");
    let received = backend.log().requests();
    assert!(received.iter().all(|(_, target)| target.contains("/health")), "{received:?}");
}

/// The job as it was sent before its end.
async fn ending(mut reader: EventsReader) -> Option<Value> {
    let mut last = None;
    while let Some((name, object)) = reader.next().await {
        if name == "job" {
            last = Some(object);
        }
    }
    last
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_is_reported_although_it_is_evicted_at_once_or_the_bridge_stops() {
    let (mut backend, mut front) = ManualBackend::bridged(&[("limits.replay", "0s")]).await;
    let mut reader = EventsReader::open(&front, &[]).await;
    let mut client = front.open(DEVICES, &[]).await;
    let stream = backend.next_stream().await;
    assert_eq!(client.head().await.0, 200);
    while reader.next().await.unwrap().1["status"] != "running" {}
    stream.complete().await;
    while reader.next().await.unwrap().1["status"] != "completed" {}

    let mut client = front.open(DEVICES, &[]).await;
    let _held = backend.next_stream().await;
    assert_eq!(client.head().await.0, 200);
    while reader.next().await.unwrap().1["status"] != "running" {}
    front.request_stop();
    front.request_immediate_stop();
    let (last, ()) = tokio::join!(ending(reader), front.stop());
    assert_eq!(last.unwrap()["outcome"], "interrupted");
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_let_it_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let backend = ManualBackend::start().await;
    let write = |token: &str| std::fs::write(&file, token).unwrap();
    let address = backend.address;
    let path = file.to_str().unwrap().to_owned();
    let read = move || config(address, &[("admin_token_file", &path), ("admin_listen", "0.0.0.0:0")]);
    write("the-first-token-of-all");
    let mut front = TestBridge::reloading(read(), move || Ok(read())).await;
    front.admin = ([127, 0, 0, 1], front.admin.port()).into();
    let first = [("Authorization", "Bearer the-first-token-of-all")];
    let mut reader = EventsReader::open(&front, &first).await;
    assert_eq!(reader.next().await.unwrap().1["can_act"], true);
    write("the-second-token-of-all");
    let reloaded = Client::send(front.admin, "POST", "/reload", &first).await.answer().await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert!(reader.next().await.is_none_or(|(name, _)| name == "bridge"));
    let again = Client::send(front.admin, "GET", "/events", &first).await.answer().await;
    assert_eq!(again.status, 401);
}
