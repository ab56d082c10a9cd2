//! The preparation of a job: what it reads from its backend, and the channels it plans.

use http::Method;
use serde_json::json;

use crate::support::bridge::{BridgedReplay, DEVICES, FULL_UPDATE, MACHINES, WITH_KEY, fast, recordings};
use crate::support::scripted::{answer, bridged};

const EVENT_STREAM: [(&str, &str); 1] = [("content-type", "text/event-stream")];

/// A stream that completes after `frames`.
fn completed(frames: &str) -> String {
    format!("{frames}event: complete\ndata: {{\"ok\": true, \"message\": \"m\"}}\n\n")
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_drives_several_stages_is_recorded_once() {
    let (backend, front) = bridged(&[("backend.channel", "native")], |request| async move {
        match (request.method(), request.uri().path()) {
            (&Method::HEAD, DEVICES | MACHINES) => answer(405, &[("allow", "GET")], ""),
            (&Method::GET, DEVICES | MACHINES) => answer(200, &EVENT_STREAM, &completed("")),
            (_, "/version") => answer(200, &[], r#"{"version":"0.0.4"}"#),
            _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
        }
    })
    .await;
    assert_eq!(front.get(FULL_UPDATE, &WITH_KEY).await.status, 200);
    let requests = backend.requests();
    let ran = |path| requests.iter().any(|asked| asked.method == "GET" && asked.target.starts_with(path));
    assert!(ran(DEVICES) && ran(MACHINES), "{requests:?}");
    let jobs = front.admin_request("GET", "/jobs", &[]).await.json();
    assert_eq!(jobs["results"][0]["channels"], json!(["native"]));
}

#[tokio::test(start_paused = true)]
async fn only_the_cache_of_0_0_2_is_cleared_before_a_sync_over_a_websocket() {
    for (version, expected) in [("0.0.2.post1", true), ("0.0.11.post2", false)] {
        let settings = [("backend.channel", "websocket")];
        let pair = BridgedReplay::start(recordings(version, &[]), fast(), &settings).await;
        assert_eq!(pair.front.get(DEVICES, &WITH_KEY).await.status, 200);
        let requests = pair.log().requests();
        let is_cleared = requests.iter().any(|(_, target)| target == "/clear-cache");
        assert_eq!(is_cleared, expected, "{version}: {requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn objects_are_counted_by_the_release_for_a_client_without_a_key_too() {
    const BACKUPS: &str = "/virtualization/virtual-machines/backups/all/create/stream";
    let frames = concat!(
        "event: step\ndata: {\"step\": \"sync\", \"status\": \"progress\", \"message\": \"m\", \"payload\": ",
        "{\"step\": \"backups\", \"status\": \"completed\", \"message\": \"m\", ",
        "\"result\": {\"reconciled\": 5, \"failed_tasks\": 0, \"deleted\": 0}}}\n\n",
    );
    let (_backend, front) = bridged(&[], move |request| async move {
        match request.uri().path() {
            "/health" => answer(200, &[], "{}"),
            "/version" => answer(200, &[], r#"{"version":"0.0.7.post1"}"#),
            BACKUPS => answer(200, &EVENT_STREAM, &completed(frames)),
            _ => answer(404, &[], r#"{"detail":"Not Found"}"#),
        }
    })
    .await;
    assert_eq!(front.get(BACKUPS, &[]).await.status, 200);
    let jobs = front.admin_request("GET", "/jobs", &[]).await.json();
    assert_eq!(jobs["results"][0]["data"]["counts"]["backup"]["completed"], 5, "{jobs}");
}
