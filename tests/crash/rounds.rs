//! Repeated kills and restarts on one data directory, each at some point of a sync.

use std::collections::HashMap;
use std::path::Path;

use futures::future::join_all;
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::ledger::JobId;
use proxbox_bridge::recording::Recording;
use proxbox_bridge::replay::{ReplayHandle, ReplayOptions, Speed};

use super::file;
use super::reader::CrashReader;
use crate::support::bridge::{DEVICES, DISKS, FULL_UPDATE, MACHINES, recorded, recordings, replayed};
use crate::support::process::Process;

/// How many data directories are used at the same time.
const DIRECTORIES: u64 = 2;
/// How often the bridge of each is killed.
const KILLS: usize = 20;
/// Names the number that chooses all points, in decimal.
const SEED: &str = "CRASH_SEED";
/// No commit may time out on a slow disk, since an outcome may then be reported that is not recorded.
const PATIENT: (&str, &str) = ("limits.ledger", "5m");
/// These backends do no work after a disconnect, so the next round may begin at once.
const AT_ONCE: (&str, &str) = ("limits.cooldown", "0s");

const RECORDED: (&str, &str) = ("jobs.recording", "failed");

/// Backends, the requests to them, and their outcomes.
const CASES: [CrashCase; 6] = [
    CrashCase::new("0.0.2.post1", [DEVICES, MACHINES]),
    CrashCase { cut_after: Some(6), ends: [LOST; 2], ..CrashCase::new("0.0.2.post1", [MACHINES, DEVICES]) },
    CrashCase::new("0.0.11.post2", [FULL_UPDATE, DEVICES]),
    CrashCase {
        uses: Some("fail/sse-full-update-proxmox-killed-mid-sync"),
        ends: [FAILED, COMPLETED],
        ..CrashCase::new("0.0.11.post2", [FULL_UPDATE, DISKS])
    },
    CrashCase::new("0.0.30.post2", [MACHINES, FULL_UPDATE]),
    CrashCase {
        uses: Some("fail/sse-devices-netbox-down"),
        ends: [FAILED, COMPLETED],
        ..CrashCase::new("0.0.30.post2", [DEVICES, DISKS])
    },
];

type End = (Outcome, Option<Cause>);
const COMPLETED: End = (Outcome::Completed, None);
const FAILED: End = (Outcome::Errored, Some(Cause::BackendFailed));
const LOST: End = (Outcome::Errored, Some(Cause::BackendLost));
const CRASHED: End = (Outcome::Interrupted, Some(Cause::Crashed));

struct CrashCase {
    version: &'static str,
    /// A recording that replaces the default.
    uses: Option<&'static str>,
    cut_after: Option<u64>,
    paths: [&'static str; 2],
    ends: [End; 2],
}

impl CrashCase {
    const fn new(version: &'static str, paths: [&'static str; 2]) -> Self {
        Self { version, uses: None, cut_after: None, paths, ends: [COMPLETED; 2] }
    }
}

/// When the bridge is killed.
#[derive(Clone, Copy, Debug)]
enum KillPoint {
    /// As soon as the request is sent.
    RequestSent,
    /// As soon as the head of the response is received.
    Head,
    /// As soon as this many events are received.
    Event(usize),
    /// As soon as the final event is received.
    End,
}

impl KillPoint {
    fn is_reached(self, reader: &CrashReader) -> bool {
        match self {
            Self::RequestSent => true,
            Self::Head => reader.status().is_some(),
            Self::Event(count) => reader.events().len() >= count || reader.reported_ok().is_some(),
            Self::End => reader.reported_ok().is_some(),
        }
    }
}

/// Pseudo-random numbers, equal for an equal seed (`SplitMix64`).
struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    /// A point in a stream of `events` events.
    fn point(&mut self, events: usize) -> KillPoint {
        match self.below(10) {
            0 => KillPoint::RequestSent,
            1 => KillPoint::Head,
            2 | 3 => KillPoint::End,
            // While the end is being written to the disk or sent to the reader.
            4 | 5 => KillPoint::Event(events - 1),
            _ => KillPoint::Event(1 + self.below(events)),
        }
    }
}

/// Prints the seed if the test fails, so that the run can be repeated.
struct Seed(u64);

impl Seed {
    fn choose() -> Self {
        let given = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
        Self(given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into()))
    }
}

impl Drop for Seed {
    #[allow(clippy::print_stderr, reason = "that is where a test says why it failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{SEED}={} chooses the same points again", self.0);
        }
    }
}

/// A job as a reader saw it.
struct ReportedJob {
    /// The round, and when the bridge was killed in it.
    round: String,
    reported: Option<bool>,
    /// The end of the job if the bridge is not killed.
    end: End,
}

/// A backend, with the number of events that each of its streams has.
struct MeasuredBackend {
    case: &'static CrashCase,
    backend: ReplayHandle,
    events: [usize; 2],
}

impl MeasuredBackend {
    /// Runs every stream once to its end.
    async fn set(case: &'static CrashCase, data: &Path) -> Self {
        let library = recordings(case.version, case.uses.as_slice());
        // Fast enough for many rounds in a test, slow enough to be killed in the middle.
        let options = ReplayOptions {
            speed: Speed::Times(100.0),
            cut_after: case.cut_after,
            ..ReplayOptions::default()
        };
        let backend = replayed(library, options).await;
        let bridge = Process::start(data, backend.local_addr(), &[PATIENT, AT_ONCE]);
        let mut events = [0; 2];
        for (at, path) in case.paths.into_iter().enumerate() {
            let mut reader = CrashReader::open(bridge.address, path).await;
            reader.drain().await;
            assert_eq!(reader.reported_ok(), Some(case.ends[at] == COMPLETED), "{} {path}", case.version);
            events[at] = reader.events().len();
        }
        bridge.kill();
        Self { case, backend, events }
    }
}

/// The expected content of the ledger after all rounds.
#[derive(Default)]
struct Expected {
    seen: HashMap<JobId, ReportedJob>,
    /// How many jobs may be recorded whose ids no reader received.
    unseen: usize,
}

impl Expected {
    fn add(&mut self, reader: &CrashReader, end: End, round: &str) {
        match reader.job() {
            Some(id) => {
                let seen = ReportedJob { round: round.to_owned(), reported: reader.reported_ok(), end };
                assert!(self.seen.insert(id, seen).is_none(), "two jobs of one name: {round}");
            }
            None => self.unseen += 1,
        }
    }

    /// Compares it with the ledger in `data`.
    async fn check(&self, data: &Path) {
        let records = recorded(data).await;
        for record in &records {
            let end = record.end.as_ref().unwrap_or_else(|| panic!("as if it ran: {record:?}"));
            assert!(end.finished >= record.queued, "{record:?}");
        }
        let stray = records.iter().filter(|record| !self.seen.contains_key(&record.id)).count();
        assert!(stray <= self.unseen, "{stray} jobs are recorded that nobody has asked for");
        for (id, ReportedJob { round, reported, end }) in &self.seen {
            let record = records.iter().find(|record| record.id == *id);
            let record =
                record.unwrap_or_else(|| panic!("{round}: a reader knew of job {id}, and it is lost"));
            let recorded = record.end.as_ref().map(|end| (end.outcome, end.cause)).unwrap();
            match reported {
                Some(ok) => {
                    assert_eq!(*ok, recorded.0 == Outcome::Completed, "{round}: told, and not recorded");
                    assert_eq!(recorded, *end, "{round}: told, and not recorded");
                }
                // The end may be recorded and not yet sent.
                None => assert!(recorded == CRASHED || recorded == *end, "{round}: {recorded:?}"),
            }
        }
    }
}

/// Checks that all recordings in `data` are whole, and that none is of a job that completed.
fn check_recordings(data: &Path, round: usize) {
    let query = "SELECT id FROM jobs WHERE outcome = 'completed'";
    let ledger = file(data);
    let mut rows = ledger.prepare(query).unwrap();
    let completed: Vec<String> =
        rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    for entry in std::fs::read_dir(data.join("recordings")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let problems = Recording::problems(&std::fs::read(&path).unwrap());
        assert!(problems.is_empty(), "round {round}: {}: {problems:?}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_completed = completed.iter().any(|id| name.starts_with(id.as_str()));
        assert!(!is_completed, "round {round}: {name} is of a job that completed");
    }
}

/// Kills and restarts the bridge on `data`, and after some rounds compares the ledger with what readers received.
async fn run_rounds(stages: &[MeasuredBackend], data: &Path, mut chance: SplitMix64) -> Expected {
    let mut expected = Expected::default();
    for round in 0..KILLS {
        let stage = &stages[chance.below(stages.len())];
        let first = chance.below(2);
        let both = chance.below(3) == 0;
        let watched = if both { chance.below(2) } else { 0 };
        let point = chance.point(stage.events[(first + watched) % 2]);
        let concurrency = if chance.below(2) == 0 { "1" } else { "2" };
        let CrashCase { version, paths, ends, .. } = stage.case;
        let settings = [PATIENT, AT_ONCE, RECORDED, ("backend.concurrency", concurrency)];
        let bridge = Process::start(data, stage.backend.local_addr(), &settings);
        if round > 0 {
            // The bridge itself has closed the jobs of the round before: no other process has opened the ledger.
            let count = "SELECT count(*) FROM jobs WHERE finished IS NULL";
            let running: i64 = file(data).query_row(count, [], |row| row.get(0)).unwrap();
            assert_eq!(running, 0, "round {round}: jobs of a bridge that is dead");
            check_recordings(data, round);
        }
        let mut readers = Vec::new();
        for path in [paths[first], paths[1 - first]].into_iter().take(1 + usize::from(both)) {
            readers.push(CrashReader::open(bridge.address, path).await);
        }
        let reached = readers[watched].read_until(|reader| point.is_reached(reader)).await;
        assert!(reached, "the bridge ended the stream too early");
        bridge.kill();
        for (at, reader) in readers.iter_mut().enumerate() {
            reader.drain().await;
            let at = (first + at) % 2;
            let round = format!("round {round}: {version} {}, killed at {point:?} of {watched}", paths[at]);
            expected.add(reader, ends[at], &round);
        }
        if chance.below(2) == 0 {
            let verdict: String =
                file(data).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok", "round {round}");
            expected.check(data).await;
        }
    }
    expected.check(data).await;
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_bridge_is_killed_every_reported_outcome_is_recorded_and_no_job_is_left_running() {
    let seed = Seed::choose();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| folder.path().join(name);
    let cases = CASES.iter().enumerate();
    let stages =
        join_all(cases.map(async |(at, case)| MeasuredBackend::set(case, &path(format!("case {at}"))).await))
            .await;
    let lines = (0..DIRECTORIES).map(async |number| {
        run_rounds(&stages, &path(format!("data {number}")), SplitMix64(seed.0 ^ number)).await
    });
    let seen: Vec<ReportedJob> =
        join_all(lines).await.into_iter().flat_map(|expected| expected.seen.into_values()).collect();
    let reported = seen.iter().filter(|seen| seen.reported.is_some()).count();
    assert!(reported > 0 && reported < seen.len(), "all lives ended at one side of the end");
}
