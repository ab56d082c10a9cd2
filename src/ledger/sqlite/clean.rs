//! Removing what is older than it is to be kept.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::rows;
use crate::ledger::{Cleaned, Timestamp};

/// How many frames are removed at once, and so about how long others wait for it.
const FRAMES: usize = 2_000;
/// How many jobs are removed at once.
const JOBS: usize = 200;
/// How many pages that became free are given back to the file system at once.
const PAGES: usize = 1_000;

/// What is too old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// Jobs that ended before this go.
    pub(super) jobs: Timestamp,
    /// The frames of jobs that ended before this go. Never earlier than `jobs`: what is left of a job
    /// goes with it.
    pub(super) logs: Timestamp,
}

/// One step of cleaning.
#[derive(Debug)]
pub(super) struct Step {
    /// What it removed.
    pub(super) cleaned: Cleaned,
    /// Whether there may be more.
    pub(super) more: bool,
}

/// Removes some of what is too old, in one transaction, and gives the space back. Logs go first, so that
/// the log of every job is said to be gone once, also if the job goes at the same time.
pub(super) fn step(connection: &mut Connection, ages: Ages) -> rusqlite::Result<Step> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (logs, more) = logs(&transaction, ages.logs)?;
    let jobs = if more { Vec::new() } else { jobs(&transaction, ages.jobs)? };
    transaction.commit()?;
    let more = vacuum(connection)? || more || jobs.len() == JOBS;
    let parsed = |ids: Vec<String>| ids.iter().filter_map(|id| id.parse().ok()).collect();
    Ok(Step { cleaned: Cleaned { jobs: parsed(jobs), logs: parsed(logs) }, more })
}

/// Removes old logs, about [`FRAMES`] frames of them. Says which are gone, and whether others are left.
fn logs(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<(Vec<String>, bool)> {
    let (mut gone, mut removed) = (Vec::new(), 0);
    while removed < FRAMES && gone.len() < FRAMES {
        let oldest = transaction
            .query_row(
                "SELECT id FROM jobs WHERE logged = 1 AND finished < ?1 ORDER BY finished LIMIT 1",
                [rows::time(before)],
                |row| row.get::<_, String>(0),
            )
            .optional()?;
        let Some(id) = oldest else { return Ok((gone, false)) };
        let frames = transaction.execute(
            "DELETE FROM frames WHERE job = ?1 AND sequence IN
                (SELECT sequence FROM frames WHERE job = ?1 ORDER BY sequence LIMIT ?2)",
            params![id, FRAMES as i64],
        )?;
        removed += frames;
        if frames < FRAMES {
            transaction.execute("UPDATE jobs SET logged = 0 WHERE id = ?1", [&id])?;
            gone.push(id);
        }
    }
    Ok((gone, true))
}

fn jobs(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<Vec<String>> {
    let mut statement = transaction.prepare(
        "DELETE FROM jobs WHERE id IN
            (SELECT id FROM jobs WHERE finished < ?1 AND logged = 0 ORDER BY finished LIMIT ?2)
            RETURNING id",
    )?;
    statement.query_map(params![rows::time(before), JOBS as i64], |row| row.get(0))?.collect()
}

/// Gives free pages back, and says whether there may be more of them. A file that some other program
/// made may not be able to.
fn vacuum(connection: &Connection) -> rusqlite::Result<bool> {
    let free = || connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
    let before = free()?;
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    // Each row of the answer is one page.
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    let after = free()?;
    Ok(after > 0 && after < before)
}
