//! Many streams at once, and a recorded one.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::{AFTERWARDS, micros, open};
use crate::Bench;
use crate::client::StreamClient;
use crate::source::{ADDRESSES, Plan, STREAM};
use crate::system::{Replay, Running, System};

/// The microseconds of processor time for a frame of 1,000 streams with one frame a second each. Each stream is a job.
pub fn streams(bench: &Bench, system: System) -> Vec<f64> {
    const STREAMS: usize = 1_000;
    const MEASURED: Duration = Duration::from_secs(3);
    let running = Running::start(&bench.programs, system, bench.native.port, ADDRESSES);
    bench.native.plan(Plan {
        frames: usize::MAX,
        batch: 1,
        every: Some(Duration::from_secs(1)),
        ..Plan::default()
    });
    bench.runtime.block_on(async {
        let open_one = async |number: usize| {
            let host = format!("b{}", number % usize::from(ADDRESSES) + 1);
            let target = format!("{STREAM}?stream={number}");
            let mut stream = open(&running, &host, &target).await;
            assert!(stream.read_frames(1).await.unwrap(), "{system:?}: {}", stream.tail());
            stream
        };
        let opened = join_all((0..STREAMS).map(open_one)).await;
        let read = join_all(opened.into_iter().map(async |mut stream| {
            while stream.read().await.unwrap() {
                if stream.has_ended() {
                    break;
                }
            }
        }));
        let measured = async {
            let (cpu, began) = (running.cpu(), Instant::now());
            sleep(MEASURED).await;
            let each = micros(running.cpu() - cpu) / began.elapsed().as_secs_f64() / STREAMS as f64;
            bench.native.finish();
            each
        };
        vec![join(measured, read).await.0]
    })
}

/// Keeps the load from sleeping. To wake a client is work of the system that writes to it, and how often that is needed
/// depends on how many clients there are.
async fn stay_awake() -> Infallible {
    loop {
        yield_now().await;
    }
}

/// The microseconds of processor time for each frame that a watcher receives. The backend writes `writes` times 16 frames,
/// one each `every`. The end of a stream does not count: fewer frames would have a larger share of it.
pub fn watchers(bench: &Bench, system: System, count: usize, writes: usize, every: Duration) -> f64 {
    let running = Running::start(&bench.programs, system, bench.native.port, 1);
    // The first watchers wait for the others.
    let frames = writes * Plan::default().batch;
    bench.native.plan(Plan { frames, every: Some(every), waits: true, holds: true, ..Plan::default() });
    bench.runtime.block_on(async {
        let mut watchers = Vec::new();
        for _ in 0..count {
            let mut watcher = open(&running, "bridge", STREAM).await;
            // The head of the response.
            assert!(watcher.read().await.unwrap());
            watchers.push(watcher);
        }
        sleep(AFTERWARDS).await;
        let cpu = running.cpu();
        bench.native.begin();
        let read = join_all(watchers.iter_mut().map(|watcher| watcher.read_frames(frames)));
        let read = tokio::select! {
            read = read => read,
            never = stay_awake() => match never {},
        };
        assert!(read.into_iter().all(|read| read.unwrap()), "{system:?}: frames are missing");
        sleep(AFTERWARDS).await;
        let used = running.cpu() - cpu;
        bench.native.finish();
        join_all(watchers.iter_mut().map(async |watcher| {
            while !watcher.has_ended() && watcher.read().await.unwrap() {}
            assert!(watcher.is_ok(), "{system:?}: {}", watcher.tail());
        }))
        .await;
        micros(used) / (frames * count) as f64
    })
}

/// The fields of a request with a key, of which the recorded backend accepts any.
const KEY: &str = "Host: bridge\r\nX-Proxbox-API-Key: 0123456789abcdef\r\n";

/// The seconds of a recorded full update at its own speed, direct and through a system.
pub fn recorded(bench: &Bench, system: System) -> Vec<f64> {
    let replays = [(); 2].map(|()| Replay::start(&bench.programs));
    let running = Running::start(&bench.programs, system, replays[1].port, 1);
    let read = async |address| {
        let began = Instant::now();
        let mut client = StreamClient::open_with(address, "/full-update/stream", KEY).await.unwrap();
        while !client.has_ended() && client.read().await.unwrap() {}
        assert!(client.has_ended(), "{system:?}: {}", client.tail());
        began.elapsed().as_secs_f64()
    };
    let direct = ([127, 0, 0, 1], replays[0].port).into();
    let (direct, through) = bench.runtime.block_on(async { join(read(direct), read(running.address)).await });
    vec![direct, through]
}

/// How many of 500 streams end without the final event of the backend, if SIGTERM comes while they run and the
/// backend ends a second later.
pub fn terminated(bench: &Bench, system: System) -> Vec<f64> {
    const STREAMS: usize = 500;
    let running = Running::start(&bench.programs, system, bench.native.port, ADDRESSES);
    bench.native.plan(Plan {
        frames: usize::MAX,
        batch: 1,
        every: Some(Duration::from_millis(100)),
        ..Plan::default()
    });
    let cut = bench.runtime.block_on(async {
        let read = join_all((0..STREAMS).map(async |number| {
            let host = format!("b{}", number % usize::from(ADDRESSES) + 1);
            let target = format!("{STREAM}?stream={}", number / 2);
            let mut stream = open(&running, &host, &target).await;
            let _ = stream.read_frames(1).await;
            while !stream.has_ended() && stream.read().await.unwrap_or(false) {}
            !stream.is_ok()
        }));
        let terminate = async {
            sleep(Duration::from_secs(2)).await;
            running.terminate();
            sleep(Duration::from_secs(1)).await;
            bench.native.finish();
        };
        join(read, terminate).await.0
    });
    vec![cut.into_iter().filter(|cut| *cut).count() as f64]
}
