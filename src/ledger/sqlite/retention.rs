//! Removes records and frames that are past their retention.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::record_clock::{RecordClock, milliseconds};
use super::{rows, schema};
use crate::ledger::{CLEANING_INTERVAL, Cleaning, CleaningResult, JobId, Retention};

/// How many frames are removed in one step. That bounds how long other requests wait.
const MAX_FRAMES: usize = 2_000;
/// How many jobs are removed in one step.
const MAX_JOBS: usize = 200;
/// How many free pages are returned to the file system in one step.
const MAX_PAGES: usize = 1_000;

/// What one cleaning may remove. Its times are the ledger's.
#[derive(Clone, Copy, Debug)]
pub(super) struct CleaningPlan {
    /// Jobs that ended before this are removed.
    jobs_before: i64,
    /// The frames of jobs that ended before this are removed. Never earlier than `jobs_before`: the frames of a
    /// removed job go with it.
    logs_before: i64,
    /// How many jobs may be removed.
    jobs: usize,
    /// How many jobs may lose their frames.
    logs: usize,
}

/// The result of one step of a cleaning.
#[derive(Debug)]
pub(super) struct CleaningStep {
    /// What it removed.
    pub(super) cleaned: CleaningResult,
    /// The plan of the next step, if there may be more to remove.
    pub(super) rest: Option<CleaningPlan>,
}

/// Plans `cleaning` for the current time, or returns why it is held.
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

/// Twice the share of records with the retention `age` that a steady load makes due between two cleanings, in
/// percent. Below the share that becomes due, the backlog would grow without end.
fn steady_share(age: Duration) -> usize {
    let share = 200 * CLEANING_INTERVAL.as_secs() / age.as_secs().max(1);
    usize::try_from(share.min(100)).unwrap_or(100)
}

/// The `jobs` whose frames were removed for their age, and at most `most` of the unknown ones. A ledger that is
/// younger than the retention of logs may have replaced another one, and does not know the jobs of that one.
pub(super) fn without_log(
    connection: &Connection,
    aging: &RecordClock,
    jobs: &[JobId],
    most: usize,
) -> rusqlite::Result<Vec<JobId>> {
    let now = aging.observe().time;
    let is_old =
        now.saturating_sub(schema::created_at(connection, now)?) >= milliseconds(aging.retention().logs);
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

/// How many jobs `plan` would still remove something of, had it not reached its limit.
pub(super) fn remaining(connection: &Connection, plan: CleaningPlan) -> rusqlite::Result<u64> {
    let left: i64 = connection.query_row(
        "SELECT count(*) FROM jobs WHERE finished IS NOT NULL AND
            (recorded < ?1 OR (logged = 1 AND recorded < ?2))",
        [plan.jobs_before, plan.logs_before],
        |row| row.get(0),
    )?;
    Ok(left.unsigned_abs())
}

/// Removes a batch of expired rows in one transaction, and returns the space. Logs are removed first, so that the log
/// of every job is reported as removed once, even if the job is removed in the same step.
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

/// Removes old logs, about [`MAX_FRAMES`] frames of them. Returns which are gone, and whether the plan has more to
/// remove.
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
        // By row id, because the job id may be damaged.
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

/// The id in a column; `None` if it is damaged.
fn id(row: &Row<'_>, column: usize) -> Option<JobId> {
    rows::lossy(row, column).parse().ok()
}

/// Returns free pages to the file system. Returns whether there may be more. A file created by another program may
/// not support it.
fn vacuum(connection: &Connection) -> rusqlite::Result<bool> {
    let free = || connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
    let before = free()?;
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({MAX_PAGES})"))?;
    // Each row of the result is one page.
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    let after = free()?;
    Ok(after > 0 && after < before)
}
