//! Unfinished jobs of an earlier bridge process.

use rusqlite::{Connection, Row, Transaction, params};

use super::notifications::{self, EndedJob};
use super::rows;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::ledger::Timestamp;
use crate::ledger::notification::NotificationRule;

/// An unfinished job.
struct InterruptedJob {
    row: i64,
    id: String,
    backend: String,
    kind: String,
    vm: i64,
    failed: u64,
    step: String,
    last: i64,
    detail: String,
}

/// The longest cool-down, in milliseconds, that can be added to a time. No bridge writes a longer one.
const MAX_MILLIS: i64 = i64::MAX / 2;

/// Marks every unfinished job as interrupted at its last update. Returns how many there were.
///
/// The connection to the backend may have ended only now, so that a cool-down counts from now.
///
/// Call this before this process writes a job of its own, and with the lock on the directory held: then every
/// unfinished job belongs to a process that has ended.
///
/// Retention counts from `recorded`, in the ledger's time. `rules` say who is notified.
pub(super) fn end(
    transaction: &Transaction<'_>,
    rules: &[NotificationRule],
    recorded: i64,
) -> rusqlite::Result<usize> {
    let left = interrupted_jobs(transaction)?;
    for InterruptedJob { row, id, backend, kind, vm, failed, step, last, detail } in &left {
        transaction.execute(
            "UPDATE jobs SET finished = ?2, outcome = ?3, cause = ?4, failure_step = ?5,
                failure_error = 'The bridge ended in the middle of this job.', failure_detail = ?6,
                cooldown_until = max(cooldown_until, ?7 + min(cooldown_least, ?9)),
                cooldown_least = CASE WHEN cooldown_until IS NOT NULL THEN 0 END,
                recorded = ?8
                WHERE rowid = ?1",
            params![
                row,
                last,
                Cause::Crashed.outcome().as_str(),
                Cause::Crashed.as_str(),
                step,
                detail,
                Timestamp::now().to_i64(),
                recorded,
                MAX_MILLIS,
            ],
        )?;
        let (outcome, cause) = (Cause::Crashed.outcome(), Some(Cause::Crashed));
        let job = EndedJob {
            id,
            backend,
            kind,
            vm: *vm,
            has_started: true,
            at: *last,
            outcome,
            cause,
            failed: *failed,
        };
        notifications::job_ended(transaction, rules, &job, recorded)?;
    }
    Ok(left.len())
}

fn interrupted_jobs(connection: &Connection) -> rusqlite::Result<Vec<InterruptedJob>> {
    let mut statement = connection.prepare(
        "SELECT rowid AS row, id, backend, kind, coalesce(vm, 0) AS vm, failed_total, counts, frames_in, coalesce(updated, started, queued) AS last
            FROM jobs WHERE finished IS NULL",
    )?;
    statement.query_map([], interrupted_job)?.collect()
}

/// A row that this bridge cannot parse ends all the same. It would otherwise appear to run forever.
fn interrupted_job(row: &Row<'_>) -> rusqlite::Result<InterruptedJob> {
    let kind = rows::lossy(row, "kind");
    let last: i64 = row.get("last").unwrap_or_default();
    let events = row.get::<_, i64>("frames_in").unwrap_or_default().cast_unsigned();
    let counts = rows::counts(row).map_or_else(
        |_| "The counts of its objects cannot be read".to_owned(),
        |counts| {
            let total = counts.total();
            format!(
                "Of {} objects seen, {} were completed, {} had failed and {} were unconfirmed",
                total.seen, total.completed, total.failed, total.unconfirmed
            )
        },
    );
    let step = Kind::from_name(&kind).map_or_else(|| kind.clone(), |kind| kind.row().step.to_owned());
    Ok(InterruptedJob {
        row: row.get("row")?,
        id: rows::lossy(row, "id"),
        backend: rows::lossy(row, "backend"),
        kind,
        vm: row.get("vm").unwrap_or_default(),
        failed: row.get::<_, i64>("failed_total").unwrap_or_default().unsigned_abs(),
        step,
        last,
        detail: format!(
            "{counts}; {events} events had been read; it was last updated at {}.",
            Timestamp::from_i64(last)
        ),
    })
}
