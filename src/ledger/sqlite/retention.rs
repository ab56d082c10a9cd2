//! Removing what is older than it is to be kept.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::record_clock::{RecordClock, milliseconds};
use super::{rows, schema};
use crate::ledger::{CLEANING_INTERVAL, Cleaning, CleaningResult, JobId, Retention};

/// How many frames are removed at once, and so about how long others wait for it.
const MAX_FRAMES: usize = 2_000;
/// How many jobs are removed at once.
const MAX_JOBS: usize = 200;
/// How many pages that became free are given back to the file system at once.
const MAX_PAGES: usize = 1_000;

/// What one cleaning may remove. Its times are the ledger's.
#[derive(Clone, Copy, Debug)]
pub(super) struct CleaningPlan {
    /// Jobs that ended before this go.
    jobs_before: i64,
    /// The frames of jobs that ended before this go. Never earlier than `jobs_before`: what is left of a job
    /// goes with it.
    logs_before: i64,
    /// How many jobs.
    jobs: usize,
    /// How many jobs lose their frames.
    logs: usize,
}

/// One step of cleaning.
#[derive(Debug)]
pub(super) struct CleaningStep {
    /// What it removed.
    pub(super) cleaned: CleaningResult,
    /// What may be removed after it, if there may be more.
    pub(super) rest: Option<CleaningPlan>,
}

/// What `cleaning` may remove now, or why it is held back.
pub(super) fn plan(
    connection: &Connection,
    aging: &RecordClock,
    cleaning: Cleaning,
) -> rusqlite::Result<Result<CleaningPlan, String>> {
    let stand = match cleaning {
        Cleaning::Scheduled => aging.observe(),
        Cleaning::Requested => aging.trust(),
    };
    schema::save_clock_state(connection, stand)?;
    if let Some(held) = aging.held() {
        return Ok(Err(held));
    }
    let Retention { jobs, logs, share, .. } = aging.retention();
    let [jobs_before, logs_before] = [jobs, logs].map(|age| stand.time.saturating_sub(milliseconds(age)));
    let limit = |age: Duration, count: &str| -> rusqlite::Result<usize> {
        let all: i64 = connection.query_row(count, [], |row| row.get(0))?;
        let all = usize::try_from(all).unwrap_or_default();
        Ok(match cleaning {
            Cleaning::Scheduled => share_of(all, share.max(steady_share(age))),
            Cleaning::Requested => all,
        })
    };
    Ok(Ok(CleaningPlan {
        jobs_before,
        logs_before: logs_before.max(jobs_before),
        jobs: limit(jobs, "SELECT count(*) FROM jobs WHERE finished IS NOT NULL")?,
        logs: limit(logs, "SELECT count(*) FROM jobs WHERE finished IS NOT NULL AND logged = 1")?,
    }))
}

/// `share` percent of `all`, at least one.
pub(super) fn share_of(all: usize, share: usize) -> usize {
    (all.saturating_mul(share) / 100).max(1)
}

/// Twice what a steady load makes due from one cleaning to the next of what is kept for `age`, in percent. With less
/// than what becomes due, more and more would be left.
fn steady_share(age: Duration) -> usize {
    let share = 200 * CLEANING_INTERVAL.as_secs() / age.as_secs().max(1);
    usize::try_from(share.min(100)).unwrap_or(100)
}

/// Those of `jobs` whose frames were removed for their age, and at most `most` of those that are not known. A ledger
/// that is younger than logs are kept for does not know jobs whose logs are to be kept, if it took the place of another.
pub(super) fn without_log(
    connection: &Connection,
    aging: &RecordClock,
    jobs: &[JobId],
    most: usize,
) -> rusqlite::Result<Vec<JobId>> {
    let now = aging.observe().time;
    let is_old =
        now.saturating_sub(schema::last_begun(connection, now)?) >= milliseconds(aging.retention().logs);
    let mut statement =
        connection.prepare("SELECT finished IS NOT NULL AND logged = 0 FROM jobs WHERE id = ?1")?;
    let (mut gone, mut unknown) = (Vec::new(), Vec::new());
    for job in jobs {
        match statement.query_row([job.to_string()], |row| row.get(0)).optional()? {
            Some(true) => gone.push(*job),
            Some(false) => {}
            None => unknown.push(*job),
        }
    }
    gone.extend(unknown.into_iter().take(if is_old { most } else { 0 }));
    Ok(gone)
}

/// How many jobs `plan` would remove something of, if it had not come to its end.
pub(super) fn remaining(connection: &Connection, plan: CleaningPlan) -> rusqlite::Result<u64> {
    let left: i64 = connection.query_row(
        "SELECT count(*) FROM jobs WHERE finished IS NOT NULL AND
            (recorded < ?1 OR (logged = 1 AND recorded < ?2))",
        [plan.jobs_before, plan.logs_before],
        |row| row.get(0),
    )?;
    Ok(left.unsigned_abs())
}

/// Removes some of what is too old, in one transaction, and gives the space back. Logs go first, so that
/// the log of every job is reported as gone once, also if the job goes at the same time.
pub(super) fn step(connection: &mut Connection, plan: CleaningPlan) -> rusqlite::Result<CleaningStep> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (logs, more_logs) = logs(&transaction, plan)?;
    let limit = plan.jobs.min(MAX_JOBS);
    let jobs = if more_logs { Vec::new() } else { jobs(&transaction, plan.jobs_before, limit)? };
    transaction.commit()?;
    let more_jobs = jobs.len() == MAX_JOBS && plan.jobs > MAX_JOBS;
    let more = vacuum(connection)? || more_logs || more_jobs;
    let rest = CleaningPlan {
        jobs: plan.jobs.saturating_sub(jobs.len()),
        logs: plan.logs.saturating_sub(logs.len()),
        ..plan
    };
    let readable = |ids: Vec<Option<JobId>>| ids.into_iter().flatten().collect();
    let cleaned = CleaningResult { jobs: readable(jobs), logs: readable(logs), ..CleaningResult::default() };
    Ok(CleaningStep { cleaned, rest: more.then_some(rest) })
}

/// Removes old logs, about [`FRAMES`] frames of them. Says which are gone, and whether others are left that the
/// plan has, too.
fn logs(transaction: &Transaction<'_>, plan: CleaningPlan) -> rusqlite::Result<(Vec<Option<JobId>>, bool)> {
    let (mut gone, mut removed) = (Vec::new(), 0);
    while removed < MAX_FRAMES && gone.len() < MAX_FRAMES && gone.len() < plan.logs {
        let oldest = transaction
            .query_row(
                "SELECT rowid, id FROM jobs WHERE logged = 1 AND finished IS NOT NULL AND recorded < ?1
                    ORDER BY recorded, rowid LIMIT 1",
                [plan.logs_before],
                |row| Ok((row.get::<_, i64>(0)?, id(row, 1))),
            )
            .optional()?;
        let Some((row, id)) = oldest else { return Ok((gone, false)) };
        // By the row and not by the id, which may be damaged.
        let frames = transaction.execute(
            "DELETE FROM frames WHERE job = (SELECT id FROM jobs WHERE rowid = ?1) AND sequence IN
                (SELECT sequence FROM frames WHERE job = (SELECT id FROM jobs WHERE rowid = ?1)
                    ORDER BY sequence LIMIT ?2)",
            params![row, MAX_FRAMES as i64],
        )?;
        removed += frames;
        if frames < MAX_FRAMES {
            transaction.execute("UPDATE jobs SET logged = 0 WHERE rowid = ?1", [row])?;
            gone.push(id);
        }
    }
    let more = gone.len() < plan.logs;
    Ok((gone, more))
}

fn jobs(transaction: &Transaction<'_>, before: i64, most: usize) -> rusqlite::Result<Vec<Option<JobId>>> {
    let mut statement = transaction.prepare(
        "DELETE FROM jobs WHERE rowid IN
            (SELECT rowid FROM jobs WHERE finished IS NOT NULL AND recorded < ?1 AND logged = 0
                ORDER BY recorded, rowid LIMIT ?2)
            RETURNING id",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    statement.query_map(params![before, most], |row| Ok(id(row, 0)))?.collect()
}

/// The id in a column; nothing if it is damaged.
fn id(row: &Row<'_>, column: usize) -> Option<JobId> {
    rows::lossy(row, column).parse().ok()
}

/// Gives free pages back, and says whether there may be more of them. A file that some other program
/// made may not be able to.
fn vacuum(connection: &Connection) -> rusqlite::Result<bool> {
    let free = || connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
    let before = free()?;
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({MAX_PAGES})"))?;
    // Each row of the answer is one page.
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    let after = free()?;
    Ok(after > 0 && after < before)
}
