//! The failed objects of jobs.

use std::path::Path;

use proxbox_bridge::core::domain::object::Object;
use proxbox_bridge::core::domain::outcome::ObjectFailure;
use proxbox_bridge::ledger::{
    Cleaning, FailureGroup, JobId, JobUpdate, Ledger, LoggedFailure, Record, Timestamp,
};
use rusqlite::Connection;

use super::{DAY, available, folder, fresh, full, in_memory, open};

fn failures(numbers: std::ops::RangeInclusive<u64>) -> Vec<LoggedFailure> {
    let failure = |number: u64| LoggedFailure {
        number,
        at: Timestamp(1_000 + number),
        failure: ObjectFailure {
            object: Object::VirtualMachine,
            name: format!("web{number}"),
            cluster: Some("lab".to_owned()),
            owner: number.is_multiple_of(2).then(|| "pve1".to_owned()),
            count: number % 3 + 1,
            error: format!("error {}", number % 3),
        },
    };
    numbers.map(failure).collect()
}

async fn put(ledger: &Ledger, record: &Record, failed: Vec<LoggedFailure>) {
    ledger.put(JobUpdate { record: record.clone(), frames: vec![], failed }).await.unwrap();
}

fn rows(directory: &Path) -> i64 {
    let file = Connection::open(directory.join("ledger.sqlite3")).unwrap();
    file.query_row("SELECT count(*) FROM failed_objects", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn failed_objects_are_read_page_by_page_after_a_restart() {
    let (folder, ledger) = fresh().await;
    let (job, other) = (full(), full());
    put(&ledger, &Record { end: None, ..job.clone() }, failures(1..=4)).await;
    put(&ledger, &other, failures(1..=1)).await;
    put(&ledger, &job, failures(5..=7)).await;
    ledger.close().await;
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.failed(job.id, 0, 100).await.unwrap(), failures(1..=7));
    assert_eq!(ledger.failed(job.id, 2, 3).await.unwrap(), failures(3..=5));
    assert_eq!(ledger.failed(job.id, 7, 3).await.unwrap(), []);
    assert_eq!(ledger.failed(JobId::new(), 0, 3).await.unwrap(), []);
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
    ledger.close().await;
}

#[tokio::test]
async fn failed_objects_that_are_left_out_do_not_return_with_a_later_record() {
    let ledger = in_memory().await;
    let mut job = full();
    for (counted, kept) in [(3, 3), (1, 3), (4, 4)] {
        job.progress.failed_left_out = counted;
        put(&ledger, &job, vec![]).await;
        assert_eq!(ledger.job(job.id).await.unwrap().unwrap().progress.failed_left_out, kept);
    }
    ledger.close().await;
}

#[tokio::test]
async fn failed_objects_are_grouped_by_error_the_largest_group_first() {
    let ledger = in_memory().await;
    let job = full();
    put(&ledger, &job, failures(1..=7)).await;
    let group = |error: &str, count, first| FailureGroup { error: error.to_owned(), count, first };
    let groups = [group("error 1", 6, 1), group("error 2", 6, 2), group("error 0", 2, 3)];
    assert_eq!(ledger.failed_by_error(job.id, 0, 100).await.unwrap(), groups);
    assert_eq!(ledger.failed_by_error(job.id, 1, 1).await.unwrap(), groups[1..=1]);
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn failed_objects_survive_a_file_that_cannot_be_written() {
    let (folder, ledger) = fresh().await;
    let other = Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let job = full();
    for failed in [failures(1..=3), failures(4..=5)] {
        let update = JobUpdate { record: job.clone(), frames: vec![], failed };
        assert!(ledger.put(update).await.is_err());
    }
    other.execute_batch("ROLLBACK").unwrap();
    available(&ledger).await;
    assert_eq!(ledger.failed(job.id, 0, 100).await.unwrap(), failures(1..=5));
    ledger.close().await;
}

#[tokio::test]
async fn failed_objects_are_removed_with_the_record_of_their_job_and_not_before() {
    let (folder, ledger) = fresh().await;
    let (old, young) = (full(), full());
    put(&ledger, &old, failures(1..=4_500)).await;
    put(&ledger, &young, failures(1..=3)).await;
    let age = async |days: u32| {
        let file = Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
        let age = (days * DAY).as_millis() as i64;
        let sql = "UPDATE jobs SET recorded = recorded - ?2 WHERE id = ?1";
        file.execute(sql, rusqlite::params![old.id.to_string(), age]).unwrap();
        ledger.clean(Cleaning::Scheduled).await.unwrap()
    };
    let cleaned = age(8).await;
    assert_eq!((cleaned.jobs, cleaned.logs), (vec![], vec![old.id]));
    assert_eq!(rows(folder.path()), 4_503);
    assert_eq!(age(90).await.jobs, [old.id]);
    assert_eq!((ledger.job(old.id).await.unwrap(), rows(folder.path())), (None, 3));
    ledger.close().await;
}

#[tokio::test]
async fn an_unreadable_failed_object_is_skipped() {
    let (folder, ledger) = fresh().await;
    let job = full();
    put(&ledger, &job, failures(1..=4)).await;
    let file = Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    file.execute("UPDATE failed_objects SET object = 'cats' WHERE number = 2", []).unwrap();
    let read = ledger.failed(job.id, 0, 2).await.unwrap();
    assert_eq!(read.iter().map(|failed| failed.number).collect::<Vec<_>>(), [1, 3]);
    ledger.close().await;
}

#[tokio::test]
async fn fewer_failed_objects_are_kept_in_memory() {
    let folder = folder();
    let (on_disk, in_memory) = (open(folder.path()).await, in_memory().await);
    assert_eq!((on_disk.failed_limit(50_000), on_disk.failed_limit(7)), (50_000, 7));
    assert_eq!((in_memory.failed_limit(50_000), in_memory.failed_limit(7)), (100, 7));
    on_disk.close().await;
}
