//! Conversion between records and rows.
//!
//! Times are milliseconds since the beginning of 1970, and durations are milliseconds. Compound values (counts,
//! channels, failed objects) are JSON.

use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Value, ValueRef};
use rusqlite::{Connection, Row, RowIndex, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::event::Failure;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::{Cause, Outcome};
use crate::core::wire::sse::frame::FrameName;
use crate::ledger::retention::milliseconds;
use crate::ledger::{Cooldown, JobEnd, JobId, JobProgress, Record, Requester, Run, Stored, Timestamp};

/// Why a row is not a valid record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    /// The database failed to read it.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// It holds a value that no bridge writes.
    #[error("the record of job {job} cannot be read: {problem}")]
    Malformed {
        /// The job of the row.
        job: String,
        /// The invalid value.
        problem: String,
    },
}

impl RowError {
    /// Returns the `error` of a row that belongs to `job`, in the table named `table`.
    pub(super) fn of_job(job: JobId, table: &str, error: &rusqlite::Error) -> Self {
        Self::Malformed { job: job.to_string(), problem: format!("{table}: {error}") }
    }
}

/// Runs a query, and returns the first `limit` values that `convert` makes of its rows.
pub(super) fn read_all<T>(
    connection: &Connection,
    (sql, values): (&str, Vec<Value>),
    limit: usize,
    mut convert: impl FnMut(&Row<'_>) -> Option<T>,
) -> Result<Vec<T>, RowError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        found.extend(convert(row));
    }
    Ok(found)
}

#[derive(Serialize, Deserialize)]
struct CountRow {
    object: String,
    #[serde(flatten)]
    count: Count,
}

/// The number of a frame or a failure as a column, with its order preserved.
pub(super) fn sequence(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// A number as a column. Rows are not sorted by it, so its bits are stored unchanged.
fn number(number: u64) -> Value {
    Value::Integer(number.cast_signed())
}

fn duration_value(time: Duration) -> Value {
    Value::Integer(milliseconds(time))
}

fn moment(at: Timestamp) -> Value {
    Value::Integer(at.to_i64())
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn optional<T>(value: Option<T>, column: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, column)
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<Value> {
    serde_json::to_string(value)
        .map(Value::Text)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Defines the columns of a record: the name and the value of each. Those in front of the groups never change.
macro_rules! columns {
    (
        |$record:ident, $end:ident, $failure:ident|
        $($fixed:ident = $fixed_value:expr;)*
        $(#[$doc:meta] $group:ident: { $($name:ident = $value:expr;)* })*
    ) => {
        /// The columns of a record, in the order of [`values`].
        pub(super) const COLUMNS: [&str; [$(stringify!($fixed),)* $($(stringify!($name)),*),*].len()] =
            [$(stringify!($fixed),)* $($(stringify!($name)),*),*];
        $(#[$doc] pub(super) const $group: &[&str] = &[$(stringify!($name)),*];)*

        /// The columns of `record`, in the order of [`COLUMNS`].
        pub(super) fn values($record: &Record) -> rusqlite::Result<[Value; COLUMNS.len()]> {
            let $end = $record.end.as_ref();
            let $failure = $end.and_then(|end| end.failure.as_ref());
            Ok([$($fixed_value,)* $($($value),*),*])
        }
    };
}

columns! {
    |record, end, failure|

    id = text(record.id.to_string());
    backend = text(record.backend.to_string());
    kind = text(record.kind.as_str());
    vm = optional(record.vm, number);
    query = text(&record.query);
    fingerprint = optional(record.requester.fingerprint.as_ref(), text);
    address = optional(record.requester.address.as_ref(), text);
    actor = optional(record.requester.actor.as_ref(), text);
    queued = moment(record.queued);

    /// The columns that change until the end.
    PROGRESS: {
        channels = json(&record.channels)?;
        dialect = optional(record.dialect.as_ref(), |dialect| text(dialect.to_string()));
        started = optional(record.started, moment);
        updated = optional(record.progress.updated, moment);
        first_frame = optional(record.progress.first_frame, duration_value);
        counts = json(&count_rows(&record.progress.counts))?;
        failed_total = Value::Integer(sequence(record.progress.counts.total().failed));
        failed_left_out = number(record.progress.failed_left_out);
        frames_in = number(record.progress.frames_in);
        bytes_in = number(record.progress.bytes_in);
        frames_out = number(record.progress.frames_out);
        bytes_out = number(record.progress.bytes_out);
        watchers = number(record.progress.watchers);
        attaches = number(record.progress.attaches);
        cooldown_least = optional(record.cooldown.map(|cooldown| cooldown.least), duration_value);
        cooldown_until = optional(record.cooldown.map(|cooldown| cooldown.until), moment);
        cancelled_by = optional(record.cancelled_by.as_ref(), text);
    }

    /// The columns that only the end sets.
    END: {
        finished = optional(end.map(|end| end.finished), moment);
        outcome = optional(end.map(|end| end.outcome.as_str()), text);
        cause = optional(end.and_then(|end| end.cause).map(Cause::as_str), text);
        failure_step = optional(failure.map(|failure| &failure.step), text);
        failure_error = optional(failure.map(|failure| &failure.error), text);
        failure_detail = optional(failure.map(|failure| &failure.detail), text);
        failed_objects = json(&end.map_or(&[] as &[_], |end| &end.failed_objects))?;
    }
}

fn count_rows(counts: &Counts) -> Vec<CountRow> {
    counts
        .0
        .iter()
        .map(|(object, count)| CountRow { object: object.as_str().to_owned(), count: *count })
        .collect()
}

/// Parses the record in a row.
pub(super) fn record(row: &Row<'_>) -> Result<Record, RowError> {
    let job = lossy(row, "id");
    read(row, &job).map_err(|problem| RowError::Malformed { job, problem })
}

fn read(row: &Row<'_>, id: &str) -> Result<Record, String> {
    Ok(Record {
        id: id.parse::<JobId>().map_err(|error| error.to_string())?,
        backend: column::<String>(row, "backend")?.into(),
        kind: parse_name(&column::<String>(row, "kind")?, "kind", Kind::from_name)?,
        vm: column::<Option<i64>>(row, "vm")?.map(i64::cast_unsigned),
        channels: parsed::<Vec<String>>(row, "channels")?.into_iter().map(Stored::from).collect(),
        dialect: column::<Option<String>>(row, "dialect")?.map(Stored::from),
        query: column(row, "query")?,
        requester: Requester {
            fingerprint: column(row, "fingerprint")?,
            address: column(row, "address")?,
            actor: column(row, "actor")?,
        },
        queued: Timestamp::from_i64(column(row, "queued")?),
        started: time(row, "started")?,
        progress: JobProgress {
            updated: time(row, "updated")?,
            first_frame: duration(row, "first_frame")?,
            counts: counts(row)?,
            failed_left_out: count(row, "failed_left_out")?,
            frames_in: count(row, "frames_in")?,
            bytes_in: count(row, "bytes_in")?,
            frames_out: count(row, "frames_out")?,
            bytes_out: count(row, "bytes_out")?,
            watchers: count(row, "watchers")?,
            attaches: count(row, "attaches")?,
        },
        cooldown: cooldown(row)?,
        cancelled_by: column(row, "cancelled_by")?,
        end: end(row)?,
    })
}

/// Parses how long the job in a row took, if it has started and ended.
pub(super) fn run(row: &Row<'_>) -> Result<Option<Run>, RowError> {
    read_run(row).map_err(|problem| RowError::Malformed { job: lossy(row, "id"), problem })
}

fn read_run(row: &Row<'_>) -> Result<Option<Run>, String> {
    let (Some(started), Some(finished)) = (time(row, "started")?, time(row, "finished")?) else {
        return Ok(None);
    };
    Ok(Some(Run {
        kind: parse_name(&column::<String>(row, "kind")?, "kind", Kind::from_name)?,
        vm: column::<Option<i64>>(row, "vm")?.map(i64::cast_unsigned),
        duration: finished.since(started),
    }))
}

fn time(row: &Row<'_>, name: &str) -> Result<Option<Timestamp>, String> {
    Ok(column::<Option<i64>>(row, name)?.map(Timestamp::from_i64))
}

fn count(row: &Row<'_>, name: &str) -> Result<u64, String> {
    column(row, name).map(i64::cast_unsigned)
}

fn cooldown(row: &Row<'_>) -> Result<Option<Cooldown>, String> {
    let Some(until) = column::<Option<i64>>(row, "cooldown_until")? else { return Ok(None) };
    let least = duration(row, "cooldown_least")?.unwrap_or_default();
    Ok(Some(Cooldown { least, until: Timestamp::from_i64(until) }))
}

fn duration(row: &Row<'_>, name: &str) -> Result<Option<Duration>, String> {
    let time = column::<Option<i64>>(row, name)?;
    Ok(time.map(|time| Duration::from_millis(time.unsigned_abs())))
}

fn end(row: &Row<'_>) -> Result<Option<JobEnd>, String> {
    let Some(finished) = column::<Option<i64>>(row, "finished")? else { return Ok(None) };
    let cause = column::<Option<String>>(row, "cause")?;
    let failure = match column(row, "failure_step")? {
        None => None,
        Some(step) => Some(Failure {
            step,
            error: column(row, "failure_error")?,
            detail: column(row, "failure_detail")?,
        }),
    };
    Ok(Some(JobEnd {
        finished: Timestamp::from_i64(finished),
        outcome: parse_name(&column::<String>(row, "outcome")?, "outcome", Outcome::from_name)?,
        cause: cause.map(|cause| parse_name(&cause, "cause", Cause::from_name)).transpose()?,
        failure,
        failed_objects: parsed(row, "failed_objects")?,
    }))
}

/// Parses the object counts in a row.
pub(super) fn counts(row: &Row<'_>) -> Result<Counts, String> {
    let counts: Vec<CountRow> = parsed(row, "counts")?;
    let count = |CountRow { object, count }| Ok((parse_name(&object, "object", Object::from_name)?, count));
    counts.into_iter().map(count).collect::<Result<_, String>>().map(Counts)
}

impl FromSql for Object {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parse_name(value.as_str()?, "object", Self::from_name)
            .map_err(|error| FromSqlError::Other(error.into()))
    }
}

impl FromSql for FrameName {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parse_name(value.as_str()?, "frame", Self::from_name)
            .map_err(|error| FromSqlError::Other(error.into()))
    }
}

/// Reads a text column, lossily.
pub(super) fn lossy<I: RowIndex>(row: &Row<'_>, index: I) -> String {
    let value = row.get_ref(index).ok();
    let bytes = value.as_ref().and_then(|value| value.as_bytes_or_null().ok()).flatten();
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

pub(super) fn column<T: FromSql>(row: &Row<'_>, name: &str) -> Result<T, String> {
    row.get(name).map_err(|error| format!("{name}: {error}"))
}

pub(super) fn parsed<T: for<'a> Deserialize<'a>>(row: &Row<'_>, name: &str) -> Result<T, String> {
    serde_json::from_str(&column::<String>(row, name)?).map_err(|error| format!("{name}: {error}"))
}

pub(super) fn parse_name<T>(
    name: &str,
    what: &str,
    named: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    named(name).ok_or_else(|| format!("no {what} is called `{name}`"))
}
