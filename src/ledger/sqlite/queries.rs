//! What is asked of the tables.

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params, params_from_iter};

use super::pending::Pending;
use super::rows::{self, COLUMNS, Unreadable};
use crate::ledger::{Filter, JobId, Record, StoredFrame, Timestamp};

/// Writes everything that is pending, all of it or nothing.
pub(super) fn write(
    connection: &mut Connection,
    pending: &Pending,
    log_frames: usize,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut upsert = transaction.prepare(&upsert())?;
        let mut add = transaction
            .prepare("INSERT OR REPLACE INTO frames (job, sequence, at, bytes) VALUES (?1, ?2, ?3, ?4)")?;
        // Frames are numbered without gaps, so that the number of the last one says which are too many.
        let mut prune = transaction.prepare(
            "DELETE FROM frames WHERE job = ?1
                AND sequence <= (SELECT max(sequence) FROM frames WHERE job = ?1) - ?2",
        )?;
        for waiting in pending.iter() {
            upsert.execute(params_from_iter(rows::values(&waiting.record)?))?;
            if waiting.frames.is_empty() {
                continue;
            }
            let job = waiting.record.id.to_string();
            for frame in waiting.frames.values() {
                add.execute(params![job, sequence(frame.sequence), rows::time(frame.at), &*frame.bytes])?;
            }
            prune.execute(params![job, i64::try_from(log_frames).unwrap_or(i64::MAX)])?;
        }
    }
    transaction.commit()
}

/// A record takes the place of the one before, unless that one has an end and it has none: then it is
/// late.
fn upsert() -> String {
    let places: Vec<String> = (1..=COLUMNS.len()).map(|place| format!("?{place}")).collect();
    let updates: Vec<String> = COLUMNS.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO jobs ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}
            WHERE jobs.finished IS NULL OR excluded.finished IS NOT NULL",
        COLUMNS.join(", "),
        places.join(", "),
        updates.join(", ")
    )
}

pub(super) fn job(connection: &Connection, id: JobId) -> Result<Option<Record>, Unreadable> {
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM jobs WHERE id = ?1", COLUMNS.join(", ")))?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(rows::record).transpose()
}

pub(super) fn jobs(connection: &Connection, filter: &Filter) -> Result<Vec<Record>, Unreadable> {
    let (sql, values) = select(filter);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(rows::record(row)?);
    }
    Ok(records)
}

/// The jobs whose cool-down is not over at `now`, the longest first.
pub(super) fn cooling_down(connection: &Connection, now: Timestamp) -> Result<Vec<Record>, Unreadable> {
    let sql = format!(
        "SELECT {} FROM jobs WHERE cooldown_until > ?1 AND finished IS NOT NULL ORDER BY cooldown_until DESC",
        COLUMNS.join(", ")
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([rows::time(now)])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        // One that cannot be read takes nothing from the others.
        records.extend(rows::record(row).ok());
    }
    Ok(records)
}

/// Only what is asked for stands in the query, so that the index that fits can be taken.
fn select(filter: &Filter) -> (String, Vec<Value>) {
    let Filter { kind, outcome, backend, since, before, limit } = filter;
    let text = |text: &str| Value::Text(text.to_owned());
    let conditions = [
        ("kind =", kind.map(|kind| text(kind.as_str()))),
        ("outcome =", outcome.map(|outcome| text(outcome.as_str()))),
        ("backend =", backend.as_deref().map(text)),
        ("queued >=", since.map(|since| Value::Integer(rows::time(since)))),
        ("id <", before.map(|before| text(&before.to_string()))),
    ];
    let (mut sql, mut values) = (format!("SELECT {} FROM jobs", COLUMNS.join(", ")), Vec::new());
    for (condition, value) in conditions {
        let Some(value) = value else { continue };
        sql += if values.is_empty() { " WHERE " } else { " AND " };
        sql += condition;
        sql += " ?";
        values.push(value);
    }
    sql += " ORDER BY id DESC LIMIT ?";
    values.push(Value::Integer(i64::try_from(*limit).unwrap_or(i64::MAX)));
    (sql, values)
}

pub(super) fn frames(connection: &Connection, id: JobId, after: u64) -> Result<Vec<StoredFrame>, Unreadable> {
    let mut statement = connection.prepare(
        "SELECT sequence, at, bytes FROM frames WHERE job = ?1 AND sequence > ?2 ORDER BY sequence",
    )?;
    let frames = statement.query_map(params![id.to_string(), sequence(after)], |row| {
        Ok(StoredFrame {
            sequence: row.get::<_, i64>(0)?.unsigned_abs(),
            at: rows::timestamp(row.get(1)?),
            bytes: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        })
    })?;
    Ok(frames.collect::<Result<_, _>>()?)
}

/// The number of a frame as a column, in its order.
fn sequence(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;
    use crate::core::kind::Kind;
    use crate::core::outcome::Outcome;

    #[test]
    fn every_filter_finds_its_page_by_an_index_and_needs_no_sorting() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection).unwrap();
        let all = Filter { kind: None, outcome: None, backend: None, since: None, before: None, limit: 10 };
        let filters = [
            all.clone(),
            Filter { before: Some(JobId::new()), ..all.clone() },
            Filter { kind: Some(Kind::Devices), ..all.clone() },
            Filter { outcome: Some(Outcome::Errored), before: Some(JobId::new()), ..all.clone() },
            Filter { backend: Some("default".to_owned()), ..all },
        ];
        for filter in filters {
            let (sql, values) = select(&filter);
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> = statement
                .query_map(params_from_iter(values), |row| row.get("detail"))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(plan.len() == 1 && plan[0].contains("USING INDEX"), "{filter:?}: {plan:?}");
        }
    }
}
