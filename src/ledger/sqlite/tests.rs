//! Tests of internals, and helpers for several tests.

use std::path::Path;

use rusqlite::types::Value;

use crate::core::domain::event::Failure;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, Outcome};
use crate::core::wire::sse::frame::{Frame, FrameName};
use crate::ledger::sqlite::*;
use crate::ledger::{Clock, JobEnd};

/// The record of a queued job.
pub(crate) fn record() -> Record {
    Record::new("default".to_owned(), Kind::Devices, Timestamp(1_000))
}

/// The same record with an end.
pub(crate) fn ended(record: &Record) -> Record {
    let end = JobEnd {
        finished: Timestamp(2_000),
        outcome: Outcome::Errored,
        cause: Some(Cause::BackendLost),
        failure: Some(Failure { step: "devices".to_owned(), error: "a".to_owned(), detail: "b".to_owned() }),
        failed_objects: vec![],
    };
    Record { end: Some(end), ..record.clone() }
}

/// Clocks that stand still.
#[derive(Debug)]
struct FixedClock(Timestamp);

impl Clock for FixedClock {
    fn wall(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn is_synchronised(&self) -> Option<bool> {
        None
    }
}

/// The record clock before its first open, with the wall clock at `wall`.
pub(super) fn aging(wall: u64) -> RecordClock {
    RecordClock::new(Arc::new(FixedClock(Timestamp(wall))), retention())
}

fn retention() -> Retention {
    let seconds = Duration::from_secs;
    Retention {
        jobs: seconds(60),
        logs: seconds(30),
        clock_jump: seconds(60),
        clock_hold: seconds(10),
        share: 100,
    }
}

fn options(directory: Option<&Path>) -> LedgerOptions {
    LedgerOptions {
        directory: directory.map(Path::to_owned),
        retention: retention(),
        log_frames: 10,
        clock: Arc::new(FixedClock(Timestamp(2_000))),
    }
}

fn frames(numbers: std::ops::RangeInclusive<u64>) -> Vec<LoggedFrame> {
    let bytes = format!("event: x\ndata: {}\n\n", "x".repeat(2_000));
    numbers
        .map(|sequence| LoggedFrame {
            sequence,
            at: Timestamp(sequence),
            frame: Frame { name: FrameName::Extra, bytes: bytes.clone().into(), payload: None },
        })
        .collect()
}

/// Runs `work` on the connection of the ledger.
async fn within<T: Send + 'static>(
    ledger: &Sqlite,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
) -> T {
    ledger.requests.query(move |connection| Ok(work(connection)?)).await.unwrap()
}

async fn pragma(ledger: &Sqlite, name: &'static str) -> String {
    let value =
        within(ledger, move |connection| connection.pragma_query_value(None, name, |row| row.get(0))).await;
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}

async fn available(ledger: &Sqlite) {
    ledger.health().wait_for(|health| *health == Health::Available).await.unwrap();
}

#[tokio::test]
async fn a_commit_is_on_the_disk_when_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Sqlite::open(options(Some(folder.path()))).await.unwrap();
    for (name, value) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("auto_vacuum", "2"),
        ("user_version", "4"),
    ] {
        assert_eq!(pragma(&ledger, name).await, value, "{name}");
    }
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Sqlite::open(options(Some(folder.path()))).await.unwrap();
    let before = record();
    ledger.put(JobUpdate { record: before.clone(), frames: vec![] }).await.unwrap();
    let full = "PRAGMA max_page_count = 1";
    within(&ledger, move |connection| connection.query_row(full, [], |_| Ok(()))).await;

    let (first, second) = (ended(&before), record());
    let refused = ledger.put(JobUpdate { record: first.clone(), frames: frames(1..=9) }).await.unwrap_err();
    assert!(refused.0.contains("ledger.sqlite3") && refused.0.contains("full"), "{refused}");
    assert_eq!(*ledger.health().borrow(), Health::Unavailable(refused.0.clone()));
    // Known to be unavailable: this put does not wait.
    let at_once = ledger.put(JobUpdate { record: second.clone(), frames: frames(1..=2) }).await;
    assert_eq!(at_once, Err(refused));
    // Earlier records can be read.
    assert_eq!(ledger.job(before.id).await.unwrap(), Some(before.clone()));

    let roomy = "PRAGMA max_page_count = 100000";
    within(&ledger, move |connection| connection.query_row(roomy, [], |_| Ok(()))).await;
    available(&ledger).await;
    assert_eq!(ledger.job(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(ledger.frames(first.id, 0).await.unwrap(), frames(1..=9));
    assert_eq!(ledger.job(second.id).await.unwrap(), Some(second.clone()));
    assert_eq!(ledger.frames(second.id, 1).await.unwrap(), frames(2..=2));
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_middle_of_something_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Sqlite::open(options(Some(folder.path()))).await.unwrap();
    let job = record();
    let put = ledger.put(JobUpdate { record: job.clone(), frames: frames(1..=2) });
    let panicked = ledger.requests.query(|_| -> Result<(), RowError> { panic!("on purpose") });
    assert!(panicked.await.is_err());
    let _ = put.await;
    ledger.health().wait_for(|health| *health != Health::Available).await.unwrap();
    available(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job.clone()));
    assert_eq!(ledger.frames(job.id, 0).await.unwrap(), frames(1..=2));
    ledger.put(JobUpdate { record: ended(&job), frames: vec![] }).await.unwrap();
    ledger.close().await;
}

#[tokio::test]
async fn a_row_that_no_bridge_wrote_is_an_error_that_names_the_job() {
    let ledger = Sqlite::open(options(None)).await.unwrap();
    let job = record();
    for (column, value) in
        [("kind", "cats"), ("counts", "[{}]"), ("outcome", "done"), ("cause", "fate"), ("channels", "x")]
    {
        ledger.put(JobUpdate { record: ended(&job), frames: vec![] }).await.unwrap();
        let sql = format!("UPDATE jobs SET {column} = ?1");
        within(&ledger, move |connection| connection.execute(&sql, [value])).await;
        let error = ledger.job(job.id).await.unwrap_err();
        assert!(error.0.contains(&job.id.to_string()) && error.0.contains(column), "{error}");
        assert_eq!(*ledger.health().borrow(), Health::Available);
    }
    ledger.close().await;
}

#[tokio::test]
async fn what_is_removed_gives_its_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let ledger =
        Sqlite::open(LedgerOptions { log_frames: 5_000, ..options(Some(folder.path())) }).await.unwrap();
    let job = ended(&record());
    ledger.put(JobUpdate { record: job.clone(), frames: frames(1..=4_500) }).await.unwrap();
    let pages: u64 = pragma(&ledger, "page_count").await.parse().unwrap();
    within(&ledger, |connection| connection.execute("UPDATE jobs SET recorded = recorded - 30001", [])).await;
    let cleaned = ledger.clean(Cleaning::Scheduled).await.unwrap();
    assert_eq!(cleaned, CleaningResult { logs: vec![job.id], ..CleaningResult::default() });
    let left: u64 = pragma(&ledger, "page_count").await.parse().unwrap();
    assert!(left < pages / 10, "{left} of {pages}");
    ledger.close().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_read_is_interrupted_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Sqlite::open(options(Some(folder.path()))).await.unwrap();
    ledger.put(JobUpdate { record: record(), frames: vec![] }).await.unwrap();
    within(&ledger, |connection| connection.execute("UPDATE jobs SET kind = 'cats', counts = ''", [])).await;
    ledger.close().await;
    let ledger = Sqlite::open(options(Some(folder.path()))).await.unwrap();
    let end: (String, String, i64) = within(&ledger, |connection| {
        connection.query_row("SELECT outcome, failure_step, finished FROM jobs", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
    })
    .await;
    assert_eq!(end, ("interrupted".to_owned(), "cats".to_owned(), 1_000));
    ledger.close().await;
}

#[test]
fn what_is_in_memory_alone_is_kept_for_less_and_goes_at_once() {
    let day = Duration::from_secs(24 * 60 * 60);
    let long = Retention { jobs: 90 * day, logs: 7 * day, share: 10, ..retention() };
    assert_eq!(effective_retention(long, Some(Path::new("/var/lib/proxbox-bridge"))), long);
    let expected = Retention { jobs: JOBS_IN_MEMORY, logs: LOGS_IN_MEMORY, share: 100, ..long };
    assert_eq!(effective_retention(long, None), expected);
    assert_eq!(effective_retention(retention(), None), retention(), "what is to be kept for less still is");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_may_be_broken_is_replaced_and_nothing_is_taken_for_lost() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Sqlite::open(options(Some(folder.path()))).await.unwrap();
    within(&ledger, |connection| connection.pragma_update(None, "query_only", 1)).await;
    let job = ended(&record());
    assert!(ledger.put(JobUpdate { record: job.clone(), frames: vec![] }).await.is_err());
    available(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
    assert_eq!(*ledger.lost().borrow(), None);
    ledger.close().await;
}
