//! Jobs that the bridge before this one left without an end.

use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::rows;
use crate::core::kind::Kind;
use crate::core::outcome::Cause;
use crate::ledger::Timestamp;

/// What is known of such a job.
struct Left {
    id: String,
    step: String,
    last: i64,
    detail: String,
}

/// Gives every job that has no end the one that it had: the bridge ended under it, when it was last
/// heard of. Says how many there were.
///
/// The connection to the backend may have ended as late as just now, so that a cool-down counts from now on.
///
/// To be done before this process writes any job of its own, and with the lock on the directory: then
/// whatever has no end is of a process that is gone.
pub(super) fn end(connection: &mut Connection) -> rusqlite::Result<usize> {
    let left = left(connection)?;
    if left.is_empty() {
        return Ok(0);
    }
    let now = rows::time(Timestamp::now());
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for Left { id, step, last, detail } in &left {
        transaction.execute(
            "UPDATE jobs SET finished = ?2, outcome = ?3, cause = ?4, failure_step = ?5,
                failure_error = 'The bridge ended in the middle of this job.', failure_detail = ?6,
                cooldown_until = max(cooldown_until, ?7 + cooldown_least),
                cooldown_least = CASE WHEN cooldown_until IS NOT NULL THEN 0 END
                WHERE id = ?1",
            params![id, last, Cause::Crashed.outcome().as_str(), Cause::Crashed.as_str(), step, detail, now],
        )?;
    }
    transaction.commit()?;
    Ok(left.len())
}

fn left(connection: &Connection) -> rusqlite::Result<Vec<Left>> {
    let mut statement = connection.prepare(
        "SELECT id, kind, counts, frames_in, coalesce(updated, started, queued) AS last
            FROM jobs WHERE finished IS NULL",
    )?;
    statement.query_map([], of)?.collect()
}

/// A row that this bridge cannot make sense of ends all the same: else it would look as if it ran, for
/// ever.
fn of(row: &Row<'_>) -> rusqlite::Result<Left> {
    let kind: String = row.get("kind")?;
    let last: i64 = row.get("last")?;
    let events = row.get::<_, i64>("frames_in")?.cast_unsigned();
    let came = rows::counts(row).map_or_else(
        |_| "What became of its objects cannot be read".to_owned(),
        |counts| {
            let total = counts.total();
            format!(
                "Of {} objects seen, {} were completed, {} had failed and {} were unconfirmed",
                total.seen, total.completed, total.failed, total.unconfirmed
            )
        },
    );
    Ok(Left {
        id: row.get("id")?,
        step: Kind::named(&kind).map_or(kind, |kind| kind.row().step.to_owned()),
        last,
        detail: format!(
            "{came}; {events} events had been read; it was last heard of at {}.",
            rows::timestamp(last)
        ),
    })
}
