//! Readers that stop reading, and a bridge process that is suspended for a while.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::RunningBridge;
use crate::support::bridge::{Client, DEVICES, poll_until};
use crate::support::manual::{ManualBackend, ManualStream};

#[path = "../bench/memory/backend.rs"]
mod flood;

/// How many readers stall.
const STALLED: usize = 32;
/// What one of them may hold, in bytes.
const OF_ONE: f64 = 128.0 * 1024.0;

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_little_memory_and_the_limit_of_all_logs_counts_it() {
    let backend = flood::start(30_000, flood::Events::Progress);
    let bridge = RunningBridge::start(backend, &[("limits.client_write", "2s")]);
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        readers.push(Client::with_little_room(bridge.process.address, flood::PATH).await);
    }
    bridge.wait_for_value("watchers{surface=\"stream\"}", STALLED as f64).await;
    // Each of them holds all that it can before it is dropped, perhaps before the sync has completed.
    let most = Cell::new(0.0);
    poll_until(async || {
        most.set(bridge.value("log_bytes").await.max(most.get()));
        let stalled = bridge.value("watchers_dropped_total{reason=\"stalled\"}").await;
        (stalled == STALLED as f64).then_some(())
    })
    .await;
    bridge.wait_for_value("watchers{surface=\"stream\"}", 0.0).await;
    bridge.wait_for_value("frames_total{channel=\"native\",type=\"complete\"}", 1.0).await;
    let held = most.get() - bridge.value("log_bytes").await;
    assert!(held > 0.0, "what the readers hold is not counted");
    assert!(held <= STALLED as f64 * OF_ONE, "{} bytes for each reader", held / STALLED as f64);
}

/// A sync of which the client has read the step of `pve1`.
async fn started(bridge: &RunningBridge, backend: &mut ManualBackend) -> (Client, ManualStream) {
    let mut client = Client::send(bridge.process.address, "GET", DEVICES, &[]).await;
    let mut stream = backend.next_stream().await;
    assert_eq!(client.head().await.0, 200);
    stream.device("pve1", "completed").await;
    client.read_until("pve1").await;
    (client, stream)
}

#[tokio::test]
async fn a_sync_outlives_a_pause_of_the_process_that_is_longer_than_the_idle_limit() {
    let mut backend = ManualBackend::start().await;
    let limit = Duration::from_secs(2);
    let bridge = RunningBridge::start(backend.address, &[("limits.idle", "2s")]);
    let (mut client, mut stream) = started(&bridge, &mut backend).await;
    bridge.process.pause();
    let paused = Instant::now();
    stream.device("pve2", "completed").await;
    stream.complete().await;
    // The limit is over before the bridge can read that.
    sleep_until(paused + limit + limit / 4).await;
    bridge.process.resume();
    let rest = String::from_utf8(client.answer_body().await).unwrap();
    assert!(rest.contains("Synced device pve2") && rest.contains("{\"ok\": true"), "{rest}");
}

#[tokio::test]
async fn a_late_failure_that_came_during_a_pause_is_read_though_the_wait_for_it_is_over() {
    let mut backend = ManualBackend::start().await;
    let limit = Duration::from_secs(2);
    let bridge =
        RunningBridge::start(backend.address, &[("limits.settle", "2s"), ("limits.settle_total", "2s")]);
    let (mut client, mut stream) = started(&bridge, &mut backend).await;
    stream.send_complete().await;
    bridge.wait_for_value("backend_frames_total{channel=\"native\",type=\"complete\"}", 1.0).await;
    // It is not silent: the total limit ends the wait.
    stream.device("pve2", "completed").await;
    client.read_until("pve2").await;
    bridge.process.pause();
    let paused = Instant::now();
    stream.fail().await;
    sleep_until(paused + limit).await;
    bridge.process.resume();
    let rest = String::from_utf8(client.answer_body().await).unwrap();
    assert!(rest.contains("{\"ok\": false"), "{rest}");
}
