//! Syncs with random faults, readers that come and go, reloads and cleanings, for minutes or hours. Afterwards the
//! bridge must have the memory, threads, tasks and file descriptors of before, each job one outcome, and each reader an
//! end. All the while, it must not have many threads.
//!
//! `tests/bench/endurance` builds and runs it.

mod client;
mod faults;
mod source;

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use futures::future::{join, join_all};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, sleep_until, timeout};

use client::{LONGEST, StreamClient, request};
use faults::{FaultyBackend, REFUSING, Random};
use source::{Plan, STREAM, Source};

/// How many readers there are at once.
const READERS: u64 = 24;
/// A token for operators.
const TOKEN: &str = "endurance-0123456789abcdef";
/// How long the bridge has to come to rest: logs of ended jobs stay for `limits.replay`, and threads for blocking work
/// for less.
const REST: Duration = Duration::from_secs(8);
/// How much the resident memory may grow, in bytes.
const GROWTH: u64 = 3 << 20;
/// How often the outcomes of jobs are checked, long before their records are removed.
const CHECK: Duration = Duration::from_secs(10);
/// How many threads it may have beyond those at rest.
const MORE_THREADS: usize = 16;
/// How often the threads are counted.
const COUNT_THREADS: Duration = Duration::from_millis(20);
/// How often the usage at rest is measured; the least counts, because a thread or a file may be there for a moment.
const SAMPLES: u32 = 20;

/// Runs the bridge for a long time.
#[derive(Parser)]
struct Arguments {
    /// How long it runs, after a minute to warm up.
    #[arg(long = "for", default_value = "4m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// The time to warm up.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Repeats the choices of a run.
    #[arg(long)]
    seed: Option<u64>,
    /// The bridge.
    #[arg(long)]
    bridge: PathBuf,
}

/// What a process has at rest.
#[derive(Clone, Copy, Debug)]
struct Usage {
    resident: u64,
    threads: usize,
    files: usize,
    /// Asynchronous tasks, that of the request which counts them included.
    tasks: u64,
}

/// What readers have received in one phase.
#[derive(Debug, Default)]
struct Outcomes {
    /// The ids of their jobs.
    jobs: HashSet<String>,
    /// Those whose outcome was not checked yet.
    unchecked: HashSet<String>,
    /// Streams with their final event.
    ended: u64,
    /// Streams that ended successfully, of the backend on `/ws` and of the other one.
    completed: [u64; 2],
    /// Streams that the reader left.
    left: u64,
    /// Responses that were no stream, where the backend has a fault that allows it.
    refused: u64,
    /// Streams without a proper end, or with another one than the backend had, and other refusals.
    broken: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let seed =
        arguments.seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    println!("--seed {seed}");
    let faulty = FaultyBackend::start(seed).await.unwrap();
    let socket = Source::start(false).await.unwrap();
    socket.plan(Plan { frames: 400, every: Some(Duration::from_millis(2)), ..Plan::default() });
    let bridge = Bridge::start(&arguments.bridge, faulty, socket.port);

    let (counted, _) = load(&bridge, seed, arguments.warm_up, 0).await;
    let before = bridge.at_rest().await;
    println!("after the warm-up: {before:?}");
    let (_, most) = load(&bridge, seed.wrapping_add(1), arguments.time, counted).await;
    let after = bridge.at_rest().await;
    println!("at the end: {after:?}");

    assert!(after.resident <= before.resident + GROWTH, "memory grew: {before:?} {after:?}");
    assert!(after.threads <= before.threads, "threads are left: {before:?} {after:?}");
    assert!(after.files <= before.files, "file descriptors are left: {before:?} {after:?}");
    assert!(after.tasks <= before.tasks, "tasks are left: {before:?} {after:?}");
    println!("{most} threads at most");
    assert!(most <= before.threads + MORE_THREADS, "{most} threads, and at rest {}", before.threads);
    bridge.stop().await;
    println!("passed");
}

/// Runs readers and an operator for `time`, and checks what the readers received. `before` is how many outcomes were
/// counted before. Returns how many are counted then, and the most threads that the bridge had.
async fn load(bridge: &Bridge, seed: u64, time: Duration, before: u64) -> (u64, usize) {
    let outcomes = Arc::new(Mutex::new(Outcomes::default()));
    let end = Instant::now() + time;
    let address = bridge.address;
    let readers = (0..READERS).map(|number| {
        let (mut random, outcomes) = (Random::new(seed ^ ((number + 1) << 32)), Arc::clone(&outcomes));
        tokio::spawn(async move {
            while Instant::now() < end {
                read(address, &mut random, &outcomes).await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let ((), threads) = join(operate(bridge, seed, end, &outcomes), most_threads(bridge, end)).await;
    for reader in readers {
        reader.await.unwrap();
    }
    let Outcomes { jobs, unchecked, ended, completed, left, refused, broken } =
        Arc::into_inner(outcomes).unwrap().into_inner().unwrap();
    println!("{} jobs; {ended} streams read to the end, {left} left, {refused} refused", jobs.len());
    bridge.check_jobs(&unchecked).await;
    let all = sum(&bridge.call("GET", "/metrics").await, "jobs_total");
    let counted = all - before;
    println!("{counted} outcomes counted");
    assert!(broken.is_empty(), "streams with another end, or refused: {broken:#?}");
    let kinds = [completed.as_slice(), &[left, refused]].concat();
    assert!(!kinds.contains(&0), "none completed on a backend, or was left or refused: {kinds:?}");
    assert!(counted >= jobs.len() as u64, "jobs without an outcome");
    assert!(counted <= ended + left + refused, "more outcomes than requests");
    (all, threads)
}

/// The most threads that the bridge has until `end`.
async fn most_threads(bridge: &Bridge, end: Instant) -> usize {
    let mut most = 0;
    while Instant::now() < end {
        most = most.max(bridge.entries("task"));
        sleep(COUNT_THREADS).await;
    }
    most
}

/// Requests one stream, and reads it to its end or leaves it.
async fn read(address: SocketAddr, random: &mut Random, outcomes: &Mutex<Outcomes>) {
    // Some requests are for the same job.
    let fault = (random.below(4) > 0).then(|| random.below(faults::COUNT));
    let (host, target) = match fault {
        None => ("socket", STREAM.to_owned()),
        Some(fault) => ("bridge", format!("{STREAM}?fault={fault}&job={}", random.below(6))),
    };
    let leaves_after = (random.below(4) == 0).then(|| Duration::from_millis(random.below(400)));
    let is_slow = random.below(8) == 0;
    let mut stream = StreamClient::open(address, host, &target).await.unwrap();
    let reading = async {
        // Another response than a stream has no such end.
        while stream.read().await? && !stream.has_ended() && stream.status() == Some(200) {
            if is_slow {
                sleep(Duration::from_millis(5)).await;
            }
        }
        std::io::Result::Ok(())
    };
    let is_left = timeout(leaves_after.unwrap_or(LONGEST), reading).await.is_err();
    outcomes.lock().unwrap().add(&stream, fault, is_left && leaves_after.is_some());
    sleep(Duration::from_millis(random.below(50))).await;
}

impl Outcomes {
    /// Adds a stream of the backend with this fault, or of the one on `/ws`.
    fn add(&mut self, stream: &StreamClient, fault: Option<u64>, is_left: bool) {
        self.jobs.extend(stream.job());
        self.unchecked.extend(stream.job());
        match stream.status() {
            _ if is_left => self.left += 1,
            Some(200) if stream.has_proper_end() && stream.is_ok() == fault.is_none_or(faults::completes) => {
                self.ended += 1;
                self.completed[usize::from(fault.is_some())] += u64::from(stream.is_ok());
            }
            Some(status) if status != 200 && fault.is_some_and(|fault| REFUSING.contains(&fault)) => {
                self.refused += 1;
            }
            status => self.broken.push(format!("{fault:?}: status {status:?}, {}", stream.tail())),
        }
    }
}

/// Reloads the configuration, cleans the ledger, and reads metrics and jobs, at random. Checks the jobs that have come.
async fn operate(bridge: &Bridge, seed: u64, end: Instant, outcomes: &Mutex<Outcomes>) {
    let mut random = Random::new(seed);
    let mut checked = Instant::now();
    while Instant::now() < end {
        if checked.elapsed() >= CHECK {
            checked = Instant::now();
            let unchecked = std::mem::take(&mut outcomes.lock().unwrap().unchecked);
            bridge.check_jobs(&unchecked).await;
        }
        match random.below(4) {
            0 => bridge.signal(Signal::SIGHUP),
            1 => drop(bridge.call("POST", "/clean").await),
            2 => drop(bridge.call("GET", "/metrics").await),
            _ => drop(bridge.call("GET", "/jobs?limit=200").await),
        }
        let pause = Duration::from_millis(random.below(1_000));
        sleep_until((Instant::now() + pause).min(end).into()).await;
    }
}

/// A running bridge. It is killed when it is dropped.
struct Bridge {
    address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

impl Bridge {
    /// Starts it in front of two backends, with short limits. Records are kept for a minute, so that cleanings find some.
    fn start(program: &Path, faulty: SocketAddr, socket: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, admin] = listeners.map(|listener| listener.local_addr().unwrap());
        let configuration = format!(
            "listen = \"{address}\"\nadmin_listen = \"{admin}\"\nadmin_token_file = \"token\"\ndata_dir = \"data\"\n\
             [jobs]\nrecording = true\n\
             [limits]\nidle = \"1s\"\nresponse_head = \"1s\"\naccept_wait = \"300ms\"\ndetach_grace = \"200ms\"\n\
             settle = \"100ms\"\nsettle_total = \"500ms\"\ncooldown = \"0s\"\ncooldown_least = \"0s\"\n\
             replay = \"2s\"\nretention = \"1m\"\nlog_retention = \"1m\"\nbreaker_open = \"100ms\"\n\
             clean_share = 100\n\
             [[backend]]\nurl = \"http://{faulty}\"\nconcurrency = 12\nqueue = 100\n\
             [[backend]]\nurl = \"http://127.0.0.1:{socket}\"\nhosts = [\"socket\"]\n"
        );
        let path = directory.path();
        fs::write(path.join("bridge.toml"), configuration).unwrap();
        fs::write(path.join("token"), TOKEN).unwrap();
        let mut command = Command::new(fs::canonicalize(program).unwrap());
        command.args(["serve", "--config", "bridge.toml"]).current_dir(path).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(path.join("log")).unwrap());
        let child = command.spawn().unwrap();
        let bridge = Self { address, admin, child, directory };
        let began = Instant::now();
        while std::net::TcpStream::connect(admin).is_err() {
            assert!(began.elapsed() < LONGEST, "it does not start: {}", bridge.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        bridge
    }

    /// What it logged.
    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn signal(&self, signal: Signal) {
        kill(self.id(), signal).unwrap();
    }

    /// Sends a request to the admin listener.
    async fn call(&self, method: &str, path: &str) -> String {
        request(self.admin, method, path, TOKEN).await.unwrap()
    }

    /// Waits until no job runs and the bridge rests. Returns what it has then.
    async fn at_rest(&self) -> Usage {
        let began = Instant::now();
        loop {
            let metrics = self.call("GET", "/metrics").await;
            let busy =
                ["jobs_running", "jobs_waiting", "watchers", "tunnels"].map(|name| sum(&metrics, name));
            if busy == [0; 4] {
                break;
            }
            assert!(began.elapsed() < LONGEST, "jobs that run and wait, watchers and tunnels: {busy:?}");
            sleep(Duration::from_millis(100)).await;
        }
        sleep(REST).await;
        let mut least = self.usage().await;
        for _ in 1..SAMPLES {
            sleep(Duration::from_millis(50)).await;
            let usage = self.usage().await;
            least.resident = least.resident.min(usage.resident);
            least.threads = least.threads.min(usage.threads);
            least.files = least.files.min(usage.files);
            least.tasks = least.tasks.min(usage.tasks);
        }
        least
    }

    /// What it has now.
    async fn usage(&self) -> Usage {
        let tasks = sum(&self.call("GET", "/metrics").await, "tasks");
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        let [threads, files] = ["task", "fd"].map(|name| self.entries(name));
        Usage { resident, threads, files, tasks }
    }

    /// How many entries a directory of the process has in `/proc`.
    fn entries(&self, name: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{name}", self.id())).unwrap().count()
    }

    /// Checks that each of the `jobs` has a record, and comes to one outcome.
    async fn check_jobs(&self, jobs: &HashSet<String>) {
        for jobs in jobs.iter().collect::<Vec<_>>().chunks(16) {
            join_all(jobs.iter().map(|id| self.check_job(id))).await;
        }
    }

    async fn check_job(&self, id: &str) {
        let began = Instant::now();
        loop {
            let record = self.call("GET", &format!("/jobs/{id}")).await;
            assert!(record.starts_with("HTTP/1.1 200 "), "{record}");
            if !record.contains("\"outcome\":null") {
                return assert_eq!(record.matches("\"outcome\":\"").count(), 1, "{record}");
            }
            assert!(began.elapsed() < LONGEST, "without an outcome: {record}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops it. It must end successfully.
    async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let ended = async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => break status,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let status = timeout(LONGEST, ended).await.expect("it does not stop");
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a metric over its labels, if it has any.
fn sum(metrics: &str, name: &str) -> u64 {
    let name = format!("proxbox_bridge_{name}");
    let series = metrics.lines().filter_map(|line| line.strip_prefix(&name));
    let values: Vec<&str> = series
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next())
        .collect();
    assert!(!values.is_empty(), "no metric {name}");
    values.into_iter().map(|value| value.parse::<u64>().unwrap()).sum()
}
