//! Tests of internals.

use std::sync::{Arc, Mutex};

use futures::future::try_join_all;
use rusqlite::types::Value;
use rusqlite::{Connection, StatementStatus};

use super::SqliteStore;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{ObjectFailure, Outcome};
use crate::core::http::url::BackendUrl;
use crate::core::run::capabilities::{Capabilities, SocketSupport};
use crate::ledger::retention::CleaningPlan;
use crate::ledger::store::{Store, StoreContext};
use crate::ledger::tests::{available, ended, frames, options, record};
use crate::ledger::{
    BackendHistory, Cleaning, CleaningResult, DetectedCapabilities, Health, JobEnd, JobFilter, JobUpdate,
    LastSuccess, Ledger, LedgerOptions, LoggedFailure, Record, Run, Timestamp,
};

/// A ledger, and its store.
async fn open(options: LedgerOptions) -> (Arc<Ledger>, Arc<Mutex<SqliteStore>>) {
    let context = StoreContext::new(&options);
    let store = Arc::new(Mutex::new(SqliteStore::new(options, context.clone())));
    (Ledger::start(store.clone(), context).await.unwrap(), store)
}

/// Runs `work` on the connection of the store.
fn within<T>(store: &Mutex<SqliteStore>, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> T {
    store.lock().unwrap().query(|connection, _| Ok(work(connection)?)).unwrap()
}

fn pragma(store: &Mutex<SqliteStore>, name: &str) -> String {
    let value = within(store, |connection| connection.pragma_query_value(None, name, |row| row.get(0)));
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_commit_is_on_the_disk_when_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(options(Some(folder.path()))).await;
    for (name, value) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("auto_vacuum", "2"),
        ("user_version", &super::schema::VERSION.to_string()),
    ] {
        assert_eq!(pragma(&store, name), value, "{name}");
    }
    ledger.close().await;
}

/// The number of commits in the write-ahead log.
fn commits(log: &[u8]) -> usize {
    // The header of the last page of a commit has the size of the database in its second word.
    const HEADERS: (usize, usize) = (32, 24);
    let pages = log.get(HEADERS.0..).unwrap_or_default().chunks(HEADERS.1 + 4096);
    pages.filter(|page| page[4..8] != [0; 4]).count()
}

#[test]
fn a_ledger_opens_with_at_most_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    for why in ["new", "existing"] {
        let options = options(Some(folder.path()));
        let context = StoreContext::new(&options);
        let mut store = SqliteStore::new(options, context);
        store.open().unwrap();
        let log = std::fs::read(folder.path().join("ledger.sqlite3-wal")).unwrap();
        // None, if it opens in the millisecond in which it was closed.
        assert!(commits(&log) <= 1, "{why}: {} commits", commits(&log));
        store.close();
    }
}

#[tokio::test]
async fn the_cache_in_memory_and_the_log_on_the_disk_are_small() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(options(Some(folder.path()))).await;
    assert_eq!(pragma(&store, "cache_size"), "-256", "256 KiB");
    assert_eq!(pragma(&store, "journal_size_limit"), "16777216", "16 MiB");
    ledger.close().await;
}

#[tokio::test]
async fn a_kept_statement_is_not_prepared_again_for_other_values() {
    let (ledger, store) = open(options(None)).await;
    let sql = "SELECT id FROM jobs WHERE backend = ?1 AND outcome = ?2 AND kind = 'devices' ORDER BY id DESC";
    let again = within(&store, |connection| {
        for value in ["a", "b"] {
            connection.prepare_cached(sql)?.exists([value, value])?;
        }
        Ok(connection.prepare_cached(sql)?.get_status(StatementStatus::RePrepare))
    });
    assert_eq!(again, 0);
    ledger.close().await;
}

#[tokio::test]
async fn a_write_of_progress_without_failures_and_a_cooldown_changes_no_index() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(options(Some(folder.path()))).await;
    let job = record();
    let write = async |job: Record| {
        let size = || std::fs::metadata(folder.path().join("ledger.sqlite3-wal")).unwrap().len();
        let before = size();
        ledger.put(JobUpdate::new(job, vec![])).await.unwrap();
        // With its head, a page of 4,096 bytes takes 4,120.
        (size() - before) / 4_120
    };
    assert!(write(job.clone()).await > 2, "a new record is in every index");
    let later = Record { started: Some(Timestamp(1_100)), ..job };
    assert_eq!(write(later).await, 1, "the page of the record");
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(options(Some(folder.path()))).await;
    let before = record();
    ledger.put(JobUpdate::new(before.clone(), vec![])).await.unwrap();
    let full = "PRAGMA max_page_count = 1";
    within(&store, |connection| connection.query_row(full, [], |_| Ok(())));

    let (first, second) = (ended(&before), record());
    let refused = ledger.put(JobUpdate::new(first.clone(), frames(1..=9))).await.unwrap_err();
    assert!(refused.0.contains("ledger.sqlite3") && refused.0.contains("full"), "{refused}");
    assert_eq!(*ledger.health().borrow(), Health::Unavailable(refused.0.clone()));
    // Known to be unavailable: this put does not wait.
    let at_once = ledger.put(JobUpdate::new(second.clone(), frames(1..=2))).await;
    assert_eq!(at_once, Err(refused));
    // Earlier records can be read.
    assert_eq!(ledger.job(before.id).await.unwrap(), Some(before.clone()));

    let roomy = "PRAGMA max_page_count = 100000";
    within(&store, |connection| connection.query_row(roomy, [], |_| Ok(())));
    available(&ledger).await;
    assert_eq!(ledger.job(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(ledger.frames(first.id).await.unwrap(), frames(1..=9));
    assert_eq!(ledger.job(second.id).await.unwrap(), Some(second.clone()));
    assert_eq!(ledger.frames(second.id).await.unwrap(), frames(1..=2));
    ledger.close().await;
}

#[tokio::test]
async fn a_row_that_no_bridge_wrote_is_an_error_that_names_the_job() {
    let (ledger, store) = open(options(None)).await;
    for (column, value) in
        [("kind", "cats"), ("counts", "[{}]"), ("outcome", "done"), ("cause", "fate"), ("channels", "x")]
    {
        let job = record();
        ledger.put(JobUpdate::new(ended(&job), vec![])).await.unwrap();
        let sql = format!("UPDATE jobs SET {column} = ?1");
        within(&store, |connection| connection.execute(&sql, [value]));
        let error = ledger.job(job.id).await.unwrap_err();
        assert!(error.0.contains(&job.id.to_string()) && error.0.contains(column), "{error}");
        assert_eq!(*ledger.health().borrow(), Health::Available);
    }
    ledger.close().await;
}

#[tokio::test]
async fn what_is_removed_gives_its_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(LedgerOptions { log_frames: 5_000, ..options(Some(folder.path())) }).await;
    let job = ended(&record());
    ledger.put(JobUpdate::new(job.clone(), frames(1..=4_500))).await.unwrap();
    let pages: u64 = pragma(&store, "page_count").parse().unwrap();
    within(&store, |connection| connection.execute("UPDATE jobs SET recorded = recorded - 30001", []));
    let cleaned = ledger.clean(Cleaning::Scheduled).await.unwrap();
    assert_eq!(cleaned, CleaningResult { logs: vec![job.id], ..CleaningResult::default() });
    let left: u64 = pragma(&store, "page_count").parse().unwrap();
    assert!(left < pages / 10, "{left} of {pages}");
    ledger.close().await;
}

#[tokio::test]
async fn one_step_of_a_cleaning_removes_a_limited_number_of_frames() {
    let (ledger, store) = open(options(None)).await;
    let jobs = 300;
    let update = || JobUpdate::new(ended(&record()), frames(1..=10));
    let puts = (0..jobs).map(|_| ledger.put(update()));
    try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
    let plan = CleaningPlan { jobs_before: i64::MAX, logs_before: i64::MAX, jobs, logs: jobs };
    let (cleaned, rest) = store.lock().unwrap().clean(plan).unwrap();
    assert_eq!((cleaned.logs.len(), rest.unwrap().logs), (200, 100), "2,000 frames");
    ledger.close().await;
}

#[tokio::test]
async fn one_step_of_a_cleaning_removes_a_limited_number_of_failed_objects() {
    let (ledger, store) = open(options(None)).await;
    let jobs = 150;
    let failed = |number| LoggedFailure { number, at: Timestamp(1), failure: ObjectFailure::example() };
    let update = || JobUpdate { failed: (1..=20).map(failed).collect(), ..update(&ended(&record())) };
    let puts = (0..jobs).map(|_| ledger.put(update()));
    try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
    let plan = CleaningPlan { jobs_before: i64::MAX, logs_before: i64::MAX, jobs, logs: jobs };
    let (cleaned, rest) = store.lock().unwrap().clean(plan).unwrap();
    assert_eq!((cleaned.jobs.len(), rest.unwrap().jobs), (100, 50), "2,000 failed objects");
    ledger.close().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_read_is_interrupted_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(options(Some(folder.path()))).await;
    ledger.put(JobUpdate::new(record(), vec![])).await.unwrap();
    within(&store, |connection| connection.execute("UPDATE jobs SET kind = 'cats', counts = ''", []));
    ledger.close().await;
    let (ledger, store) = open(options(Some(folder.path()))).await;
    let end: (String, String, i64) = within(&store, |connection| {
        connection.query_row("SELECT outcome, failure_step, finished FROM jobs", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
    });
    assert_eq!(end, ("interrupted".to_owned(), "cats".to_owned(), 1_000));
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_may_be_broken_is_replaced_and_nothing_is_taken_for_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(options(Some(folder.path()))).await;
    within(&store, |connection| connection.pragma_update(None, "query_only", 1));
    let job = ended(&record());
    assert!(ledger.put(JobUpdate::new(job.clone(), vec![])).await.is_err());
    available(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
    assert_eq!(*ledger.lost().borrow(), None);
    ledger.close().await;
}

/// A record of the job that completed at `finished`.
fn completed(finished: u64) -> Record {
    let job = record();
    let end = JobEnd {
        finished: Timestamp(finished),
        outcome: Outcome::Completed,
        cause: None,
        failure: None,
        failed_objects: vec![],
    };
    Record { started: Some(Timestamp(1_000)), end: Some(end), ..job }
}

fn update(record: &Record) -> JobUpdate {
    JobUpdate { record: record.clone(), frames: vec![], failed: vec![] }
}

#[tokio::test]
async fn the_last_success_outlives_its_record_and_other_ends_do_not_replace_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = open(options(Some(folder.path()))).await;
    let url: BackendUrl = "http://default".parse().unwrap();
    let success = |record: &Record| {
        let success = LastSuccess::from_record(record).unwrap();
        vec![(url.clone(), Kind::Devices, success)]
    };
    let older = completed(2_000);
    ledger.put(update(&older)).await.unwrap();
    // The clock was set back in between.
    let last = completed(1_500);
    ledger.put(update(&last)).await.unwrap();
    let single = Record { vm: Some(7), ..completed(3_000) };
    let skipped = Record { started: None, ..completed(3_000) };
    // The end of the cool-down of a job is recorded after its end.
    for other in [&single, &skipped, &ended(&record()), &record(), &older] {
        ledger.put(update(other)).await.unwrap();
    }
    assert_eq!(ledger.history().await.unwrap().successes, success(&last));

    within(&store, |connection| connection.execute("UPDATE jobs SET recorded = recorded - 60001", []));
    ledger.clean(Cleaning::Scheduled).await.unwrap();
    assert_eq!(ledger.job(last.id).await.unwrap(), None);
    ledger.close().await;
    let (ledger, _) = open(options(Some(folder.path()))).await;
    assert_eq!(ledger.history().await.unwrap().successes, success(&last));
    ledger.close().await;
}

#[tokio::test]
async fn runs_that_never_started_or_cannot_be_read_do_not_count_towards_the_limit() {
    let (ledger, store) = open(options(None)).await;
    let (first, damaged) = (completed(1_500), completed(1_600));
    let second = Record { vm: Some(7), ..completed(1_700) };
    let unstarted = Record { started: None, ..completed(1_800) };
    for record in [&first, &second, &damaged, &unstarted] {
        ledger.put(update(record)).await.unwrap();
    }
    let damage = "UPDATE jobs SET kind = 'cats' WHERE id = ?1";
    within(&store, |connection| connection.execute(damage, [damaged.id.to_string()]));
    let filter = JobFilter { outcomes: vec![Outcome::Completed], limit: 2, ..JobFilter::default() };
    let runs = ledger.runs(filter).await.unwrap();
    let run = |record: &Record| {
        let duration = record.end.as_ref().unwrap().finished.since(record.started.unwrap());
        Run { kind: record.kind, vm: record.vm, duration }
    };
    assert_eq!(runs, [run(&second), run(&first)]);
    ledger.close().await;
}

#[tokio::test]
async fn the_capabilities_of_a_backend_are_kept_and_a_damaged_row_is_skipped() {
    let (ledger, store) = open(options(None)).await;
    let capabilities = Capabilities {
        has_settings: Some(false),
        socket: SocketSupport::Denied,
        correlates: true,
        ..Capabilities::with_streams("0.0.11.post2", &[Kind::Devices])
    };
    let detected = DetectedCapabilities { at: Timestamp(5), capabilities };
    let url: BackendUrl = "http://default".parse().unwrap();
    let other = "http://other".parse().unwrap();
    let save = |url: BackendUrl, detected| {
        ledger.save_history(BackendHistory { capabilities: vec![(url, detected)], ..Default::default() })
    };
    save(other, detected.clone()).await.unwrap();
    let before = DetectedCapabilities { at: Timestamp(4), capabilities: Capabilities::default() };
    for detected in [before, detected.clone()] {
        save(url.clone(), detected).await.unwrap();
    }
    let damage = "UPDATE backends SET capabilities = '{' WHERE url = 'http://other'";
    within(&store, |connection| connection.execute(damage, []));
    assert_eq!(ledger.history().await.unwrap().capabilities, [(url, detected)]);
    ledger.close().await;
}
