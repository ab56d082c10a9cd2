//! Removal by age, which a clock that jumps must not trigger.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxbox_bridge::ledger::{
    Cleaning, CleaningResult, Clock, JobId, JobUpdate, Ledger, LedgerOptions, LoggedFrame, Record, Retention,
    Timestamp,
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{DAY, HOUR, bare, end, everything, folder, frames, full, ids, options, put};

/// Clocks that a test moves.
#[derive(Debug)]
pub(super) struct SteppedClock(Mutex<(Timestamp, Duration, Option<bool>)>);

impl Clock for SteppedClock {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().1
    }

    fn is_synchronised(&self) -> Option<bool> {
        self.0.lock().unwrap().2
    }
}

impl SteppedClock {
    pub(super) fn at(wall: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new((wall, Duration::from_secs(7), None))))
    }

    /// Time passes.
    pub(super) fn pass(&self, time: Duration) {
        let mut clocks = self.0.lock().unwrap();
        clocks.0 = clocks.0.after(time);
        clocks.1 += time;
    }

    /// Sets the wall clock.
    fn set(&self, wall: Timestamp) {
        self.0.lock().unwrap().0 = wall;
    }

    fn lose_synchronisation(&self) {
        self.0.lock().unwrap().2 = Some(false);
    }
}

pub(super) const NOW: Timestamp = Timestamp(1_790_000_000_000);

async fn opened(directory: &Path, clock: &Arc<SteppedClock>) -> Arc<Ledger> {
    Ledger::open(LedgerOptions { clock: clock.clone(), ..options(directory) }).await.unwrap()
}

/// A ledger in a folder of its own, whose clock a test moves.
async fn fresh() -> (TempDir, Arc<SteppedClock>, Arc<Ledger>) {
    let (folder, clock) = (folder(), SteppedClock::at(NOW));
    let ledger = opened(folder.path(), &clock).await;
    (folder, clock, ledger)
}

/// Records `count` jobs that end now, by the clock that the bridge sees.
async fn run(ledger: &Ledger, clock: &SteppedClock, count: usize) -> Vec<JobId> {
    let mut ran = Vec::new();
    for _ in 0..count {
        let record = Record { end: Some(end(clock.wall().0)), queued: clock.wall(), ..full() };
        put(ledger, &record, frames(1..=3)).await;
        ran.push(record.id);
    }
    ran
}

async fn clean_scheduled(ledger: &Ledger) -> CleaningResult {
    let cleaned = ledger.clean(Cleaning::Scheduled).await.unwrap();
    assert_eq!(cleaned.held, ledger.cleaning_held());
    CleaningResult { held: None, ..cleaned }
}

async fn has_log(ledger: &Ledger, id: JobId) -> bool {
    !ledger.frames(id).await.unwrap().is_empty()
}

#[tokio::test]
async fn what_is_too_old_is_removed_logs_before_records() {
    let (_folder, clock, ledger) = fresh().await;
    let old = run(&ledger, &clock, 1).await[0];
    for _ in 0..83 {
        clock.pass(DAY);
        clean_scheduled(&ledger).await;
    }
    let middle = run(&ledger, &clock, 1).await[0];
    for _ in 0..7 {
        clock.pass(DAY);
        assert_eq!(
            clean_scheduled(&ledger).await,
            CleaningResult::default(),
            "the log of the old one went long ago"
        );
    }
    let young = run(&ledger, &clock, 1).await[0];
    let running = bare();
    put(&ledger, &running, frames(1..=3)).await;
    clock.pass(HOUR);
    let cleaned = clean_scheduled(&ledger).await;
    assert_eq!(cleaned, CleaningResult { jobs: vec![old], logs: vec![middle], ..CleaningResult::default() });
    assert_eq!(ids(&ledger, everything()).await, [running.id, young, middle]);
    for (id, is_left) in [(old, false), (middle, false), (young, true), (running.id, true)] {
        assert_eq!(has_log(&ledger, id).await, is_left);
    }
    assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
    ledger.close().await;
}

#[tokio::test]
async fn the_time_of_a_bridge_that_is_killed_counts_up_to_its_last_cleaning() {
    let (folder, clock, ledger) = fresh().await;
    run(&ledger, &clock, 1).await;
    clock.pass(20 * HOUR);
    clean_scheduled(&ledger).await;
    // The files as a killed process leaves them.
    let copy = super::folder();
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    clock.pass(20 * HOUR);
    let after = opened(copy.path(), &clock).await;
    assert_eq!(after.cleaning_held(), None, "of more than a day, the bridge ran for most");
    after.close().await;
    ledger.close().await;
}

#[tokio::test]
async fn more_than_one_transaction_full_is_removed_when_it_is_ordered() {
    let clock = SteppedClock::at(NOW);
    let many =
        LedgerOptions { directory: None, log_frames: 5_000, clock: clock.clone(), ..options(Path::new("")) };
    let ledger = Ledger::open(many).await.unwrap();
    let ended = || Record { end: Some(end(NOW.0)), ..full() };
    put(&ledger, &ended(), frames(1..=4_500)).await;
    let puts = (0..450).map(|_| ledger.put(JobUpdate::new(ended(), frames(1..=1))));
    futures::future::try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
    clock.pass(100 * DAY);
    let cleaned = ledger.clean(Cleaning::Requested).await.unwrap();
    assert_eq!((cleaned.jobs.len(), cleaned.logs.len(), cleaned.left), (451, 451, 0));
    assert_eq!(ids(&ledger, everything()).await, []);
    ledger.close().await;
}

#[tokio::test]
async fn a_cleaning_of_several_transactions_removes_no_more_than_its_share() {
    let clock = SteppedClock::at(NOW);
    let folder = folder();
    let options = options(folder.path());
    let retention = Retention { share: 50, ..options.retention };
    let ledger =
        Ledger::open(LedgerOptions { retention, log_frames: 100, clock: clock.clone(), ..options }).await;
    let ledger = ledger.unwrap();
    let put_many = async |jobs: usize, frames: Vec<LoggedFrame>| {
        let record = || Record { end: Some(end(NOW.0)), ..full() };
        let puts = (0..jobs).map(|_| ledger.put(JobUpdate::new(record(), frames.clone())));
        futures::future::try_join_all(puts.collect::<Vec<_>>()).await.unwrap();
    };
    // One transaction removes 2,000 frames or 200 jobs at most.
    put_many(60, frames(1..=100)).await;
    clock.pass(8 * DAY);
    assert_eq!(clean_scheduled(&ledger).await.logs.len(), 30);
    put_many(1_000, vec![]).await;
    clock.pass(91 * DAY);
    assert_eq!(clean_scheduled(&ledger).await.jobs.len(), 530);
    ledger.close().await;
}

#[tokio::test]
async fn a_cleaning_ends_in_a_file_of_another_program_that_keeps_its_free_pages() {
    let clock = SteppedClock::at(NOW);
    let folder = folder();
    let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    let free_pages =
        "CREATE TABLE other (value); INSERT INTO other VALUES (zeroblob(1000000)); DELETE FROM other";
    other.execute_batch(free_pages).unwrap();
    drop(other);
    let ledger = opened(folder.path(), &clock).await;
    // One transaction removes 200 jobs at most.
    run(&ledger, &clock, 1).await;
    clock.pass(91 * DAY);
    run(&ledger, &clock, 201).await;
    let cleaned = timeout(Duration::from_secs(20), ledger.clean(Cleaning::Requested)).await.unwrap().unwrap();
    assert_eq!((cleaned.jobs.len(), cleaned.left), (1, 0));
    ledger.close().await;
}

#[tokio::test]
async fn a_clock_that_is_ahead_at_the_start_removes_nothing() {
    for ahead in [8 * DAY, 91 * DAY, 36_500 * DAY] {
        let (folder, clock, ledger) = fresh().await;
        let jobs = run(&ledger, &clock, 3).await;
        ledger.close().await;

        let clock = SteppedClock::at(NOW.after(ahead));
        let ledger = opened(folder.path(), &clock).await;
        let held = ledger.cleaning_held().unwrap();
        for named in ["ahead of", "limits.clock_jump", "limits.clock_hold", "6h", "POST /clean"] {
            assert!(held.contains(named), "{named}: {held}");
        }
        assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
        let new = run(&ledger, &clock, 1).await;
        // It is set right while the bridge runs.
        clock.pass(HOUR);
        clock.set(NOW.after(2 * HOUR));
        assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
        assert_eq!(ledger.cleaning_held(), None);
        for id in jobs.iter().chain(&new) {
            assert!(has_log(&ledger, *id).await);
        }
        ledger.close().await;
    }
}

#[tokio::test]
async fn time_that_passed_before_the_close_is_not_a_jump_at_the_next_start() {
    let (folder, clock, ledger) = fresh().await;
    run(&ledger, &clock, 1).await;
    clock.pass(2 * DAY);
    ledger.close().await;
    let ledger = opened(folder.path(), &clock).await;
    assert_eq!(ledger.cleaning_held(), None);
    ledger.close().await;
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_of_a_running_bridge_removes_nothing() {
    let (folder, clock, ledger) = fresh().await;
    let job = run(&ledger, &clock, 1).await[0];
    clock.set(NOW.after(91 * DAY));
    assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
    assert!(ledger.cleaning_held().is_some());
    // It stays there, and is trusted after a while; but 91 days have not passed.
    for _ in 0..5 {
        clock.pass(HOUR);
        clean_scheduled(&ledger).await;
        assert!(ledger.cleaning_held().is_some());
    }
    clock.pass(HOUR);
    assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
    assert_eq!(ledger.cleaning_held(), None);
    assert!(has_log(&ledger, job).await);
    // What has passed does count, in this process and in the next.
    clock.pass(6 * DAY);
    assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
    ledger.close().await;
    clock.pass(19 * HOUR);
    let ledger = opened(folder.path(), &clock).await;
    assert_eq!(ledger.cleaning_held(), None);
    assert_eq!(clean_scheduled(&ledger).await.logs, [job]);
    ledger.close().await;
}

#[tokio::test]
async fn a_clock_that_is_not_synchronised_is_believed_later_but_only_after_a_jump() {
    let folder = folder();
    let clock = SteppedClock::at(NOW);
    clock.lose_synchronisation();
    let ledger = opened(folder.path(), &clock).await;
    run(&ledger, &clock, 1).await;
    clock.pass(7 * DAY + HOUR);
    assert_eq!(clean_scheduled(&ledger).await.logs.len(), 1, "many machines never say anything else");
    clock.set(clock.wall().after(30 * DAY));
    clean_scheduled(&ledger).await;
    assert!(ledger.cleaning_held().unwrap().contains("not synchronised"));
    for passed in 1..=18 {
        clock.pass(HOUR);
        clean_scheduled(&ledger).await;
        assert_eq!(ledger.cleaning_held().is_some(), passed < 18, "{passed} h");
    }
    ledger.close().await;
}

#[tokio::test]
async fn a_job_that_ran_while_the_clock_was_behind_is_kept_at_the_next_start_with_the_right_clock() {
    let (folder, clock, ledger) = fresh().await;
    let before = run(&ledger, &clock, 1).await[0];
    ledger.close().await;

    let behind = SteppedClock::at(Timestamp(1_000));
    let ledger = opened(folder.path(), &behind).await;
    assert!(ledger.cleaning_held().unwrap().contains("behind"));
    behind.pass(HOUR);
    let job = run(&ledger, &behind, 1).await[0];
    ledger.close().await;

    clock.pass(2 * HOUR);
    let ledger = opened(folder.path(), &clock).await;
    assert_eq!(ledger.cleaning_held(), None);
    assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
    clock.pass(7 * DAY - HOUR);
    let cleaned = clean_scheduled(&ledger).await;
    assert_eq!(cleaned.logs, [before], "the other one is an hour younger");
    clock.pass(HOUR);
    assert_eq!(clean_scheduled(&ledger).await.logs, [job]);
    ledger.close().await;
}

#[tokio::test]
async fn a_ledger_that_begins_with_a_clock_that_is_behind_keeps_its_jobs_when_it_is_set_right() {
    let folder = folder();
    let clock = SteppedClock::at(Timestamp(1_000));
    let ledger = opened(folder.path(), &clock).await;
    let job = run(&ledger, &clock, 1).await[0];
    clock.set(NOW);
    for _ in 0..10 {
        assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
        clock.pass(HOUR);
    }
    assert_eq!(ledger.cleaning_held(), None);
    assert!(has_log(&ledger, job).await);
    clock.pass(7 * DAY);
    assert_eq!(clean_scheduled(&ledger).await.logs, [job]);
    ledger.close().await;
}

#[tokio::test]
async fn an_operators_order_makes_a_jump_count_such_as_that_of_a_bridge_that_was_stopped() {
    let (folder, clock, ledger) = fresh().await;
    let jobs = run(&ledger, &clock, 20).await;
    ledger.close().await;
    clock.pass(8 * DAY);
    let ledger = opened(folder.path(), &clock).await;
    assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
    let cleaned = ledger.clean(Cleaning::Requested).await.unwrap();
    assert_eq!(cleaned, CleaningResult { logs: jobs, ..CleaningResult::default() });
    assert_eq!(ledger.cleaning_held(), None);
    ledger.close().await;
}

#[tokio::test]
async fn no_cleaning_removes_more_than_its_share_and_says_how_much_is_left() {
    let (folder, clock, ledger) = fresh().await;
    ledger.set_retention(Retention { share: 25, ..options(folder.path()).retention });
    let jobs = run(&ledger, &clock, 8).await;
    clock.pass(DAY);
    run(&ledger, &clock, 2).await;
    clock.pass(6 * DAY + HOUR);
    let first = clean_scheduled(&ledger).await;
    assert_eq!(
        first,
        CleaningResult { logs: jobs[..2].to_vec(), left: 6, ..CleaningResult::default() },
        "a quarter of ten, the oldest"
    );
    assert_eq!(
        clean_scheduled(&ledger).await,
        CleaningResult { logs: jobs[2..4].to_vec(), left: 4, ..CleaningResult::default() }
    );
    // An operator who wants to keep less need not wait.
    ledger.set_retention(Retention { jobs: DAY, logs: DAY, share: 25, ..options(folder.path()).retention });
    let cleaned = clean_scheduled(&ledger).await;
    assert_eq!((cleaned.jobs.len(), cleaned.logs.len(), cleaned.left), (2, 1, 8));
    let cleaned = ledger.clean(Cleaning::Requested).await.unwrap();
    assert_eq!((cleaned.jobs.len(), cleaned.logs.len(), cleaned.left), (8, 5, 0));
    ledger.close().await;
}

#[tokio::test]
async fn a_steady_load_leaves_nothing_to_a_later_cleaning_however_short_it_is_kept() {
    let folder = folder();
    for (directory, logs) in [(None, HOUR), (Some(folder.path().to_owned()), 3 * HOUR)] {
        let clock = SteppedClock::at(NOW);
        let defaults = options(Path::new(""));
        let retention = Retention { jobs: 8 * HOUR, logs, share: 10, ..defaults.retention };
        let ledger =
            Ledger::open(LedgerOptions { directory, retention, clock: clock.clone(), ..defaults }).await;
        let ledger = ledger.unwrap();
        let mut ran = Vec::new();
        for hour in 0..24 {
            ran.extend(run(&ledger, &clock, 5).await.into_iter().map(|id| (hour, id)));
            clock.pass(HOUR);
            assert_eq!(clean_scheduled(&ledger).await.left, 0, "{hour} h");
        }
        for (hour, id) in ran {
            let is_old = HOUR * (24 - hour) > logs + HOUR;
            assert!(!is_old || !has_log(&ledger, id).await, "{hour} h");
        }
        ledger.close().await;
    }
}

#[tokio::test]
async fn a_ledger_that_began_anew_keeps_the_recordings_of_jobs_that_it_does_not_know_as_long_as_logs() {
    let (folder, clock, ledger) = fresh().await;
    let jobs = run(&ledger, &clock, 8).await;
    ledger.close().await;
    std::fs::remove_file(folder.path().join("ledger.sqlite3")).unwrap();
    clock.pass(8 * DAY);
    let ledger = opened(folder.path(), &clock).await;
    ledger.set_retention(Retention { share: 25, ..options(folder.path()).retention });
    for day in 0..7 {
        assert_eq!(clean_scheduled(&ledger).await, CleaningResult::default());
        for cleaning in [Cleaning::Scheduled, Cleaning::Requested] {
            assert_eq!(ledger.without_log(jobs.clone(), cleaning).await.unwrap(), [], "day {day}");
        }
        clock.pass(DAY);
    }
    assert_eq!(ledger.without_log(jobs.clone(), Cleaning::Scheduled).await.unwrap(), jobs[..2], "a quarter");
    assert_eq!(ledger.without_log(jobs.clone(), Cleaning::Requested).await.unwrap(), jobs);
    ledger.close().await;
}

#[tokio::test]
async fn recordings_go_at_once_when_the_log_is_gone_and_not_because_the_ledger_was_lost() {
    let (folder, clock, ledger) = fresh().await;
    let old = run(&ledger, &clock, 3).await;
    clock.pass(7 * DAY + HOUR);
    assert_eq!(clean_scheduled(&ledger).await.logs, old);
    let young = run(&ledger, &clock, 1).await;
    let running = bare();
    put(&ledger, &running, frames(1..=3)).await;
    let all = [&old[..], &young, &[running.id]].concat();
    assert_eq!(ledger.without_log(all.clone(), Cleaning::Scheduled).await.unwrap(), old);

    std::fs::remove_file(folder.path().join("ledger.sqlite3")).unwrap();
    let after = JobUpdate::new(full(), vec![]);
    assert!(ledger.put(after).await.is_err());
    ledger.lost().wait_for(Option::is_some).await.unwrap();
    clock.pass(8 * DAY);
    for cleaning in [Cleaning::Scheduled, Cleaning::Requested] {
        assert_eq!(ledger.without_log(all.clone(), cleaning).await.unwrap(), []);
    }
    ledger.close().await;
}

#[tokio::test]
async fn a_clock_that_jumps_again_holds_cleaning_again_and_the_jump_is_reported() {
    let (_folder, clock, ledger) = fresh().await;
    for (passed, jump, held) in [
        (0, 10, Some("10days ahead of")),
        (5, 20, Some("30days ahead of")),
        (5, 0, Some("30days ahead of")),
        (2, 0, None),
    ] {
        clock.pass(passed * HOUR);
        clock.set(clock.wall().after(jump * DAY));
        clean_scheduled(&ledger).await;
        let said = ledger.cleaning_held();
        assert_eq!(said.is_some(), held.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(held.unwrap_or_default()), "{held:?}");
    }
    ledger.close().await;
}
