//! Paths that plugins request and old backends lack.

use serde_json::{Value, json};

use crate::support::bridge::{
    Answer, BridgedReplay, Client, KEY, TestBridge, WITH_KEY, config, data_dir, fast, recordings,
};
use crate::support::scripted::{Backend, answer, bridged};

const OLD: &str = "0.0.2.post1";
const NEW: &str = "0.0.30.post2";
const STATUS: &str = "/auth/bootstrap-status";
const KEYS: &str = "/auth/keys";

/// What plugin 0.0.25 and later want of the two reads before every job: see whether it would begin.
fn preflight(status: &Answer, keys: &Answer) -> bool {
    let (status, keys_body) = (status.json(), keys.json());
    let flag = |name: &str| status[name].as_bool();
    let is_settled = flag("needs_bootstrap") == Some(false) && flag("has_db_keys") == Some(true);
    let items = keys_body["keys"].as_array();
    let is_item = |item: &Value| {
        item["id"].as_u64().is_some_and(|id| id > 0)
            && item["label"].is_string()
            && item["is_active"].is_boolean()
            && item["created_at"].is_number()
    };
    keys.status == 200
        && is_settled
        && items.is_some_and(|items| !items.is_empty() && items.iter().all(is_item))
}

async fn register(front: &TestBridge, key: &str) -> Answer {
    let body = json!({ "api_key": key, "label": "netbox-proxbox-plugin" }).to_string();
    let request = format!(
        "POST /auth/register-key HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::raw(front.address, request.as_bytes()).await.answer().await
}

#[tokio::test(start_paused = true)]
async fn a_plugin_of_today_can_begin_a_sync_on_a_backend_that_knows_no_keys() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    let health = pair.front.get("/health", &[]).await;
    assert_eq!((health.status, health.json()), (200, json!({ "status": "ready", "init_ok": true })));
    let status = pair.front.get(STATUS, &[]).await;
    assert_eq!(status.json(), json!({ "needs_bootstrap": true, "has_db_keys": false }));
    assert_eq!(pair.front.get(KEYS, &WITH_KEY).await.status, 401);

    assert_eq!(register(&pair.front, "short").await.status, 400);
    let registered = register(&pair.front, KEY).await;
    assert_eq!((registered.status, registered.detail().as_str()), (201, "API key registered."));
    let again = register(&pair.front, &"x".repeat(32)).await;
    assert_eq!((again.status, again.detail().as_str()), (409, "An API key is already configured."));

    let status = pair.front.get(STATUS, &[]).await;
    let keys = pair.front.get(KEYS, &WITH_KEY).await;
    assert!(preflight(&status, &keys), "{} {}", status.text(), keys.text());
    let wrong = pair.front.get(KEYS, &[("X-Proxbox-API-Key", &"x".repeat(32))]).await;
    assert_eq!((wrong.status, wrong.detail().as_str()), (401, "Invalid API key."));
    assert_eq!(pair.front.get(KEYS, &[]).await.detail(), "API key required.");
    let stream = pair.front.get("/dcim/devices/create/stream", &WITH_KEY).await;
    assert_eq!(stream.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_registered_outlives_the_bridge_and_a_configured_one_needs_no_registration() {
    let folder = tempfile::tempdir().unwrap();
    let data = [data_dir(&folder)];
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &data).await;
    assert_eq!(register(&pair.front, KEY).await.status, 201);
    let address = pair.backend.local_addr();
    pair.front.stop().await;
    let again = TestBridge::start(config(address, &data)).await;
    assert_eq!(again.get(KEYS, &WITH_KEY).await.status, 200);
    again.stop().await;

    let file = folder.path().join("key");
    std::fs::write(&file, "configured-key-configured-key-configured").unwrap();
    let front = TestBridge::start(config(address, &[("shims.api_key_file", file.to_str().unwrap())])).await;
    let keys = front.get(KEYS, &[("X-Proxbox-API-Key", "configured-key-configured-key-configured")]).await;
    assert!(preflight(&front.get(STATUS, &[]).await, &keys), "{}", keys.text());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_them_answers_for_itself() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    for target in ["/health", STATUS] {
        let direct = Client::send(pair.backend.local_addr(), "GET", target, &[]).await.answer().await;
        let through = pair.front.get(target, &[]).await;
        assert_eq!((through.status, through.text()), (direct.status, direct.text()), "{target}");
    }
    let direct = Client::send(pair.backend.local_addr(), "GET", KEYS, &[]).await.answer().await;
    assert_eq!(pair.front.get(KEYS, &[]).await.status, direct.status);
}

#[tokio::test(start_paused = true)]
async fn health_is_503_when_the_backend_is_down_and_never_502() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let front = TestBridge::start(config(nowhere, &[])).await;
    let health = front.get("/health", &[]).await;
    assert_eq!((health.status, health.header("retry-after")), (503, Some("30")));
    let body = health.json();
    assert_eq!((&body["status"], &body["init_ok"]), (&json!("unready"), &json!(false)));
    assert!(body["reason"].as_str().unwrap().contains(&nowhere.to_string()), "{body}");
    assert!(body["message"].is_string() && body["detail"].is_string());

    for status in [502, 504] {
        let backend =
            Backend::start(move |_| async move { answer(status, &[], "<html>Bad Gateway</html>") }).await;
        let front = TestBridge::start(config(backend.address, &[])).await;
        assert_eq!(front.get("/health", &[]).await.status, 503);
    }
    let unready = r#"{"status":"unready","init_ok":true,"reason":"NetBox denied"}"#;
    let (_backend, front) = bridged(&[], move |_| async move { answer(503, &[], unready) }).await;
    let health = front.get("/health", &[]).await;
    assert_eq!((health.status, health.text()), (503, unready), "its own word stands");
}

#[tokio::test(start_paused = true)]
async fn a_busy_backend_without_a_health_path_is_ready_and_another_is_503_in_time() {
    let hangs = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for (status, expected) in [(404, 200), (200, 503)] {
        let busy = std::sync::Arc::clone(&hangs);
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        let (_backend, front) = bridged(&[], move |_| {
            let is_busy = busy.load(std::sync::atomic::Ordering::Relaxed);
            async move {
                if is_busy {
                    std::future::pending::<()>().await;
                }
                answer(status, &[], "{}")
            }
        })
        .await;
        assert_eq!(front.get("/health", &[]).await.status, 200);
        hangs.store(true, std::sync::atomic::Ordering::Relaxed);
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        let began = tokio::time::Instant::now();
        let health = front.get("/health", &[]).await;
        assert_eq!(health.status, expected, "{}", health.text());
        assert!(began.elapsed().as_secs() <= 10);
    }
}

#[tokio::test(start_paused = true)]
async fn health_does_not_wait_for_another_question_that_hangs() {
    let (hanging, mut hangs) = tokio::sync::mpsc::unbounded_channel();
    let (_backend, front) = bridged(&[], move |request| {
        let hanging = hanging.clone();
        async move {
            if request.uri().path() == "/version" {
                hanging.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            answer(404, &[], "{\"detail\":\"Not Found\"}")
        }
    })
    .await;
    let _sync = front.open("/dcim/devices/create/stream", &WITH_KEY).await;
    hangs.recv().await.unwrap();
    let began = tokio::time::Instant::now();
    let health = front.get("/health", &[]).await;
    assert_eq!((health.status, began.elapsed().as_secs()), (200, 0), "{}", health.text());
}

#[tokio::test(start_paused = true)]
async fn each_of_them_can_be_turned_off() {
    let settings = [("shims.health", "off"), ("shims.auth", "off"), ("shims.aliases", "off")];
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &settings).await;
    for target in ["/health", STATUS, KEYS, "/cluster/replication/stream", "/cluster/backup/stream"] {
        assert_eq!(pair.front.get(target, &[]).await.status, 404, "{target}");
    }
    assert_eq!(register(&pair.front, KEY).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn the_two_paths_that_no_backend_has_are_those_that_were_meant() {
    let pair = BridgedReplay::start(recordings(NEW, &[]), fast(), &[]).await;
    for (alias, meant) in [
        ("/cluster/replication/stream", "/proxmox/replication/stream"),
        ("/cluster/backup/stream", "/proxmox/cluster/backup/stream"),
    ] {
        pair.front.get(alias, &WITH_KEY).await;
        let received = pair.log().requests();
        assert!(received.iter().any(|(_, target)| target == meant), "{alias}: {received:?}");
        assert!(received.iter().all(|(_, target)| target != alias), "{received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_backend_would_not_know_either_is_405() {
    let pair = BridgedReplay::start(recordings(OLD, &[]), fast(), &[]).await;
    for (method, target, allowed) in
        [("POST", STATUS, "GET"), ("DELETE", KEYS, "GET"), ("GET", "/auth/register-key", "POST")]
    {
        let answer = Client::send(pair.front.address, method, target, &[]).await.answer().await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {target}");
    }
}
