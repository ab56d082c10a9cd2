//! Removes records and frames that are past their retention.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::rows;
use crate::ledger::retention::{CleaningPlan, CleaningStep, EndedJobs, WithoutLog};
use crate::ledger::{CleaningResult, JobId};

/// How many frames, or failed objects, are removed in one step. That bounds how long other requests wait.
const MAX_FRAMES: usize = 2_000;
/// How many jobs are removed in one step.
const MAX_JOBS: usize = 200;
/// How many free pages are returned to the file system in one step.
const MAX_PAGES: usize = 1_000;

/// Counts the ended jobs.
pub(super) fn ended_jobs(connection: &Connection) -> rusqlite::Result<EndedJobs> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE logged = 1) FROM jobs WHERE finished IS NOT NULL";
    let [jobs, logs]: [i64; 2] = connection.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?]))?;
    let count = |count| usize::try_from(count).unwrap_or_default();
    Ok(EndedJobs { jobs: count(jobs), logs: count(logs) })
}

/// Which of `jobs` have lost their frames for their age, and which ones are unknown.
pub(super) fn without_log(connection: &Connection, jobs: &[JobId]) -> rusqlite::Result<WithoutLog> {
    let mut statement =
        connection.prepare("SELECT finished IS NOT NULL AND logged = 0 FROM jobs WHERE id = ?1")?;
    let mut without = WithoutLog::default();
    for job in jobs {
        match statement.query_row([job.to_string()], |row| row.get(0)).optional()? {
            Some(true) => without.removed.push(*job),
            Some(false) => {}
            None => without.unknown.push(*job),
        }
    }
    Ok(without)
}

/// Counts the jobs that `plan` would still remove something of, had it not reached its limit.
fn overdue_jobs(connection: &Connection, plan: CleaningPlan) -> rusqlite::Result<u64> {
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
    let (jobs, more_jobs) =
        if more_logs { (Vec::new(), false) } else { jobs(&transaction, plan.jobs_before, limit)? };
    transaction.commit()?;
    let more_jobs = more_jobs && plan.jobs > jobs.len();
    let more = vacuum(connection)? || more_logs || more_jobs;
    let rest = CleaningPlan {
        jobs: plan.jobs.saturating_sub(jobs.len()),
        logs: plan.logs.saturating_sub(logs.len()),
        ..plan
    };
    let left = if more { 0 } else { overdue_jobs(connection, plan)? };
    let readable = |ids: Vec<Option<JobId>>| ids.into_iter().flatten().collect();
    let cleaned = CleaningResult { jobs: readable(jobs), logs: readable(logs), left, held: None };
    Ok((cleaned, more.then_some(rest)))
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

/// Removes old jobs, at most `most` of them and about [`MAX_FRAMES`] of their failed objects. Returns which are gone, and
/// whether there may be more.
fn jobs(
    transaction: &Transaction<'_>,
    before: i64,
    most: usize,
) -> rusqlite::Result<(Vec<Option<JobId>>, bool)> {
    let (mut gone, mut removed) = (Vec::new(), 0);
    let mut oldest = transaction.prepare(
        "SELECT rowid, id FROM jobs WHERE finished IS NOT NULL AND recorded < ?1 AND logged = 0
            ORDER BY recorded, rowid LIMIT 1",
    )?;
    // By row id, because the job id may be damaged.
    let mut failed = transaction.prepare(
        "DELETE FROM failed_objects WHERE job = (SELECT id FROM jobs WHERE rowid = ?1) AND number IN
            (SELECT number FROM failed_objects WHERE job = (SELECT id FROM jobs WHERE rowid = ?1)
                ORDER BY number LIMIT ?2)",
    )?;
    let mut job = transaction.prepare("DELETE FROM jobs WHERE rowid = ?1")?;
    while removed < MAX_FRAMES && gone.len() < most {
        let found = oldest.query_row([before], |row| Ok((row.get::<_, i64>(0)?, id(row, 1)))).optional()?;
        let Some((row, id)) = found else { return Ok((gone, false)) };
        let objects = failed.execute(params![row, MAX_FRAMES as i64])?;
        removed += objects;
        if objects < MAX_FRAMES {
            job.execute([row])?;
            gone.push(id);
        }
    }
    Ok((gone, true))
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
