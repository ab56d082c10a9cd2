//! The rows: what is measured.

mod many;
mod memory;
mod requests;

use std::time::{Duration, Instant};

use super::Bench;
use super::client::StreamClient;
use super::source::{Plan, STREAM};
use super::system::{ALL, Running, System};

/// A row: measures that are taken together.
pub struct Row {
    pub name: &'static str,
    pub metrics: &'static [Metric],
    pub systems: &'static [System],
    /// The most rounds.
    pub rounds: usize,
    /// Whether each round starts the system.
    pub is_fresh: bool,
    /// Measures a system. Returns a value for each metric.
    pub measure: fn(&Bench, System) -> Vec<f64>,
}

/// A measure.
pub struct Metric {
    pub title: &'static str,
    pub unit: &'static str,
    pub bar: Bar,
}

/// What the result of the bridge must be: an aim of the project. The `memory` benchmark has higher bounds for idle memory,
/// which catch regressions.
pub enum Bar {
    None,
    /// The largest ratio to nginx, and the aim.
    OfNginx(f64, f64),
    /// The largest value, and the aim.
    AtMost(f64, Option<f64>),
}

const fn metric(title: &'static str, unit: &'static str, bar: Bar) -> Metric {
    Metric { title, unit, bar }
}

/// The CPU row of a stream of frames, or the like.
const fn row(name: &'static str, metrics: &'static [Metric], measure: fn(&Bench, System) -> Vec<f64>) -> Row {
    Row { name, metrics, systems: &ALL, rounds: usize::MAX, is_fresh: false, measure }
}

/// All systems but the slowest.
const PROXIES: [System; 4] = [System::Nginx, System::Haproxy, System::Before, System::Bridge];
const NGINX: [System; 3] = [System::Nginx, System::Before, System::Bridge];
const BRIDGES: [System; 2] = [System::Before, System::Bridge];

/// All rows.
pub static ROWS: &[Row] = &[
    row(
        "native",
        &[metric("CPU a frame, native → SSE, 490 B", "µs", Bar::OfNginx(3.0, 1.5))],
        |bench, system| vec![stream(bench, system, true, 400_000, 0).0],
    ),
    row(
        "ws",
        &[
            metric("CPU a frame, /ws → SSE, 220 B (others: native copy)", "µs", Bar::OfNginx(3.0, 1.5)),
            metric("wall time of 400,000 such frames", "s", Bar::None),
        ],
        |bench, system| {
            let is_native = !system.is_bridge() && system != System::Aiohttp;
            let (cpu, wall) = stream(bench, system, is_native, 400_000, 0);
            vec![cpu, wall * 400_000.0]
        },
    ),
    row("4k", &[metric("CPU a frame, native → SSE, 4 KiB", "µs", Bar::None)], |bench, system| {
        vec![stream(bench, system, true, 60_000, 4096).0]
    }),
    row(
        "passthrough",
        &[metric("CPU a request, 300 B, 32 connections", "µs", Bar::OfNginx(2.5, 1.5))],
        requests::passthrough,
    ),
    Row {
        systems: &PROXIES,
        ..row("h2", &[metric("CPU a request, HTTP/2 to HTTP/1.1, 32 at once", "µs", Bar::None)], requests::h2)
    },
    row("churn", &[metric("CPU a connection with one request, 200/s", "µs", Bar::None)], requests::churn),
    row(
        "delay",
        &[
            metric("delay added at 1,000 frames/s, p50", "µs", Bar::OfNginx(1.5, 1.1)),
            metric("delay added at 1,000 frames/s, p99", "µs", Bar::None),
        ],
        delay,
    ),
    Row {
        systems: &NGINX,
        is_fresh: true,
        ..row("streams", &[metric("CPU a frame, 1,000 streams of 1 frame/s", "µs", Bar::None)], many::streams)
    },
    Row {
        systems: &NGINX,
        is_fresh: true,
        ..row(
            "watchers",
            &[metric("CPU a delivered frame, a job with 1,000 watchers", "µs", Bar::None)],
            |bench, system| vec![many::watchers(bench, system, 1_000, 10, Duration::from_millis(200))],
        )
    },
    Row {
        systems: &NGINX,
        rounds: 3,
        is_fresh: true,
        ..row(
            "growth-watchers",
            &[
                metric("CPU a delivered frame, 1 watcher", "µs", Bar::None),
                metric("CPU a delivered frame, 100 watchers", "µs", Bar::None),
                metric("CPU a delivered frame, 5,000 watchers", "µs", Bar::None),
                metric("growth from 100 to 5,000 watchers", "×", Bar::AtMost(1.1, None)),
            ],
            |bench, system| {
                let one = many::watchers(bench, system, 1, 1_000, Duration::from_millis(1));
                let hundred = many::watchers(bench, system, 100, 600, Duration::from_millis(10));
                let thousands = many::watchers(bench, system, 5_000, 16, Duration::from_millis(500));
                vec![one, hundred, thousands, thousands / hundred]
            },
        )
    },
    Row {
        systems: &BRIDGES,
        rounds: 1,
        ..row(
            "growth-frames",
            &[
                metric("CPU of a job without frames", "µs", Bar::None),
                metric("CPU of a job of 1,000 frames, which are stored", "µs", Bar::None),
                metric("CPU of each further frame, to 9,000", "µs", Bar::None),
                metric("CPU of each further frame, to 10⁵", "µs", Bar::None),
                metric("CPU of each further frame, to 10⁷", "µs", Bar::None),
                metric("growth from 9,000 to 10⁵ frames", "×", Bar::AtMost(1.1, None)),
                metric("growth from 10⁵ to 10⁷ frames", "×", Bar::AtMost(1.1, None)),
            ],
            growth,
        )
    },
    Row {
        rounds: 3,
        is_fresh: true,
        ..row(
            "memory-watcher",
            &[metric("memory of one more watcher of a running job", "KiB", Bar::AtMost(12.0, Some(6.0)))],
            memory::watcher,
        )
    },
    Row {
        systems: &BRIDGES,
        rounds: 3,
        is_fresh: true,
        ..row(
            "memory-stalled",
            &[metric("memory of a stalled watcher", "KiB", Bar::AtMost(128.0, None))],
            memory::stalled,
        )
    },
    Row {
        systems: &NGINX,
        rounds: 3,
        is_fresh: true,
        ..row(
            "memory-idle-stream",
            &[metric("memory of an idle passthrough stream, 5,000 streams", "KiB", Bar::AtMost(14.0, None))],
            memory::idle_stream,
        )
    },
    Row {
        is_fresh: true,
        ..row(
            "start",
            &[
                metric("start to ready", "ms", Bar::AtMost(30.0, None)),
                metric("resident memory, idle", "MiB", Bar::AtMost(10.0, None)),
            ],
            memory::start,
        )
    },
    Row {
        systems: &BRIDGES,
        rounds: 1,
        is_fresh: true,
        ..row(
            "recorded",
            &[
                metric("a recorded full update at recorded speed, direct", "s", Bar::None),
                metric("the same, through", "s", Bar::None),
            ],
            many::recorded,
        )
    },
    Row {
        systems: &NGINX,
        rounds: 3,
        is_fresh: true,
        ..row(
            "sigterm",
            &[metric("streams of 500 cut by SIGTERM", "", Bar::AtMost(0.0, None))],
            many::terminated,
        )
    },
];

/// How long a system may work after the last byte, so that this counts, too.
const AFTERWARDS: Duration = Duration::from_millis(50);

/// Requests `target` of a system. `host` is the name of the server.
async fn open(running: &Running, host: &str, target: &str) -> StreamClient {
    StreamClient::open(running.address, host, target).await.unwrap().resetting()
}

/// Reads a stream as fast as it comes. Returns the microseconds of processor time and the seconds for each frame.
fn stream(bench: &Bench, system: System, is_native: bool, frames: usize, size: usize) -> (f64, f64) {
    let source = if is_native { &bench.native } else { &bench.socket };
    let running = bench.running(system, source);
    let frames = bench.count(system, frames);
    source.plan(Plan { frames, size, follows: true, ..Plan::default() });
    bench.runtime.block_on(async {
        let (cpu, began) = (running.cpu(), Instant::now());
        let mut client = open(&running, "bridge", STREAM).await.fast();
        while !client.has_ended() && client.read().await.unwrap() {
            source.received(client.frames);
        }
        let wall = began.elapsed().as_secs_f64();
        assert!(client.is_ok(), "{system:?}: {}", client.tail());
        assert!(client.frames * 100 >= frames * 98, "{system:?}: {} of {frames} frames", client.frames);
        tokio::time::sleep(AFTERWARDS).await;
        let frames = frames.max(1) as f64;
        (micros(running.cpu() - cpu) / frames, wall / frames)
    })
}

/// A duration in microseconds.
fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The microseconds of processor time for a job without frames, for one with 1,000, all of which are stored, and for each
/// further frame of longer jobs.
fn growth(bench: &Bench, system: System) -> Vec<f64> {
    const STORED: usize = 1_000;
    let job = |times: usize, frames: usize| {
        let each = |_| stream(bench, system, true, frames, 0).0 * bench.count(system, frames).max(1) as f64;
        (0..times).map(each).sum::<f64>() / times as f64
    };
    let (empty, stored) = (job(50, 0), job(75, STORED));
    let [short, long, longest] = [(50, 9 * STORED), (5, 100_000), (1, 10_000_000)]
        .map(|(times, frames)| (job(times, frames) - stored) / (frames - STORED) as f64);
    vec![empty, stored, short, long, longest, long / short, longest / long]
}

/// The median and the 99th percentile of the delay at 1,000 frames a second, in microseconds, over those without a
/// system between.
fn delay(bench: &Bench, system: System) -> Vec<f64> {
    let running = bench.running(system, &bench.native);
    let delays = |address, frames| {
        bench.native.plan(Plan {
            frames,
            batch: 1,
            every: Some(Duration::from_millis(1)),
            ..Plan::default()
        });
        let arrivals = bench
            .runtime
            .block_on(async { StreamClient::open(address, "bridge", STREAM).await?.arrivals().await });
        let (sent, arrivals) = (bench.native.sent(), arrivals.unwrap());
        assert!(arrivals.len() * 100 >= sent.len() * 98, "{system:?}: {} frames", arrivals.len());
        let delays = arrivals.iter().map(|(number, arrival)| micros(*arrival - sent[*number]));
        let mut delays: Vec<f64> = delays.collect();
        delays.sort_by(f64::total_cmp);
        [delays[delays.len() / 2], delays[delays.len() * 99 / 100]]
    };
    let direct = delays(bench.native.address(), 500);
    let through = delays(running.address, 1_500);
    vec![through[0] - direct[0], through[1] - direct[1]]
}
