//! The last success of each kind on each backend, how old it is, and what is known of a backend after a restart.

use serde_json::Value;

use super::health::health;
use super::{OLD, RunningBridge, ledger};
use crate::support::bridge::{DEVICES, FULL_UPDATE, fast, recordings, replayed};

/// The only backend in `/backends`.
async fn backend(bridge: &RunningBridge) -> Value {
    bridge.admin("GET", "/backends").await.json()["results"][0].clone()
}

/// The entry of `name` in the kinds of a backend.
fn kind(backend: &Value, name: &str) -> Value {
    let kinds = backend["kinds"].as_array().unwrap();
    kinds.iter().find(|kind| kind["kind"] == name).unwrap().clone()
}

#[tokio::test]
async fn the_last_success_the_version_and_the_channels_are_known_after_a_restart_without_the_backend() {
    let replay = replayed(recordings(OLD, &[]), fast()).await;
    let address = replay.local_addr();
    let bridge = RunningBridge::start(address, &[]);
    assert_eq!(kind(&backend(&bridge).await, "full-update")["last_success"], Value::Null);
    assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
    let job = bridge.admin("GET", "/jobs").await.json()["results"][0].clone();
    let before = backend(&bridge).await;
    let success = kind(&before, "full-update")["last_success"].clone();
    assert_eq!((&success["job"], &success["time"]), (&job["id"], &job["completed"]));
    assert_eq!((&success["failed"], &success["unconfirmed"]), (&0.into(), &3.into()));
    assert!(success["age_seconds"].as_u64().unwrap() < 60, "{success}");
    assert_eq!(kind(&before, "devices")["last_success"], Value::Null);

    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    assert_eq!(process.ended().0, Some(0));
    drop(replay);
    let bridge = RunningBridge::with_data(data, address, &[]);
    let after = backend(&bridge).await;
    assert!(after["problem"].is_string(), "{after}");
    for field in ["version", "dialect", "detected", "plugin_job"] {
        assert_eq!((field, &after[field]), (field, &before[field]));
        assert_ne!((field, &after[field]), (field, &Value::Null));
    }
    for name in ["full-update", "devices", "storage"] {
        let [mut before, mut after] = [&before, &after].map(|backend| kind(backend, name));
        for kind in [&mut before, &mut after] {
            assert_eq!(kind["known"], true, "{kind}");
            // It passes.
            kind["last_success"]["age_seconds"] = Value::Null;
        }
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn a_bridge_without_a_fresh_sync_is_not_ready_if_one_is_required() {
    let replay = replayed(recordings(OLD, &[]), fast()).await;
    let name = replay.local_addr().to_string();
    let bridge = RunningBridge::start(replay.local_addr(), &[]);
    let ready = async |query: &str| {
        let answer = bridge.admin("GET", &format!("/readyz?{query}")).await;
        (answer.status, answer.json())
    };
    let (status, answer) = ready("fresh=full-update:26h").await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(
        answer["reasons"],
        serde_json::json!([format!("{name}: no full-update sync has completed yet")])
    );
    assert_eq!((&answer["ready"], &answer["freshness"][0]["last_success"]), (&false.into(), &Value::Null));

    assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
    let narrowed = format!("fresh=full-update:26h&backend={name}");
    for query in ["fresh=full-update:26h", "backend&fresh=full-update:1h%2030m", &narrowed] {
        let (status, answer) = ready(query).await;
        assert_eq!((status, &answer["reasons"]), (200, &serde_json::json!([])), "{query}");
        let fresh = &answer["freshness"][0];
        assert_eq!((&fresh["backend"], &fresh["kind"]), (&name.as_str().into(), &"full-update".into()));
        assert_eq!(
            (&fresh["fresh"], answer.get("backends").is_some()),
            (&true.into(), query.starts_with("backend"))
        );
    }
    let (status, answer) = ready("fresh=full-update:26h&fresh=devices:26h&fresh=full-update:0s").await;
    assert_eq!(status, 503);
    let fresh: Vec<bool> =
        answer["freshness"].as_array().unwrap().iter().map(|one| one["fresh"].as_bool().unwrap()).collect();
    assert_eq!(fresh, [true, false, false]);
    let reason = answer["reasons"][1].as_str().unwrap();
    let last = answer["freshness"][2]["last_success"].as_str().unwrap();
    assert!(
        reason.starts_with(&format!("{name}: no full-update sync has completed since {last}, ")),
        "{reason}"
    );
    assert!(reason.ends_with(" ago (limit: 0s)"), "{reason}");
    for (query, expected) in [
        ("fresh=cats:26h", "devices"),
        ("fresh=devices:soon", "full-update:26h"),
        ("fresh=devices", "full-update:26h"),
        ("fresh=", "full-update:26h"),
        ("fresh=devices:1h&backend=other", name.as_str()),
        ("backend=other", name.as_str()),
        (&format!("backend={name}"), "fresh"),
        ("stale=devices:1h", "backend and fresh"),
        ("backend&backend", "twice"),
    ] {
        let (status, answer) = ready(query).await;
        assert!(status == 400 && answer["detail"].as_str().unwrap().contains(expected), "{query}: {answer}");
    }

    let admin = bridge.process.admin.to_string();
    let (code, said, _) = health(admin.clone(), &["--fresh", "full-update=26h"]).await;
    assert!(code == Some(0) && said.contains("\"freshness\""), "{said}");
    let (code, said, _) = health(admin.clone(), &["--fresh", "devices=1h 30m"]).await;
    assert!(code == Some(1) && said.contains("no devices sync has completed yet"), "{said}");
    let (code, said, _) = health(admin.clone(), &["--fresh", "full-update=26h", "--nagios"]).await;
    assert_eq!(code, Some(0));
    let start = format!("PROXBOX-BRIDGE OK - ready; {name} full-update ");
    assert!(said.starts_with(&start) && said.ends_with("s;;93600;0\n"), "{said}");
    let (code, said, _) = health(admin.clone(), &["--fresh", "devices=1h", "--nagios"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("PROXBOX-BRIDGE CRITICAL") && said.contains("=U;;3600;0"), "{said}");
    let one = ["--fresh", "full-update=26h", "--backend", &name];
    let (code, said, why) = health(admin.clone(), &one).await;
    assert!(code == Some(0) && said.contains("\"freshness\""), "{said}{why}");
    let other = ["--fresh", "devices=1h", "--backend", "other", "--nagios"];
    let (code, said, _) = health(admin.clone(), &other).await;
    assert!(code == Some(3) && said.starts_with("PROXBOX-BRIDGE UNKNOWN"), "{said}");
    assert!(said.contains(&name), "the names are listed: {said}");
    for usage in [&["--fresh", "cats=1h", "--nagios"][..], &["--backend", &name, "--nagios"]] {
        let (code, said, _) = health(admin.clone(), usage).await;
        assert!(code == Some(3) && said.starts_with("PROXBOX-BRIDGE UNKNOWN - error: "), "{said}");
    }
    let (code, said, _) = health("127.0.0.1:1".to_owned(), &["--nagios"]).await;
    assert!(code == Some(2) && said.starts_with("PROXBOX-BRIDGE CRITICAL - cannot connect"), "{said}");
    let serve =
        std::process::Command::new(env!("CARGO_BIN_EXE_proxbox-bridge")).args(["serve", "--nagios"]).output();
    assert_eq!(serve.unwrap().status.code(), Some(64), "only health has that state");
    let (code, _, why) = health("127.0.0.1:1".to_owned(), &["--fresh", "cats=1h"]).await;
    assert!(code == Some(64) && why.contains("virtual-machines"), "{why}");
}

#[tokio::test]
async fn a_sync_that_ended_in_the_future_is_not_fresh() {
    let replay = replayed(recordings(OLD, &[]), fast()).await;
    let bridge = RunningBridge::start(replay.local_addr(), &[]);
    assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
    let RunningBridge { process, _data: data } = bridge;
    process.terminate();
    assert_eq!(process.ended().0, Some(0));
    // The clock was ahead by a day.
    let file = rusqlite::Connection::open(ledger(data.path()).join("ledger.sqlite3")).unwrap();
    assert_eq!(file.execute("UPDATE last_success SET at = at + 86400000", []).unwrap(), 1);
    drop(file);
    let bridge = RunningBridge::with_data(data, replay.local_addr(), &[]);
    let answer = bridge.admin("GET", "/readyz?fresh=full-update:26h").await;
    let (status, answer) = (answer.status, answer.json());
    assert_eq!((status, &answer["freshness"][0]["age_seconds"]), (503, &Value::Null));
    let reason = answer["reasons"][0].as_str().unwrap();
    assert!(reason.ends_with("which is in the future: check the clock"), "{reason}");
}

#[tokio::test]
async fn the_last_success_and_the_version_outlive_a_ledger_that_is_deleted() {
    let replay = replayed(recordings(OLD, &[]), fast()).await;
    let address = replay.local_addr();
    let bridge = RunningBridge::start(address, &[]);
    assert_eq!(bridge.get(FULL_UPDATE).await.status, 200);
    let before = backend(&bridge).await;
    let restarted = |bridge: RunningBridge| {
        let RunningBridge { process, _data: data } = bridge;
        process.terminate();
        assert_eq!(process.ended().0, Some(0));
        RunningBridge::with_data(data, address, &[])
    };
    // The job is in the ledger alone.
    let bridge = restarted(bridge);
    std::fs::remove_file(ledger(bridge._data.path()).join("ledger.sqlite3")).unwrap();
    // The next write notices it.
    bridge.get(DEVICES).await;
    bridge.wait_for_value("ledger_files_lost_total", 1.0).await;
    bridge.wait_for_value("ledger_available", 1.0).await;
    drop(replay);
    let bridge = restarted(bridge);
    assert_eq!(bridge.admin("GET", "/jobs?kind=full-update").await.json()["results"], serde_json::json!([]));
    let after = backend(&bridge).await;
    for field in ["version", "dialect", "detected"] {
        assert_eq!((field, &after[field]), (field, &before[field]));
        assert_ne!((field, &after[field]), (field, &Value::Null));
    }
    let [after, before] =
        [after, before].map(|backend| kind(&backend, "full-update")["last_success"].clone());
    for field in ["job", "time", "unconfirmed"] {
        assert_eq!(after[field], before[field]);
    }
}
