//! Memory, and the start.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use super::open;
use crate::Bench;
use crate::source::{IDLE, Plan, STREAM};
use crate::system::{Running, System};

const KIB: f64 = 1024.0;
/// For the allocator to return what it does not need.
const SETTLED: Duration = Duration::from_millis(1_500);

/// The KiB of one more watcher of a running job.
pub fn watcher(bench: &Bench, system: System) -> Vec<f64> {
    const WATCHERS: usize = 400;
    let running = Running::start(&bench.programs, system, bench.native.port, 1);
    let slow =
        Plan { frames: usize::MAX, batch: 1, every: Some(Duration::from_millis(100)), ..Plan::default() };
    bench.native.plan(slow);
    bench.runtime.block_on(async {
        let mut first = open(&running, "bridge", STREAM).await;
        first.read_frames(1).await.unwrap();
        sleep(SETTLED).await;
        let before = running.resident();
        let mut watchers = join_all((0..WATCHERS).map(|_| open(&running, "bridge", STREAM))).await;
        join_all(watchers.iter_mut().map(|watcher| watcher.read_frames(2))).await;
        sleep(SETTLED).await;
        let each = (running.resident() - before) / WATCHERS as f64 / KIB;
        bench.native.finish();
        vec![each]
    })
}

/// The KiB of a watcher that reads nothing, beside one that reads 60,000 frames, almost twice the log of the job.
pub fn stalled(bench: &Bench, system: System) -> Vec<f64> {
    const STALLED: usize = 50;
    let resident = |count| {
        let running = Running::start(&bench.programs, system, bench.native.port, 1);
        bench.native.plan(Plan { frames: 60_000, holds: true, follows: true, ..Plan::default() });
        bench.runtime.block_on(async {
            let mut reader = open(&running, "bridge", STREAM).await.fast();
            let _stalled = join_all((0..count).map(|_| open(&running, "bridge", STREAM))).await;
            while reader.frames < 59_000 && reader.read().await.unwrap() {
                bench.native.received(reader.frames);
            }
            sleep(SETTLED).await;
            let resident = running.resident();
            bench.native.finish();
            resident
        })
    };
    vec![(resident(STALLED) - resident(0)) / STALLED as f64 / KIB]
}

/// The KiB of an event stream that is forwarded and sends nothing.
pub fn idle_stream(bench: &Bench, system: System) -> Vec<f64> {
    const STREAMS: usize = 5_000;
    let running = Running::start(&bench.programs, system, bench.native.port, 1);
    bench.native.plan(Plan::default());
    bench.runtime.block_on(async {
        sleep(SETTLED).await;
        let before = running.resident();
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = open(&running, "bridge", IDLE).await;
            while !stream.tail().contains(": idle") {
                assert!(stream.read().await.unwrap(), "{}", stream.tail());
            }
            streams.push(stream.small());
        }
        sleep(SETTLED).await;
        let each = (running.resident() - before) / STREAMS as f64 / KIB;
        bench.native.finish();
        vec![each]
    })
}

/// The milliseconds from the start until the first connection, and the resident MiB a second later.
pub fn start(bench: &Bench, system: System) -> Vec<f64> {
    let running = Running::start(&bench.programs, system, bench.native.port, 1);
    bench.runtime.block_on(async { sleep(Duration::from_secs(1)).await });
    vec![running.started_in.as_secs_f64() * 1e3, running.resident() / KIB / KIB]
}
