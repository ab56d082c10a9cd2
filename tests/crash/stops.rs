//! A bridge that is asked to stop, and a second one on the same data directory.

use std::path::Path;

use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::replay::{ReplayHandle, ReplayOptions, Speed};

use super::reader::CrashReader;
use crate::support::bridge::{Client, DEVICES, MACHINES, WITH_KEY, recorded, recordings, replayed};
use crate::support::process::{Process, refused};

/// A backend that begins every sync and ends none.
async fn stalled() -> ReplayHandle {
    let options = ReplayOptions { speed: Speed::Max, stall_after: Some(3), ..ReplayOptions::default() };
    replayed(recordings("0.0.11.post2", &[]), options).await
}

async fn started(bridge: &Process) -> CrashReader {
    let mut reader = CrashReader::open(bridge.address, MACHINES).await;
    assert!(reader.read_until(|reader| reader.events().len() > 1).await);
    reader
}

/// Reads to the end, which must be a failed and a clean one.
async fn interrupted(mut reader: CrashReader) {
    reader.drain().await;
    assert!(reader.has_ended(), "no end of the body");
    let events = reader.events();
    let [.., (error, said), (complete, verdict)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((error.as_str(), complete.as_str()), ("error", "complete"), "{events:?}");
    assert!(said["error"].as_str().unwrap().contains("The bridge is stopping"), "{said}");
    assert_eq!(verdict["ok"], false);
}

async fn recorded_as_stopped(data: &std::path::Path) {
    let records = recorded(data).await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    let end = record.end.as_ref().unwrap();
    assert_eq!((end.outcome, end.cause), (Outcome::Interrupted, Some(Cause::Stopping)), "{record:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_does_not_start_on_an_unusable_data_dir_unless_configured_to() {
    let (backend, nowhere) = (stalled().await, Path::new("/proc/nope"));
    let (status, said) = refused(nowhere, backend.local_addr());
    assert_eq!(status.code(), Some(78), "{said}");
    for part in ["/proc/nope", "let it be a directory", "jobs.without_ledger = \"continue\""] {
        assert!(said.contains(part), "{said}");
    }
    let settings = [("jobs.without_ledger", "continue")];
    let bridge = Process::start(nowhere, backend.local_addr(), &settings);
    bridge.terminate();
    assert_eq!(bridge.ended().0, Some(0));

    // One that worked and is damaged is no reason: what it is asked for may be done all the same.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ledger.sqlite3"), [b'x'; 5000]).unwrap();
    let bridge = Process::start(folder.path(), backend.local_addr(), &[]);
    bridge.terminate();
    assert_eq!(bridge.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_bridge_on_the_same_data_says_what_to_do_and_does_not_serve() {
    let folder = tempfile::tempdir().unwrap();
    let backend = stalled().await;
    let first = Process::start(folder.path(), backend.local_addr(), &[]);
    let reader = started(&first).await;
    let (status, said) = refused(folder.path(), backend.local_addr());
    assert_eq!(status.code(), Some(1), "{said}");
    for part in [folder.path().to_str().unwrap(), "another bridge", "stop it, or set another data_dir"] {
        assert!(said.contains(part), "{said}");
    }
    // The running bridge is not affected, and a killed one holds no lock.
    assert_eq!(reader.reported_ok(), None);
    first.kill();
    let second = Process::start(folder.path(), backend.local_addr(), &[]);
    second.terminate();
    assert_eq!(second.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_may_be_at_work_for_a_bridge_that_was_killed_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let backend = stalled().await;
    let first = Process::start(folder.path(), backend.local_addr(), &[]);
    let reader = started(&first).await;
    let job = reader.job().unwrap();
    first.kill();
    let second = Process::start(folder.path(), backend.local_addr(), &[]);
    let mut next = CrashReader::open(second.address, DEVICES).await;
    assert!(next.read_until(|next| !next.events().is_empty()).await);
    let (_, said) = &next.events()[0];
    let said = said["message"].as_str().unwrap();
    let waiting = format!("Waiting: the backend may still be at work on job {job}, up to ");
    assert!(said.starts_with(&waiting) && said.ends_with(" s more."), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_outlasts_the_drain_ends_as_interrupted_for_its_reader_and_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let backend = stalled().await;
    let bridge = Process::start(folder.path(), backend.local_addr(), &[("limits.drain", "100ms")]);
    let reader = started(&bridge).await;
    bridge.terminate();
    interrupted(reader).await;
    let (code, log) = bridge.ended();
    assert_eq!(code, Some(0), "{log}");
    recorded_as_stopped(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_drains_nothing_begins_and_a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let backend = stalled().await;
    let mut bridge = Process::start(folder.path(), backend.local_addr(), &[("limits.drain", "7days")]);
    let reader = started(&bridge).await;
    assert_eq!(Client::send(bridge.admin, "GET", "/readyz", &[]).await.answer().await.status, 200);
    bridge.terminate();
    bridge.read_to("Draining: no new job starts.");
    assert_eq!(Client::send(bridge.admin, "GET", "/readyz", &[]).await.answer().await.status, 503);
    assert_eq!(Client::send(bridge.admin, "GET", "/livez", &[]).await.answer().await.status, 200);
    let key = WITH_KEY;
    let refused = Client::send(bridge.address, "GET", DEVICES, &key).await.answer().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("30")), "{}", refused.text());
    assert_eq!(reader.reported_ok(), None);
    bridge.terminate();
    interrupted(reader).await;
    let (code, log) = bridge.ended();
    assert_eq!(code, Some(0), "{log}");
    recorded_as_stopped(folder.path()).await;
}
