//! The failed objects of jobs.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, params};

use super::rows::{self, RowError, sequence};
use crate::core::domain::outcome::ObjectFailure;
use crate::ledger::damage::DamagedRows;
use crate::ledger::{FailureGroup, JobId, LoggedFailure, Timestamp};

/// Adds the failed objects of `job`.
pub(super) fn add(
    transaction: &Transaction<'_>,
    job: &str,
    failed: &[LoggedFailure],
) -> rusqlite::Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let mut add = transaction.prepare_cached(
        "INSERT OR REPLACE INTO failed_objects (job, number, at, object, name, cluster, owner, count, error)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for LoggedFailure { number, at, failure } in failed {
        let ObjectFailure { object, name, cluster, owner, count, error } = failure;
        let (number, at, count) = (sequence(*number), at.to_i64(), sequence(*count));
        add.execute(params![job, number, at, object.as_str(), name, cluster, owner, count, error])?;
    }
    Ok(())
}

/// Reads the first `limit` readable failed objects of a job after a number.
pub(super) fn page(
    connection: &Connection,
    (id, after): (JobId, u64),
    limit: usize,
    damage: &mut DamagedRows,
) -> Result<Vec<LoggedFailure>, RowError> {
    let sql = "SELECT number, at, object, name, cluster, owner, count, error FROM failed_objects
        WHERE job = ?1 AND number > ?2 ORDER BY number";
    let values = vec![Value::Text(id.to_string()), Value::Integer(sequence(after))];
    rows::read_all(connection, (sql, values), limit, |row| {
        damage.check(failure(row).map_err(|error| RowError::of_job(id, "failed objects", &error)))
    })
}

fn failure(row: &Row<'_>) -> rusqlite::Result<LoggedFailure> {
    Ok(LoggedFailure {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        at: Timestamp::from_i64(row.get(1)?),
        failure: ObjectFailure {
            object: row.get(2)?,
            name: row.get(3)?,
            cluster: row.get(4)?,
            owner: row.get(5)?,
            count: row.get::<_, i64>(6)?.unsigned_abs(),
            error: row.get(7)?,
        },
    })
}

/// Groups the failed objects of a job by their error, the largest group first.
pub(super) fn by_error(
    connection: &Connection,
    (id, skip): (JobId, u64),
    limit: usize,
) -> rusqlite::Result<Vec<FailureGroup>> {
    // Unlike `sum`, `total` does not fail for damaged numbers.
    let mut statement = connection.prepare(
        "SELECT CAST(error AS BLOB), CAST(total(count) AS INTEGER) AS objects, min(number) AS first FROM failed_objects
            WHERE job = ?1 GROUP BY error ORDER BY objects DESC, first LIMIT ?2 OFFSET ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let groups = statement.query_map(params![id.to_string(), limit, sequence(skip)], |row| {
        Ok(FailureGroup {
            error: String::from_utf8_lossy(&row.get::<_, Vec<u8>>(0)?).into_owned(),
            count: row.get::<_, i64>(1)?.unsigned_abs(),
            first: row.get::<_, i64>(2)?.unsigned_abs(),
        })
    })?;
    groups.collect()
}
