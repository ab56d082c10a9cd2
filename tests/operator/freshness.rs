//! The last success of each kind on each backend, how old it is, and what is known of a backend after a restart.

use serde_json::Value;

use super::{OLD, RunningBridge};
use crate::support::bridge::{FULL_UPDATE, fast, recordings, replayed};

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
