//! Syncs that are queued, joined, refused and cancelled over the API.

use std::path::Path;

use proxbox_bridge::core::domain::kind::SyncEndpoint;
use proxbox_bridge::replay::{ReplayOptions, ServerEvent, Side};
use serde_json::{Value, json};

use super::document::{Api, ids, path};
use super::{NEW, OLD};
use crate::support::bridge::{
    BridgedReplay, Client, DEVICES, KEY, TOKEN, TestBridge, WITH_KEY, config, fast, recordings,
};
use crate::support::session::stream;

/// A backend that is silent after its first events.
fn stalling() -> ReplayOptions {
    ReplayOptions { stall_after: Some(3), ..fast() }
}

#[tokio::test(start_paused = true)]
async fn a_queued_job_runs_to_its_end_without_watchers() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[("jobs.on_disconnect", "cancel")]).await;
    let api = Api::new(&pair.front).await;
    let job = api.start("/sync/full-update/", &[("X-Proxbox-Actor", "anna")]).await;
    assert_eq!(
        (&job["name"], &job["status"], &job["user"], &job["error"]),
        (&json!("Proxbox full update sync"), &json!("pending"), &json!("anna"), &json!(""))
    );
    for unknown in ["started", "completed", "outcome", "cause", "source", "message", "duration_seconds"] {
        assert!(job[unknown].is_null(), "{unknown}: {job}");
    }
    pair.log().wait_until_idle().await;
    let job = api.ended(&job).await;
    assert_eq!((&job["status"], &job["outcome"]), (&json!("completed"), &json!("completed")));
    assert_eq!(
        job["data"]["counts"],
        json!({
            "device": { "seen": 3, "completed": 0, "failed": 0, "unconfirmed": 3 },
            "virtual_machine": { "seen": 12, "completed": 12, "failed": 0, "unconfirmed": 0 },
        })
    );
    assert_eq!((&job["failed_total"], &job["unconfirmed_total"]), (&json!(0), &json!(3)));
    assert_eq!((&job["channels"], &job["kind"]), (&json!(["websocket"]), &json!("full-update")));
}

#[tokio::test(start_paused = true)]
async fn every_path_of_the_plugin_queues_its_kind_with_and_without_the_slash() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[("backend.queue", "100")]).await;
    let api = Api::new(&pair.front).await;
    for (target, kind) in [
        ("/sync/devices", "devices"),
        ("/sync/storage", "storage"),
        ("/sync/virtual-machines", "virtual-machines"),
        ("/sync/virtual-machines/virtual-disks", "virtual-disks"),
        ("/sync/virtual-machines/backups", "backups"),
        ("/sync/virtual-machines/snapshots", "snapshots"),
        ("/sync/full-update", "full-update"),
    ] {
        for target in [target.to_owned(), format!("{target}/")] {
            let job = api.start(&target, &WITH_KEY).await;
            assert_eq!(job["kind"], kind, "{target}");
            assert_eq!(api.ended(&job).await["status"], "completed", "{target}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_want_the_same_get_one_job_and_one_run_however_they_ask() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), stalling(), &[]).await;
    let api = Api::new(&pair.front).await;
    let query = "proxmox_endpoint_ids=1%2C2&&x=%20+";
    let target = format!("/sync/devices/?{query}&bridge.events=all");
    let first = api.start(&target, &WITH_KEY).await;
    let again = api.start(&target, &WITH_KEY).await;
    assert_eq!(first["id"], again["id"]);
    assert_eq!(again["query"], query);
    let mut client = pair.front.open(&format!("{DEVICES}?{query}"), &WITH_KEY).await;
    let (status, headers) = client.head().await;
    let id = ("x-proxbox-bridge-job".to_owned(), first["id"].as_str().unwrap().to_owned());
    assert!(status == 200 && headers.contains(&id), "{headers:?}");

    let fresh = api.request("POST", &format!("{target}&bridge.fresh=1"), &WITH_KEY).await;
    assert_eq!((fresh.status, fresh.header("x-proxbox-bridge-job")), (409, first["id"].as_str()));
    assert!(fresh.detail().contains(first["id"].as_str().unwrap()), "{}", fresh.text());

    let other = api.start("/sync/devices/", &WITH_KEY).await;
    assert_ne!(first["id"], other["id"], "another query is another job");
    assert_eq!(other["status"], "pending");
    let received = pair.log().requests();
    let runs: Vec<_> =
        received.iter().filter(|(method, target)| method == "GET" && target.starts_with(DEVICES)).collect();
    assert_eq!(runs, [&("GET".to_owned(), format!("{DEVICES}?{query}"))]);
    assert_eq!(api.get(path(&first)).await["attaches"], 2);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_and_nothing_is_started() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    for (query, named) in [("bridge.evnets=all", "bridge.events=all"), ("bridge.last_event_id=x.1", "events")]
    {
        let answer = api.request("POST", &format!("/sync/devices/?{query}"), &[]).await;
        assert_eq!(answer.status, 400);
        assert!(answer.detail().contains(named), "{}", answer.text());
    }
    assert_eq!(ids(&api.get("/jobs").await), [""; 0]);
    assert_eq!(pair.log().requests(), []);
}

#[tokio::test(start_paused = true)]
async fn every_kind_can_be_queued_and_a_single_virtual_machine_too() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[("backend.queue", "100")]).await;
    let api = Api::new(&pair.front).await;
    for path in SyncEndpoint::queue_paths() {
        let job = api.start(&path.replace("{vm}", "7"), &WITH_KEY).await;
        let endpoint = SyncEndpoint::from_queue_path(&path.replace("{vm}", "7")).unwrap();
        assert_eq!(job["kind"], endpoint.kind.as_str(), "{path}");
        assert_eq!(job["vm"], json!(endpoint.vm.map(|vm| vm.0)), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_with_a_body_is_refused_instead_of_run_without_it() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    let scope = "{\"proxmox_endpoint_ids\":[1]}";
    for head in ["Content-Length: 28", "Transfer-Encoding: chunked"] {
        let body =
            if head.starts_with('C') { scope.to_owned() } else { format!("1c\r\n{scope}\r\n0\r\n\r\n") };
        let request = format!(
            "POST /sync/devices/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{head}\r\n\r\n{body}"
        );
        let answer = Client::raw(pair.front.admin, request.as_bytes()).await.answer().await;
        assert_eq!(answer.status, 400, "{head}");
        assert!(answer.detail().contains("proxmox_endpoint_ids=1"), "{}", answer.text());
    }
    assert_eq!(ids(&api.get("/jobs").await), [""; 0]);
    api.start("/sync/devices/", &[("Content-Length", "0")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_value_is_told_from_an_unknown_name() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    for (method, target, message) in [
        ("POST", "/sync/devices/?bridge.fresh=2", "Bad parameter."),
        ("POST", "/sync/devices/?bridge.frehs=1", "Unknown parameter."),
        ("POST", "/sync/devices/?bridge.backend=x", "Bad parameter."),
        ("GET", "/jobs?limit=0", "Bad parameter."),
        ("GET", "/jobs?limits=1", "Unknown parameter."),
    ] {
        let answer = api.request(method, target, &[]).await;
        assert_eq!((answer.status, &answer.json()["message"]), (400, &json!(message)), "{target}");
    }
    let stream = pair.front.get(&format!("{DEVICES}?bridge.ids=yes"), &[]).await;
    assert_eq!((stream.status, &stream.json()["message"]), (400, &json!("Bad parameter.")));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_begin_is_503_with_the_reason() {
    let settings = [("backend.queue", "0"), ("limits.drain", "1h")];
    let mut pair = BridgedReplay::start(recordings(OLD, &[]), stalling(), &settings).await;
    let api = Api::new(&pair.front).await;
    let running = api.start("/sync/devices/", &[]).await;
    let answer = api.request("POST", "/sync/full-update/", &[]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.detail().contains("backend.queue"), "{}", answer.text());
    drop(api);

    pair.front.request_stop();
    let api = Api::new(&pair.front).await;
    let answer = loop {
        // The bridge does not report that it has received the cancellation.
        let answer = api.request("POST", "/sync/storage/", &[]).await;
        if answer.detail().contains("stopping") {
            break answer;
        }
    };
    assert_eq!(answer.status, 503);
    assert_eq!(api.start("/sync/devices/", &[]).await["id"], running["id"], "what runs is still found");
    assert_eq!(api.request("GET", "/readyz", &[]).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_lets_its_backend_go_and_says_so() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), stalling(), &[]).await;
    let api = Api::new(&pair.front).await;
    let job = api.start("/sync/devices/", &WITH_KEY).await;
    let waiting = api.start("/sync/storage/", &WITH_KEY).await;
    let mut watcher = api.watch(&job).await;
    let mut body = watcher.chunk().await;
    while !String::from_utf8_lossy(&body).contains("pve1") {
        body.extend(watcher.chunk().await);
    }
    assert_eq!(api.get(path(&job)).await["status"], "running");
    for job in [&waiting, &job] {
        let answer = api.request("DELETE", path(job), &[]).await;
        assert_eq!((answer.status, answer.header("location")), (202, job["url"].as_str()));
    }
    body.extend(watcher.answer_body().await);
    let events = stream::read_with_ids(&body);
    assert!(events[events.len() - 2].text("error").contains("cancelled"), "{events:?}");
    let seen = pair
        .log()
        .wait_for(|entries| {
            entries.iter().any(|entry| matches!(entry, ServerEvent::Closed { by: Side::Client, .. }))
                && entries
                    .iter()
                    .any(|entry| matches!(entry, ServerEvent::Request { target, .. } if target == DEVICES))
        })
        .await;
    let storage = |entry: &ServerEvent| matches!(entry, ServerEvent::Request { target, .. } if target.contains("storage"));
    assert!(!seen.iter().any(storage), "it never came to its turn");
    for job in [&job, &waiting] {
        let ended = api.ended(job).await;
        assert_eq!(
            (&ended["status"], &ended["outcome"], &ended["cause"], &ended["source"]),
            (&json!("errored"), &json!("cancelled"), &json!("cancel_requested"), &json!("client"))
        );
        let again = api.request("DELETE", path(job), &[]).await;
        assert_eq!(again.status, 409);
        assert!(again.detail().ends_with(": cancelled."), "{}", again.text());
    }
    assert!(api.get(path(&waiting)).await["started"].is_null());
}

/// The only job of a bridge that has run it to its end.
async fn only(version: &str, uses: &[&str], target: &str, settings: &[(&str, &str)]) -> Value {
    let pair = BridgedReplay::start(recordings(version, uses), fast(), settings).await;
    let api = Api::new(&pair.front).await;
    let job = api.start(target, &WITH_KEY).await;
    api.ended(&job).await
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_distinguished_from_one_that_could_not_run() {
    let settings = [("backend.object_failures", "any")];
    let failed = only(NEW, &[], "/sync/virtual-machines/", &settings).await;
    assert_eq!((&failed["status"], &failed["cause"]), (&json!("failed"), &json!("objects_failed")));
    assert_eq!(failed["data"]["counts"]["virtual_machine"]["failed"], 6);

    let killed = ["fail/sse-full-update-proxmox-killed-mid-sync"];
    let failed = only("0.0.11.post2", &killed, "/sync/full-update/", &[]).await;
    assert_eq!((&failed["status"], &failed["cause"]), (&json!("failed"), &json!("backend_failed")));
    assert!(failed["error"].as_str().unwrap().contains("Cannot connect to Proxmox API"), "{failed}");
    let objects = failed["data"]["failed_objects"].as_array().unwrap();
    assert_eq!(objects.len(), 10, "the first and the last five of 12");
    assert_eq!(
        objects[0],
        json!({ "object": "virtual_disk app-01.lab.example-disks", "error": "Config not available" })
    );
    let entries = failed["log_entries"].as_array().unwrap();
    let levels: Vec<&str> = entries.iter().map(|entry| entry["level"].as_str().unwrap()).collect();
    let count = |level: &str| levels.iter().filter(|found| **found == level).count();
    assert!(levels[0] == "info" && count("success") > 1 && count("warning") >= 12, "{levels:?}");
    assert_eq!((count("failure"), &levels[levels.len() - 2..]), (2, &["failure", "failure"][..]));

    let errored = only(OLD, &[], "/sync/storage/", &[]).await;
    assert_eq!(
        (&errored["status"], &errored["outcome"], &errored["cause"], &errored["source"]),
        (&json!("errored"), &json!("errored"), &json!("unsupported"), &json!("backend"))
    );
    assert_eq!((&errored["step"], &errored["started"]), (&json!("storage"), &Value::Null));
    assert!(errored["error"].as_str().unwrap().contains("It has: devices"), "{errored}");
}

#[tokio::test(start_paused = true)]
async fn keys_are_distinguished_by_fingerprint_and_never_shown() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    let api = Api::new(&pair.front).await;
    let one = api.start("/sync/devices/", &WITH_KEY).await;
    let other = api.start("/sync/devices/", &[("X-Proxbox-API-Key", "another-key")]).await;
    let none = api.start("/sync/devices/", &[]).await;
    let prints = [&one, &other, &none].map(|job| job["who"]["fingerprint"].clone());
    assert!(prints[0].is_string() && prints[1].is_string() && prints[0] != prints[1], "{prints:?}");
    assert!(prints[2].is_null());
    assert_eq!(one["who"]["address"], "127.0.0.1");
    assert!(!api.request("GET", "/jobs", &[]).await.text().contains(KEY));
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_there_is_what_is_in_memory_and_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let place = |path: &Path| path.join("data").to_str().unwrap().to_owned();
    let settings = [("data_dir", &*place(&file)), ("jobs.without_ledger", "continue")];
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    let api = Api::new(&pair.front).await;
    let job = api.start("/sync/devices/", &[]).await;
    assert_eq!(api.ended(&job).await["status"], "completed");
    let page = api.get("/jobs").await;
    assert_eq!(ids(&page), [job["id"].as_str().unwrap()]);
    assert!(page["warning"].as_str().unwrap().contains("unavailable"), "{page}");
    let someone = "/jobs/01890000-0000-7000-8000-000000000000";
    for (method, target) in
        [("GET", someone.to_owned()), ("GET", format!("{someone}/events")), ("DELETE", someone.to_owned())]
            .into_iter()
            .chain([("GET", format!("{someone}/failed")), ("GET", format!("{}/failed", path(&job)))])
    {
        let answer = api.request(method, &target, &[]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{method} {target}");
    }

    let backend = pair.backend.local_addr();
    let damaged = folder.path().join("data");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("ledger.sqlite3"), [b'x'; 5000]).unwrap();
    let settings = [("data_dir", &*place(folder.path())), ("jobs.without_ledger", "refuse")];
    let front = TestBridge::start(config(backend, &settings)).await;
    let api = Api::new(&front).await;
    let answer = api.request("POST", "/sync/devices/", &[]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.detail().contains("jobs.without_ledger"), "{}", answer.text());
    assert_eq!(api.request("GET", "/readyz", &[]).await.status, 503);
}
