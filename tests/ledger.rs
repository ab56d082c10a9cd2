//! The public interface of the ledger: committed records survive crashes, restarts and disk errors.

mod age;
mod damage;
mod failed;
mod loss;
mod notifications;
mod read_only;
mod upgrade;

use std::fmt::{Debug, Display};
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::counts::{Count, Counts};
use proxbox_bridge::core::domain::event::{Failure, StepStatus};
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::object::Object;
use proxbox_bridge::core::domain::outcome::{Cause, FailedObject, Outcome};
use proxbox_bridge::core::upstream::dialect::Dialect;
use proxbox_bridge::core::wire::sse::frame::{Frame, FrameName};
use proxbox_bridge::ledger::{
    Cooldown, Health, JobEnd, JobFilter, JobId, JobProgress, JobUpdate, Ledger, LedgerOpenError,
    LedgerOptions, LoggedFrame, Record, Requester, Retention, Stored, SystemClock, Timestamp, inspect,
};
use tempfile::TempDir;

fn options(directory: &Path) -> LedgerOptions {
    LedgerOptions {
        directory: Some(directory.to_owned()),
        retention: Retention {
            jobs: 90 * DAY,
            logs: 7 * DAY,
            clock_jump: DAY,
            clock_hold: 6 * HOUR,
            share: 100,
        },
        log_frames: 10,
        busy_timeout: Duration::from_millis(20),
        clock: Arc::new(SystemClock),
        notifications: Vec::new(),
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn open(directory: &Path) -> Arc<Ledger> {
    let ledger = Ledger::open(options(directory)).await.unwrap();
    assert_eq!(*ledger.health().borrow(), Health::Available);
    ledger
}

/// A ledger in a folder of its own.
async fn fresh() -> (TempDir, Arc<Ledger>) {
    let folder = folder();
    let ledger = open(folder.path()).await;
    (folder, ledger)
}

async fn in_memory() -> Arc<Ledger> {
    Ledger::open(LedgerOptions { directory: None, ..options(Path::new("")) }).await.unwrap()
}

/// Every `Option` of it is `None`.
fn bare() -> Record {
    Record::new("http://default".parse().unwrap(), Kind::FullUpdate, Timestamp(1_000))
}

/// Every field of it is set.
fn full() -> Record {
    let count = Count { seen: 12, completed: 4, failed: 1, unconfirmed: 7 };
    Record {
        vm: Some(7),
        channels: vec![Stored::Known(Channel::Native), Stored::Known(Channel::Websocket)],
        dialect: Some(Stored::Unknown("typed".to_owned())),
        query: "a=b&c".to_owned(),
        requester: Requester {
            fingerprint: Some("f00".to_owned()),
            address: Some("::1".to_owned()),
            actor: Some("Zoë".to_owned()),
        },
        started: Some(Timestamp(1_100)),
        progress: JobProgress {
            updated: Some(Timestamp(1_500)),
            first_frame: Some(Duration::from_millis(42)),
            counts: Counts(vec![(Object::VirtualMachine, count), (Object::Other, Count::default())]),
            failed_left_out: 1,
            frames_in: 32,
            bytes_in: u64::MAX,
            frames_out: 33,
            bytes_out: 3_000,
            watchers: 2,
            attaches: 1,
        },
        cooldown: Some(Cooldown { least: Duration::from_millis(5_000), until: Timestamp(2_500) }),
        end: Some(end(2_000)),
        ..bare()
    }
}

fn end(finished: u64) -> JobEnd {
    JobEnd {
        finished: Timestamp(finished),
        outcome: Outcome::Errored,
        cause: Some(Cause::ObjectsFailed),
        failure: Some(Failure {
            step: "devices".to_owned(),
            error: "It failed.".to_owned(),
            detail: "It really failed.".to_owned(),
        }),
        failed_objects: vec![FailedObject { object: "device pve1".to_owned(), error: "boom".to_owned() }],
    }
}

fn frames(numbers: std::ops::RangeInclusive<u64>) -> Vec<LoggedFrame> {
    let frame = |sequence| LoggedFrame {
        sequence,
        at: Timestamp(1_000 + sequence),
        frame: Frame {
            name: FrameName::Step(StepStatus::Progress),
            bytes: format!("event: step\ndata: {sequence}\n\n").into(),
            payload: None,
        },
    };
    numbers.map(frame).collect()
}

async fn put(ledger: &Ledger, record: &Record, frames: Vec<LoggedFrame>) {
    ledger.put(JobUpdate::new(record.clone(), frames)).await.unwrap();
}

fn everything() -> JobFilter {
    JobFilter { limit: 100, ..JobFilter::default() }
}

async fn ids(ledger: &Ledger, filter: JobFilter) -> Vec<JobId> {
    ledger.jobs(filter).await.unwrap().into_iter().map(|record| record.id).collect()
}

async fn unavailable(ledger: &Ledger) -> String {
    let mut health = ledger.health();
    let health = health.wait_for(|health| *health != Health::Available).await.unwrap();
    match &*health {
        Health::Unavailable(problem) => problem.clone(),
        Health::Available => unreachable!(),
    }
}

async fn available(ledger: &Ledger) {
    ledger.health().wait_for(|health| *health == Health::Available).await.unwrap();
}

#[tokio::test]
async fn what_is_written_is_there_after_a_restart() {
    let folder = folder();
    let directory = folder.path().join("a/b");
    let ledger = open(&directory).await;
    let (first, second) = (full(), full());
    put(&ledger, &first, frames(1..=2)).await;
    put(&ledger, &second, vec![]).await;
    ledger.close().await;

    let ledger = open(&directory).await;
    assert_eq!(ledger.job(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(ledger.job(JobId::new()).await.unwrap(), None);
    assert_eq!(ledger.jobs(everything()).await.unwrap(), [second, first.clone()]);
    assert_eq!(ledger.frames(first.id).await.unwrap(), frames(1..=2));
    ledger.close().await;
}

#[tokio::test]
async fn what_was_written_survives_a_bridge_that_is_killed() {
    let (folder, copy) = (folder(), tempfile::tempdir().unwrap());
    let ledger = open(folder.path()).await;
    let job = full();
    put(&ledger, &Record { end: None, ..job.clone() }, frames(1..=2)).await;
    put(&ledger, &job, frames(3..=3)).await;
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let after = open(copy.path()).await;
    assert_eq!(after.job(job.id).await.unwrap(), Some(job.clone()));
    assert_eq!(after.frames(job.id).await.unwrap(), frames(1..=3));
    after.close().await;
    ledger.close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, ledger) = fresh().await;
    put(&ledger, &full(), vec![]).await;
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm", "lock"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    ledger.close().await;
}

#[tokio::test]
async fn a_directory_belongs_to_one_bridge_at_a_time() {
    let folder = folder();
    let first = open(folder.path()).await;
    let job = bare();
    put(&first, &job, vec![]).await;
    let error = Ledger::open(options(folder.path())).await.unwrap_err();
    assert_eq!(error, LedgerOpenError::Held { directory: folder.path().to_owned() });
    let text = error.to_string();
    assert!(text.contains(folder.path().to_str().unwrap()) && text.contains("data_dir"), "{text}");
    assert_eq!(first.job(job.id).await.unwrap().unwrap().end, None);
    first.close().await;
    open(folder.path()).await.close().await;
}

#[tokio::test]
async fn a_ledger_of_a_newer_bridge_is_left_alone() {
    let folder = folder();
    open(folder.path()).await.close().await;
    let file = folder.path().join("ledger.sqlite3");
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&file).unwrap();
    let error = Ledger::open(options(folder.path())).await.unwrap_err();
    assert!(matches!(&error, LedgerOpenError::Newer { found: 99, .. }));
    let text = error.to_string();
    assert!(text.contains(file.to_str().unwrap()) && text.contains("newer") && text.contains("data_dir"));
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_database_makes_it_unavailable_until_it_is_gone() {
    let folder = folder();
    let file = folder.path().join("ledger.sqlite3");
    fs::write(&file, vec![b'x'; 5_000]).unwrap();
    let ledger = Ledger::open(options(folder.path())).await.unwrap();
    let problem = unavailable(&ledger).await;
    assert!(problem.contains(file.to_str().unwrap()) && problem.contains("not a database"), "{problem}");
    assert_eq!(ledger.never_worked(), None, "it may have");
    let job = full();
    let refused = ledger.put(JobUpdate::new(job.clone(), frames(1..=1))).await.unwrap_err();
    assert_eq!(refused.0, problem);
    assert_eq!(ledger.job(job.id).await.unwrap_err().0, problem);
    let secret = ledger.secret();

    fs::remove_file(&file).unwrap();
    available(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job.clone()));
    ledger.close().await;
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.secret(), secret, "the one that fingerprints were made with");
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_made_makes_it_unavailable_until_it_can() {
    let folder = folder();
    let obstacle = folder.path().join("obstacle");
    fs::write(&obstacle, "").unwrap();
    let ledger = Ledger::open(options(&obstacle.join("ledger"))).await.unwrap();
    let problem = unavailable(&ledger).await;
    assert!(problem.contains(obstacle.to_str().unwrap()), "{problem}");
    assert_eq!(ledger.never_worked(), Some(problem.as_str()));
    fs::remove_file(&obstacle).unwrap();
    available(&ledger).await;
    put(&ledger, &bare(), vec![]).await;
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_locked_from_the_start_is_opened_when_it_is_free() {
    let folder = folder();
    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ledger = Ledger::open(options(folder.path())).await.unwrap();
    let problem = unavailable(&ledger).await;
    assert!(problem.contains("ledger.sqlite3") && problem.contains("locked"), "{problem}");
    let job = bare();
    ledger.put(JobUpdate::new(job.clone(), vec![])).await.unwrap_err();
    other.execute_batch("ROLLBACK").unwrap();
    available(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job), "it is of this process, and goes on");
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_locked_later_on_loses_nothing() {
    let (folder, ledger) = fresh().await;
    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (first, second) = (full(), full());
    let waiting = [&first, &second].map(|record| ledger.put(JobUpdate::new(record.clone(), vec![])));
    for put in waiting {
        assert!(put.await.unwrap_err().0.contains("locked"));
    }
    assert!(unavailable(&ledger).await.contains("ledger.sqlite3"));
    other.execute_batch("ROLLBACK").unwrap();
    available(&ledger).await;
    assert_eq!(ledger.jobs(everything()).await.unwrap(), [second, first]);
    ledger.close().await;
}

#[tokio::test]
async fn jobs_of_a_crashed_bridge_are_interrupted_at_their_last_recorded_time() {
    let (folder, ledger) = fresh().await;
    let done = full();
    let heard = Record { end: None, ..full() };
    let started = Record { started: Some(Timestamp(1_200)), ..bare() };
    let queued = bare();
    for record in [&done, &heard, &started, &queued] {
        put(&ledger, record, vec![]).await;
    }
    ledger.close().await;

    let ledger = open(folder.path()).await;
    assert_eq!(ledger.job(done.id).await.unwrap(), Some(done));
    for (before, last) in [(&heard, 1_500), (&started, 1_200), (&queued, 1_000)] {
        let after = ledger.job(before.id).await.unwrap().unwrap();
        let end = after.end.clone().unwrap();
        assert_eq!(end.finished, Timestamp(last));
        assert_eq!((end.outcome, end.cause), (Outcome::Interrupted, Some(Cause::Crashed)));
        let failure = end.failure.unwrap();
        assert_eq!(failure.step, before.kind.row().step);
        assert_eq!(failure.error, "The bridge ended in the middle of this job.");
        assert!(failure.detail.contains(&Timestamp(last).to_string()), "{}", failure.detail);
        assert_eq!(Record { end: None, cooldown: before.cooldown, ..after }, *before);
    }
    let detail = ledger.job(heard.id).await.unwrap().unwrap().end.unwrap().failure.unwrap().detail;
    assert_eq!(
        detail,
        "Of 12 objects seen, 4 were completed, 1 had failed and 7 were unconfirmed; 32 events had been \
         read; it was last updated at 1970-01-01T00:00:01.500Z."
    );
    ledger.close().await;
}

#[tokio::test]
async fn a_cool_down_counts_from_the_restart_for_jobs_that_had_no_end_and_only_once() {
    let (folder, ledger) = fresh().await;
    let before = Timestamp::now();
    let cooldown = |least, until| Some(Cooldown { least: Duration::from_secs(least), until });
    let far = before.after(Duration::from_secs(600));
    let cancelled = Record { end: None, cooldown: cooldown(5, Timestamp(0)), ..full() };
    let long = Record { end: None, cooldown: cooldown(30, far), ..full() };
    let ended = Record { cooldown: cooldown(0, before.after(Duration::from_secs(60))), ..full() };
    let over = Record { cooldown: cooldown(0, before), ..full() };
    let none = Record { cooldown: None, ..full() };
    let waited = Record { end: None, ..bare() };
    for record in [&cancelled, &long, &ended, &over, &none, &waited] {
        put(&ledger, record, vec![]).await;
    }
    let cooling = ledger.cooling_down(before).await.unwrap();
    assert_eq!(cooling.iter().map(|record| record.id).collect::<Vec<_>>(), [ended.id], "the others run");
    ledger.close().await;

    let mut seen = None;
    for _ in 0..2 {
        let ledger = open(folder.path()).await;
        let cooling = ledger.cooling_down(before).await.unwrap();
        let ids: Vec<JobId> = cooling.iter().map(|record| record.id).collect();
        assert_eq!(ids, [long.id, ended.id, cancelled.id], "the longest first");
        let until: Vec<Timestamp> = cooling.iter().map(|record| record.cooldown.unwrap().until).collect();
        assert_eq!((until[0], until[1]), (far, ended.cooldown.unwrap().until));
        assert!(until[2] >= before.after(Duration::from_secs(5)));
        assert_eq!(*seen.get_or_insert(until.clone()), until, "it does not begin again");
        assert!(ledger.cooling_down(far).await.unwrap().is_empty());
        ledger.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_opens_late_tells_the_jobs_of_this_bridge_from_those_of_the_last() {
    let (folder, ledger) = fresh().await;
    let left = bare();
    put(&ledger, &left, vec![]).await;
    ledger.close().await;

    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ledger = Ledger::open(options(folder.path())).await.unwrap();
    unavailable(&ledger).await;
    let ours = bare();
    ledger.put(JobUpdate::new(ours.clone(), vec![])).await.unwrap_err();
    other.execute_batch("ROLLBACK").unwrap();
    available(&ledger).await;
    let outcome = ledger.job(left.id).await.unwrap().unwrap().end.map(|end| end.outcome);
    assert_eq!(outcome, Some(Outcome::Interrupted));
    assert_eq!(ledger.job(ours.id).await.unwrap(), Some(ours));
    ledger.close().await;
}

#[tokio::test]
async fn of_two_updates_in_one_batch_the_newer_counts() {
    let ledger = in_memory().await;
    let started = |started| Record { started: Some(Timestamp(started)), end: None, ..full() };
    for (older, newer) in
        [(started(1), started(2)), (started(1), full()), (full(), Record { cooldown: None, ..full() })]
    {
        let newer = Record { id: older.id, ..newer };
        let puts = [older, newer.clone()].map(|record| ledger.put(JobUpdate::new(record, vec![])));
        futures::future::try_join_all(puts).await.unwrap();
        assert_eq!(ledger.job(newer.id).await.unwrap(), Some(newer));
    }
}

#[tokio::test]
async fn what_was_written_leaves_all_room_to_what_is_pending() {
    let ledger = in_memory().await;
    let large = bytes::Bytes::from(format!("event: step\ndata: \"{}\"\n\n", "x".repeat(2 << 20)));
    // Together they are larger than what may be pending.
    for _ in 0..4 {
        let (record, mut frames) = (full(), frames(1..=10));
        frames.iter_mut().for_each(|frame| frame.frame.bytes = large.clone());
        put(&ledger, &record, frames).await;
        assert_eq!(ledger.frames(record.id).await.unwrap().len(), 10);
    }
}

#[tokio::test]
async fn queries_beyond_the_bound_fail_and_the_others_are_answered() {
    let ledger = in_memory().await;
    let queries = (0..300).map(|_| ledger.job(JobId::new()));
    let answers = futures::future::join_all(queries.collect::<Vec<_>>()).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 256);
}

#[tokio::test]
async fn an_inspection_of_copied_files_leaves_no_file_behind() {
    let (original, copy) = (folder(), folder());
    let ledger = open(original.path()).await;
    put(&ledger, &full(), vec![]).await;
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        fs::copy(original.path().join(name), copy.path().join(name)).unwrap();
    }
    inspect(copy.path()).unwrap();
    assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 2);
    ledger.close().await;
}

#[tokio::test]
async fn a_recorded_end_survives_late_writes() {
    let ledger = in_memory().await;
    let job = full();
    put(&ledger, &Record { end: None, ..job.clone() }, vec![]).await;
    put(&ledger, &job, vec![]).await;
    let late =
        Record { end: None, started: None, cooldown: None, progress: JobProgress::default(), ..job.clone() };
    put(&ledger, &late, vec![]).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job.clone()));
    let corrected = Record { end: Some(end(3_000)), ..job };
    put(&ledger, &corrected, vec![]).await;
    assert_eq!(ledger.job(corrected.id).await.unwrap(), Some(corrected));
    ledger.close().await;
}

#[tokio::test]
async fn the_last_frames_of_each_job_are_kept() {
    let ledger = in_memory().await;
    let (job, other) = (bare(), bare());
    put(&ledger, &other, frames(1..=3)).await;
    put(&ledger, &job, frames(1..=8)).await;
    put(&ledger, &job, frames(8..=12)).await;
    assert_eq!(ledger.frames(job.id).await.unwrap(), frames(3..=12));
    assert_eq!(ledger.frames(other.id).await.unwrap(), frames(1..=3));
    let mut again = frames(12..=12);
    again[0].frame.name = FrameName::Error;
    again[0].frame.bytes = "event: error\ndata: other\n\n".into();
    put(&ledger, &job, again.clone()).await;
    assert_eq!(ledger.frames(job.id).await.unwrap(), [frames(3..=11), again].concat());
    ledger.close().await;
}

#[tokio::test]
async fn pages_follow_each_other_under_every_filter() {
    let ledger = in_memory().await;
    let mut records = Vec::new();
    for number in 0..40_u64 {
        let mut record = if number % 2 == 0 { full() } else { bare() };
        record.kind = if number % 3 == 0 { Kind::Devices } else { Kind::Storage };
        record.backend = ["http://default", "http://other"][usize::from(number % 5 == 0)].to_owned().into();
        record.queued = Timestamp(number);
        records.push(record);
    }
    let puts: Vec<_> =
        records.iter().map(|record| ledger.put(JobUpdate::new(record.clone(), vec![]))).collect();
    for put in puts {
        put.await.unwrap();
    }
    records.reverse();
    let wanted = |keep: &dyn Fn(&Record) -> bool| -> Vec<JobId> {
        records.iter().filter(|record| keep(record)).map(|record| record.id).collect()
    };
    let outcome = |record: &Record| record.end.as_ref().map(|end| end.outcome);
    let cases: [(JobFilter, Vec<JobId>); 8] = [
        (everything(), wanted(&|_| true)),
        (JobFilter { kind: Some(Kind::Devices), ..everything() }, wanted(&|r| r.kind == Kind::Devices)),
        (
            JobFilter { outcomes: vec![Outcome::Errored], ..everything() },
            wanted(&|r| outcome(r) == Some(Outcome::Errored)),
        ),
        (JobFilter { outcomes: vec![Outcome::Completed], ..everything() }, vec![]),
        (JobFilter { outcomes: vec![Outcome::Completed, Outcome::TimedOut], ..everything() }, vec![]),
        (
            JobFilter { outcomes: vec![Outcome::Completed, Outcome::Errored], ..everything() },
            wanted(&|r| outcome(r) == Some(Outcome::Errored)),
        ),
        (JobFilter { since: Some(Timestamp(10)), ..everything() }, wanted(&|r| r.queued >= Timestamp(10))),
        (
            JobFilter {
                kind: Some(Kind::Storage),
                backend: Some("http://other".parse().unwrap()),
                since: Some(Timestamp(5)),
                ..everything()
            },
            wanted(&|r| {
                r.kind == Kind::Storage && r.backend.to_string() == "http://other" && r.queued >= Timestamp(5)
            }),
        ),
    ];
    for (filter, wanted) in cases {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = ids(&ledger, JobFilter { before, limit: 3, ..filter.clone() }).await;
            assert!(page.len() <= 3);
            let Some(last) = page.last() else { break };
            before = Some(*last);
            found.extend(page);
        }
        assert_eq!(found, wanted, "{filter:?}");
    }
    ledger.close().await;
}

#[tokio::test]
async fn the_secret_lives_as_long_as_the_ledger() {
    let (folder, other) = (folder(), tempfile::tempdir().unwrap());
    let ledger = open(folder.path()).await;
    let secret = ledger.secret();
    ledger.close().await;
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.secret(), secret);
    ledger.close().await;
    let ledger = open(other.path()).await;
    assert_ne!(ledger.secret(), secret);
    ledger.close().await;
}

#[tokio::test]
async fn closing_writes_what_is_left_and_can_be_done_twice() {
    let (folder, ledger) = fresh().await;
    let job = full();
    let put = ledger.put(JobUpdate::new(job.clone(), vec![]));
    futures::future::join(ledger.close(), ledger.close()).await;
    ledger.close().await;
    put.await.unwrap();
    assert!(!folder.path().join("ledger.sqlite3-wal").exists(), "everything is in the one file");
    let late = ledger.put(JobUpdate::new(job.clone(), vec![])).await.unwrap_err();
    assert!(late.0.contains("closed"), "{late}");
    assert!(ledger.job(job.id).await.is_err());
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn closing_tries_once_more_to_write_what_could_not_be_written() {
    let (folder, ledger) = fresh().await;
    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let job = full();
    ledger.put(JobUpdate::new(job.clone(), vec![])).await.unwrap_err();
    drop(other);
    ledger.close().await;
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
    ledger.close().await;
}

fn counts() -> impl Strategy<Value = Counts> {
    let count = any::<[u64; 4]>().prop_map(|[seen, completed, failed, unconfirmed]| Count {
        seen,
        completed,
        failed,
        unconfirmed,
    });
    proptest::collection::vec((proptest::sample::select(Object::ALL.to_vec()), count), 0..4).prop_map(Counts)
}

fn ends() -> impl Strategy<Value = JobEnd> {
    let failure =
        ("\\PC*", "\\PC*", "\\PC*").prop_map(|(step, error, detail)| Failure { step, error, detail });
    let failed = ("\\PC*", ".*").prop_map(|(object, error)| FailedObject { object, error });
    (
        0..1_u64 << 62,
        proptest::sample::select(Outcome::ALL.to_vec()),
        proptest::option::of(proptest::sample::select(Cause::ALL.to_vec())),
        proptest::option::of(failure),
        proptest::collection::vec(failed, 0..3),
    )
        .prop_map(|(finished, outcome, cause, failure, failed_objects)| JobEnd {
            finished: Timestamp(finished),
            outcome,
            cause,
            failure,
            failed_objects,
        })
}

/// One of the `known` values, or any other.
fn stored<T: FromStr + Display + Debug>(known: &'static [&'static str]) -> impl Strategy<Value = Stored<T>> {
    let known = proptest::sample::select(known).prop_map(str::to_owned);
    prop_oneof![known, ".*"].prop_map(Stored::from)
}

fn records() -> impl Strategy<Value = Record> {
    let time = || 0..1_u64 << 62;
    let text = || proptest::option::of(".*");
    let what = (
        stored(&["http://pve:8800", "https://[::1]"]),
        proptest::sample::select(Kind::all().collect::<Vec<_>>()),
        proptest::option::of(any::<u64>()),
        proptest::collection::vec(stored(&Channel::NAMES), 0..3),
        proptest::option::of(stored(&Dialect::NAMES)),
        ".*",
    );
    let who = (text(), text(), text());
    let times = (time(), proptest::option::of(time()), proptest::option::of(time()));
    let progress = (proptest::option::of(time()), counts(), any::<[u64; 7]>());
    let end = (proptest::option::of((time(), time())), proptest::option::of(ends()));
    (what, who, times, progress, end).prop_map(|(what, who, times, progress, (cooldown, end))| {
        let (backend, kind, vm, channels, dialect, query) = what;
        let (fingerprint, address, actor) = who;
        let (queued, started, updated) = times;
        let (first, counts, numbers) = progress;
        let [failed_left_out, frames_in, bytes_in, frames_out, bytes_out, watchers, attaches] = numbers;
        Record {
            id: JobId::new(),
            backend,
            kind,
            vm,
            channels,
            dialect,
            query,
            cancelled_by: actor.clone(),
            requester: Requester { fingerprint, address, actor },
            queued: Timestamp(queued),
            started: started.map(Timestamp),
            progress: JobProgress {
                updated: updated.map(Timestamp),
                first_frame: first.map(Duration::from_millis),
                counts,
                failed_left_out,
                frames_in,
                bytes_in,
                frames_out,
                bytes_out,
                watchers,
                attaches,
            },
            cooldown: cooldown.map(|(least, until)| Cooldown {
                least: Duration::from_millis(least),
                until: Timestamp(until),
            }),
            end,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_record_is_read_as_it_was_last_written(record in records(), before in records()) {
        let Record { id, backend, kind, vm, query, requester, queued, .. } = record.clone();
        let Record { channels, dialect, started, mut progress, cooldown, cancelled_by, .. } = before;
        progress.failed_left_out = record.progress.failed_left_out;
        let before = Record {
            id, backend, kind, vm, channels, dialect, query, requester, queued, started, progress, cooldown,
            cancelled_by, end: None,
        };
        let unfinished = Record { end: None, ..record.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let ledger = in_memory().await;
            for written in [before, unfinished, record] {
                put(&ledger, &written, vec![]).await;
                prop_assert_eq!(ledger.job(written.id).await.unwrap(), Some(written));
            }
            ledger.close().await;
            Ok(())
        })?;
    }
}
