//! Each recorded backend, recorded again by the bridge: the recordings replay to the golden streams.

use std::path::Path;
use std::sync::Arc;

use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::record::TrafficRecorder;
use proxbox_bridge::recording::Recording;
use proxbox_bridge::replay::Library;
use proxbox_bridge::server::Server;

use crate::golden;
use crate::support::bridge::{BridgedReplay, TestBridge, WITH_KEY, config, fast, recordings, replayed};

/// Records, in `folder`, the exchanges of `kinds` with the replayed backend.
pub(super) async fn record(folder: &Path, version: &str, uses: &[&str], channel: &str, kinds: &[Kind]) {
    let backend = replayed(recordings(version, uses), fast()).await;
    let recorder = TrafficRecorder::new(folder, [""; 0]).unwrap();
    let config = config(backend.local_addr(), &[("backend.channel", channel)]);
    let server = Server::bind(config).await.unwrap().observed_by(Arc::new(recorder.clone()));
    let bridge = TestBridge::serve(server);
    for kind in kinds {
        bridge.get(kind.row().stream_path, &WITH_KEY).await;
    }
    bridge.stop().await;
    assert!(recorder.finish().unwrap().http > 0);
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let problems = Recording::problems(&std::fs::read(&file).unwrap());
        assert!(problems.is_empty(), "{}: {problems:?}", file.display());
    }
}

async fn check(version: &str, uses: &[&str], channel: &str, kinds: &[Kind]) {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), version, uses, channel, kinds).await;
    for kind in kinds {
        let library = Library::load(folder.path(), &[]).unwrap();
        let pair = BridgedReplay::start(library, fast(), &[("backend.channel", channel)]).await;
        let answer = pair.front.get(kind.row().stream_path, &WITH_KEY).await;
        golden::assert_snapshot(&golden::name(version, uses, channel, *kind), &answer);
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_every_recorded_backend() {
    let kinds: Vec<Kind> = golden::documented_kinds().collect();
    for (version, channel) in golden::DOCUMENTED {
        check(version, &[], channel, &kinds).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_recorded_failure() {
    for (version, name, channel, kind, _) in golden::FAILURES {
        check(version, &[name], channel, &[*kind]).await;
    }
}
