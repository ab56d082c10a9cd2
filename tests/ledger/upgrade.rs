//! The ledger of an older release.

use super::*;

/// The tables of a killed bridge whose ledger had version 4.
const VERSION_4: &str = include_str!("../../fixtures/ledger/4.sql");

#[tokio::test]
async fn the_ledger_of_an_older_release_is_migrated_with_its_jobs_and_their_logs() {
    let folder = folder();
    let connection = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    connection.execute_batch(VERSION_4).unwrap();
    drop(connection);

    let ledger = open(folder.path()).await;
    let mut jobs = ledger.jobs(everything()).await.unwrap();
    jobs.sort_by_key(|job| job.id);
    let ends: Vec<_> =
        jobs.iter().map(|job| (job.kind, job.end.as_ref().map(|end| (end.outcome, end.cause)))).collect();
    assert_eq!(
        ends,
        [
            (Kind::FullUpdate, Some((Outcome::Completed, None))),
            (Kind::Devices, Some((Outcome::Completed, None))),
            // The process was killed.
            (Kind::VirtualMachines, Some((Outcome::Interrupted, Some(Cause::Crashed)))),
        ]
    );
    let total = jobs[0].progress.counts.total();
    assert_eq!((total.failed, jobs[0].progress.failed_left_out), (1, 1), "{total:?}");
    for job in &jobs[..2] {
        let frames = ledger.frames(job.id).await.unwrap();
        let last = frames.last().unwrap();
        assert!(matches!(last.frame.name, FrameName::Complete), "{last:?}");
    }
    let history = ledger.history().await.unwrap();
    let successes: Vec<_> = history.successes.iter().map(|(_, kind, last)| (*kind, last.job)).collect();
    assert_eq!(successes, [(Kind::Devices, jobs[1].id), (Kind::FullUpdate, jobs[0].id)]);
    ledger.close().await;
}
