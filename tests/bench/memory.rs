//! Memory of the bridge while it is idle, with event streams that are being forwarded, and with clients that read
//! nothing, over a million frames of progress or failures. The ledger keeps 100,000 failed objects of a job.
//!
//! The real process runs. Its growth over the resident size before the sync must stay within the bound on the
//! log of a job (`limits.job_log_bytes`), the buffers of each client, and a slack for the rest: events on their
//! way to the ledger, and memory that the allocator retains. Otherwise the benchmark fails.
#![allow(unreachable_pub, reason = "a benchmark is no library")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark that cannot go on must fail")]
#![allow(clippy::print_stdout, reason = "it prints a table")]

#[path = "memory/backend.rs"]
mod backend;
#[path = "../support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use backend::Events;
use process::Process;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What an idle process may take. This and [`OF_STREAM`] are bounds for regressions, with room for other machines; the
/// aims of the project are the lower bars of the `load` benchmark (`load/rows.rs`).
const IDLE: u64 = 12 * MIB;
/// What an event stream that is being forwarded may take, while nothing of it arrives.
const OF_STREAM: u64 = 12 * KIB;
/// How many of them are open at a time.
const STREAMS: usize = 1000;
/// What the process may take beside the log and the clients.
const SLACK: u64 = 8 * MIB;
/// What failed objects on their way to the ledger may take.
const FAILED_OBJECTS: u64 = MIB;
/// What a client that reads nothing may take.
const OF_ONE: u64 = 192 * 1024;
/// How often the number of ended jobs is polled.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    // Without `--bench`, all targets are being run as tests: one short run is enough.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let frames = if is_bench { 1_000_000 } else { 10_000 };
    // The program of the tests is not optimized, and larger.
    let mut exceeded = is_bench && idle();
    println!("{frames} frames; MiB\n");
    println!("bound  stalled  reading  events           before   peak  growth  allowed   frames/s");
    for sync in CASES {
        let run = run(frames, sync);
        let growth = run.peak.saturating_sub(run.before);
        let MemoryCase { bound, stalled, is_read, events } = sync;
        let failed_objects = if events == Events::FailedObjects { FAILED_OBJECTS } else { 0 };
        let allowed = bound + stalled as u64 * OF_ONE + SLACK + failed_objects;
        println!(
            "{:>5.1}{stalled:>9}{:>9}  {:<15}{:>8.1}{:>7.1}{:>8.1}{:>9.1}{:>11.0}",
            mib(bound),
            u8::from(is_read),
            format!("{events:?}"),
            mib(run.before),
            mib(run.peak),
            mib(growth),
            mib(allowed),
            frames as f64 / run.time.as_secs_f64(),
        );
        exceeded |= growth > allowed;
    }
    if exceeded {
        println!("\nMore than is allowed.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Measures an idle process, without and with event streams that are being forwarded. Returns whether it exceeds a
/// bound.
fn idle() -> bool {
    let backend = backend::start(0, Events::Progress);
    let data = tempfile::tempdir().unwrap();
    let keys = ["requests", "requests_per_address", "connections", "connections_per_address"];
    let keys = keys.map(|key| format!("limits.{key}"));
    let settings =
        [("admin_open_reads", "on")].into_iter().chain(keys.iter().map(|key| (key.as_str(), "10000")));
    let bridge = Process::start(data.path(), backend, &settings.collect::<Vec<_>>());
    assert_eq!(ended(bridge.admin), 0);
    let before = resident(bridge.id(), "VmRSS");
    let open = |_| {
        let mut client = request(bridge.address, backend::ENDLESS);
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello\r\n") {
            let mut buffer = [0; 1024];
            let read = client.read(&mut buffer).unwrap();
            assert_ne!(read, 0);
            answer.extend_from_slice(&buffer[..read]);
        }
        client
    };
    let clients: Vec<TcpStream> = (0..STREAMS).map(open).collect();
    let each = (resident(bridge.id(), "VmRSS") - before) / clients.len() as u64;
    println!("idle: {:.1} MiB; of {} MiB", mib(before), IDLE / MIB);
    println!("an event stream being forwarded: {} KiB; of {} KiB\n", each / KIB, OF_STREAM / KIB);
    before > IDLE || each > OF_STREAM
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// A sync, and its clients.
#[derive(Clone, Copy)]
struct MemoryCase {
    /// `limits.job_log_bytes`.
    bound: u64,
    /// How many clients read nothing.
    stalled: usize,
    /// Whether another one reads.
    is_read: bool,
    events: Events,
}

const CASES: [MemoryCase; 8] = [
    MemoryCase { bound: 16 * MIB, stalled: 1, is_read: false, events: Events::Progress },
    MemoryCase { bound: 16 * MIB, stalled: 1, is_read: true, events: Events::Progress },
    MemoryCase { bound: 4 * MIB, stalled: 1, is_read: false, events: Events::Progress },
    MemoryCase { bound: 4 * MIB, stalled: 1, is_read: true, events: Events::Progress },
    MemoryCase { bound: 4 * MIB, stalled: 60, is_read: false, events: Events::Progress },
    MemoryCase { bound: 4 * MIB, stalled: 1, is_read: false, events: Events::Failures },
    MemoryCase { bound: 4 * MIB, stalled: 1, is_read: false, events: Events::RepeatedFailure },
    MemoryCase { bound: 4 * MIB, stalled: 1, is_read: false, events: Events::FailedObjects },
];

/// The memory and time of one sync.
struct MemoryUse {
    /// Resident before it, in bytes.
    before: u64,
    /// The most that was ever resident, in bytes.
    peak: u64,
    time: Duration,
}

fn run(frames: usize, sync: MemoryCase) -> MemoryUse {
    let backend = backend::start(frames, sync.events);
    let data = tempfile::tempdir().unwrap();
    let bound = sync.bound.to_string();
    let settings = [
        ("admin_open_reads", "on"),
        ("jobs.failed_objects", "100000"),
        ("limits.job_log_bytes", bound.as_str()),
        ("limits.client_write", "1h"),
    ];
    let bridge = Process::start(data.path(), backend, &settings);
    assert_eq!(ended(bridge.admin), 0);
    let before = resident(bridge.id(), "VmRSS");
    let began = Instant::now();
    let stalled: Vec<TcpStream> = (0..sync.stalled).map(|_| open_stream(bridge.address)).collect();
    let reader = sync.is_read.then(|| {
        let mut client = open_stream(bridge.address);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while client.read(&mut buffer).unwrap() > 0 {}
        })
    });
    while ended(bridge.admin) == 0 {
        thread::sleep(PAUSE);
    }
    let time = began.elapsed();
    let peak = resident(bridge.id(), "VmHWM");
    // They hold bytes that the bridge would otherwise wait for.
    drop(stalled);
    bridge.terminate();
    assert_eq!(bridge.ended().0, Some(0));
    let ledger = rusqlite::Connection::open(data.path().join("ledger.sqlite3")).unwrap();
    let reported: i64 = ledger.query_row("SELECT frames_out FROM jobs", [], |row| row.get(0)).unwrap();
    let expected = if sync.events == Events::RepeatedFailure { 3 } else { frames };
    assert!(reported >= i64::try_from(expected).unwrap(), "only {reported} frames were for readers");
    reader.map(|reader| reader.join());
    MemoryUse { before, peak, time }
}

/// Requests a stream. A client that does not read it does not stop the bridge from reading the backend.
fn open_stream(bridge: SocketAddr) -> TcpStream {
    request(bridge, backend::PATH)
}

fn request(bridge: SocketAddr, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(bridge).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nHost: bridge\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    client
}

/// How many jobs have completed. Another outcome is a failure of the benchmark. `/metrics` takes more memory, which
/// would be measured.
fn ended(admin: SocketAddr) -> usize {
    let mut client = TcpStream::connect(admin).unwrap();
    client.write_all(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let outcomes = text.matches(r#""outcome":""#).count();
    assert_eq!(outcomes, text.matches(r#""outcome":"completed""#).count(), "{text}");
    outcomes
}

/// A memory field of `/proc/<id>/status`, in bytes.
fn resident(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))
        .expect("this benchmark needs the /proc of Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}
