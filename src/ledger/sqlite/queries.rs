//! The queries.

use std::sync::LazyLock;

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, Row, TransactionBehavior, params, params_from_iter};

use super::notifications;
use super::rows::{self, COLUMNS, RowError, sequence};
use super::{failed, history, schema};
use crate::core::wire::sse::frame::Frame;
use crate::ledger::damage::DamagedRows;
use crate::ledger::notification::NotificationRule;
use crate::ledger::pending::Pending;
use crate::ledger::record_clock::ClockState;
use crate::ledger::{JobFilter, JobId, LoggedFrame, Record, Run, Timestamp};

/// Writes all pending updates, the notifications of new ends, and the state of the ledger's clock in one transaction.
/// Returns whether it queued notifications.
pub(super) fn write(
    connection: &mut Connection,
    pending: &Pending,
    log_frames: usize,
    rules: &[NotificationRule],
    stand: ClockState,
) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut is_queued = false;
    {
        let mut upsert_progress = transaction.prepare_cached(&UPSERT_PROGRESS)?;
        let mut upsert_end = transaction.prepare_cached(&UPSERT_END)?;
        let mut success = history::upsert(&transaction)?;
        // OR REPLACE would take half as long again: it needs a journal for each statement.
        let mut add = transaction.prepare_cached(
            "INSERT INTO frames (job, sequence, at, name, bytes) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT DO UPDATE SET at = excluded.at, name = excluded.name, bytes = excluded.bytes",
        )?;
        // Frames are numbered from one without gaps, so that the last number determines which ones to prune.
        let mut prune = transaction.prepare_cached(
            "DELETE FROM frames WHERE job = ?1
                AND sequence <= (SELECT max(sequence) FROM frames WHERE job = ?1) - ?2",
        )?;
        for waiting in pending.iter() {
            let (upsert, recorded) = match waiting.record.end {
                None => (&mut upsert_progress, Value::Null),
                Some(_) => (&mut upsert_end, Value::Integer(stand.time)),
            };
            history::add(&mut success, &waiting.record)?;
            is_queued |= notifications::record_ended(&transaction, rules, &waiting.record, stand.time)?;
            upsert.execute(params_from_iter(rows::values(&waiting.record)?.into_iter().chain([recorded])))?;
            let job = waiting.record.id.to_string();
            failed::add(&transaction, &job, &waiting.failed)?;
            for frame in waiting.frames.values() {
                let LoggedFrame { sequence: number, at, frame: Frame { name, bytes, .. } } = frame;
                add.execute(params![job, sequence(*number), at.to_i64(), name.as_str(), &**bytes])?;
            }
            let last = waiting.frames.last_key_value().map_or(0, |(number, _)| *number);
            if last > log_frames as u64 {
                prune.execute(params![job, i64::try_from(log_frames).unwrap_or(i64::MAX)])?;
            }
        }
    }
    schema::save_clock_state(&transaction, stand)?;
    transaction.commit()?;
    Ok(is_queued)
}

/// Writes a record without an end. If the previous one has an end, the new one is late.
static UPSERT_PROGRESS: LazyLock<String> = LazyLock::new(|| {
    let updates = rows::PROGRESS.iter().map(|name| update(name)).collect();
    upsert(updates, " WHERE jobs.finished IS NULL")
});

/// Writes a record with an end. Retention counts from the time at which the record was first written with an end.
static UPSERT_END: LazyLock<String> = LazyLock::new(|| {
    let mut updates: Vec<String> = [rows::PROGRESS, rows::END].concat().into_iter().map(update).collect();
    updates.push("recorded = coalesce(jobs.recorded, excluded.recorded)".to_owned());
    upsert(updates, "")
});

fn update(name: &str) -> String {
    match name {
        // Failed objects that are not kept do not return.
        "failed_left_out" => format!("{name} = max(jobs.{name}, excluded.{name})"),
        _ => format!("{name} = excluded.{name}"),
    }
}

/// The statement that inserts a record, or else makes these `updates`. SQLite writes every index of each updated column,
/// whether or not its value differs.
fn upsert(updates: Vec<String>, condition: &str) -> String {
    let placeholders: Vec<String> = (1..=COLUMNS.len() + 1).map(|place| format!("?{place}")).collect();
    format!(
        "INSERT INTO jobs ({}, recorded) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}{condition}",
        COLUMNS.join(", "),
        placeholders.join(", "),
        updates.join(", ")
    )
}

pub(super) fn job(connection: &Connection, id: JobId) -> Result<Option<Record>, RowError> {
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM jobs WHERE id = ?1", COLUMNS.join(", ")))?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(rows::record).transpose()
}

/// Reads the records that match `filter`. Unreadable ones are skipped and do not count towards the limit.
pub(super) fn jobs(
    connection: &Connection,
    filter: &JobFilter,
    damage: &mut DamagedRows,
) -> Result<Vec<Record>, RowError> {
    let (sql, values) = select(&COLUMNS, filter);
    rows::read_all(connection, (&sql, values), filter.limit, |row| damage.check(rows::record(row)))
}

/// Reads how long the jobs that match `filter` took. Unfinished and unreadable ones, and those that never started, are
/// skipped and do not count towards the limit.
pub(super) fn runs(
    connection: &Connection,
    filter: &JobFilter,
    damage: &mut DamagedRows,
) -> Result<Vec<Run>, RowError> {
    let (sql, values) = select(&["id", "kind", "vm", "started", "finished"], filter);
    rows::read_all(connection, (&sql, values), filter.limit, |row| damage.check(rows::run(row)).flatten())
}

/// Reads the jobs whose cool-down ends after `now`, the longest first.
pub(super) fn cooling_down(
    connection: &Connection,
    now: Timestamp,
    damage: &mut DamagedRows,
) -> Result<Vec<Record>, RowError> {
    let sql = format!(
        "SELECT {} FROM jobs WHERE cooldown_until > ?1 AND finished IS NOT NULL ORDER BY cooldown_until DESC",
        COLUMNS.join(", ")
    );
    let values = vec![Value::Integer(now.to_i64())];
    rows::read_all(connection, (&sql, values), usize::MAX, |row| damage.check(rows::record(row)))
}

/// Builds the query from the set fields alone, so that SQLite can choose a matching index.
fn select(columns: &[&str], filter: &JobFilter) -> (String, Vec<Value>) {
    let JobFilter { kind, outcomes, failed, backend, since, before, limit: _ } = filter;
    let text = |text: &str| Value::Text(text.to_owned());
    let conditions = [
        ("kind =", kind.map(|kind| text(kind.as_str()))),
        ("outcome =", outcomes.first().filter(|_| outcomes.len() == 1).map(|outcome| text(outcome.as_str()))),
        ("backend =", backend.as_ref().map(|backend| text(&backend.to_string()))),
        ("queued >=", since.map(|since| Value::Integer(since.to_i64()))),
        ("id <", before.map(|before| text(&before.to_string()))),
    ];
    let (mut sql, mut values) = (format!("SELECT {} FROM jobs", columns.join(", ")), Vec::new());
    for (condition, value) in conditions {
        let Some(value) = value else { continue };
        sql += if values.is_empty() { " WHERE " } else { " AND " };
        sql += condition;
        sql += " ?";
        values.push(value);
    }
    // With a plus sign, it is not searched by its index, which would need sorting.
    let several = (outcomes.len() > 1).then(|| {
        let names: Vec<String> = outcomes.iter().map(|outcome| format!("'{}'", outcome.as_str())).collect();
        format!("+outcome IN ({})", names.join(", "))
    });
    let failed = failed.map(|failed| if failed { "failed_total > 0" } else { "failed_total = 0" }.to_owned());
    for condition in several.into_iter().chain(failed) {
        sql += if sql.contains(" WHERE ") { " AND " } else { " WHERE " };
        sql += &condition;
    }
    sql += " ORDER BY id DESC";
    (sql, values)
}

/// Reads the readable frames of a job.
pub(super) fn frames(
    connection: &Connection,
    id: JobId,
    damage: &mut DamagedRows,
) -> Result<Vec<LoggedFrame>, RowError> {
    let sql = "SELECT sequence, at, name, bytes FROM frames WHERE job = ?1 ORDER BY sequence";
    let values = vec![Value::Text(id.to_string())];
    rows::read_all(connection, (sql, values), usize::MAX, |row| {
        damage.check(frame(row).map_err(|error| RowError::of_job(id, "frames", &error)))
    })
}

fn frame(row: &Row<'_>) -> rusqlite::Result<LoggedFrame> {
    let bytes: Vec<u8> = row.get(3)?;
    // Other bytes would damage the stream of a client.
    if !bytes.starts_with(b"event: ") || !bytes.ends_with(b"\n\n") {
        let problem = "not an encoded event".into();
        return Err(rusqlite::Error::FromSqlConversionFailure(3, Type::Blob, problem));
    }
    Ok(LoggedFrame {
        sequence: row.get::<_, i64>(0)?.unsigned_abs(),
        at: Timestamp::from_i64(row.get(1)?),
        frame: Frame { name: row.get(2)?, bytes: bytes.into(), payload: None },
    })
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;
    use crate::core::domain::kind::Kind;
    use crate::core::domain::outcome::Outcome;

    #[test]
    fn every_filter_finds_its_page_by_an_index_and_needs_no_sorting() {
        let connection = Connection::open_in_memory().unwrap();
        schema::migrate(&connection).unwrap();
        let all = JobFilter { limit: 10, ..JobFilter::default() };
        let filters = [
            all.clone(),
            JobFilter { before: Some(JobId::new()), ..all.clone() },
            JobFilter { kind: Some(Kind::Devices), ..all.clone() },
            JobFilter { outcomes: vec![Outcome::Errored], before: Some(JobId::new()), ..all.clone() },
            JobFilter { outcomes: vec![Outcome::Errored, Outcome::TimedOut], ..all.clone() },
            JobFilter { failed: Some(true), before: Some(JobId::new()), ..all.clone() },
            JobFilter { failed: Some(false), ..all.clone() },
            JobFilter { backend: Some("http://default".parse().unwrap()), ..all },
        ];
        for filter in filters {
            let (sql, values) = select(&COLUMNS, &filter);
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
