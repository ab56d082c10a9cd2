//! Corrupt values in the file.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proxbox_bridge::ledger::{Cleaning, Health, Ledger, LedgerOptions, Timestamp};
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::{end, everything, folder, frames, full, open, options, put};

fn file(directory: &Path) -> Connection {
    Connection::open(directory.join("ledger.sqlite3")).unwrap()
}

/// A value of a column.
#[derive(Clone, Debug)]
enum Stored {
    Plain(Value),
    /// Text, which need not be UTF-8.
    Text(Vec<u8>),
}

impl rusqlite::ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Plain(value) => ToSqlOutput::Borrowed(value.into()),
            Self::Text(bytes) => ToSqlOutput::Borrowed(ValueRef::Text(bytes)),
        })
    }
}

fn integers() -> impl Strategy<Value = Stored> {
    let far = proptest::sample::select(vec![i64::MIN, -1, 0, 253_402_300_800_000, i64::MAX - 1, i64::MAX]);
    prop_oneof![any::<i64>(), far].prop_map(|number| Stored::Plain(Value::Integer(number)))
}

fn texts() -> impl Strategy<Value = Stored> {
    let known = [
        "",
        "devices",
        "completed",
        "crashed",
        "[]",
        "{}",
        "[{\"object\":\"device\",\"seen\":18446744073709551615,\"completed\":18446744073709551615,\"failed\":1,\"unconfirmed\":1}]",
    ];
    let known = proptest::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec());
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![known, bytes, ".*".prop_map(String::into_bytes)].prop_map(Stored::Text)
}

/// A value for a column of the type `sort`.
fn values(sort: &str) -> BoxedStrategy<Stored> {
    match sort {
        "INTEGER" => integers().boxed(),
        "TEXT" => texts().boxed(),
        _ => proptest::collection::vec(any::<u8>(), 0..60)
            .prop_map(|bytes| Stored::Plain(Value::Blob(bytes)))
            .boxed(),
    }
}

/// One of `values`, or NULL.
fn or_null(values: BoxedStrategy<Stored>) -> BoxedStrategy<Stored> {
    prop_oneof![4 => values, 1 => Just(Stored::Plain(Value::Null))].boxed()
}

/// Every column of every table, with values for it.
fn columns() -> Vec<(&'static str, String, BoxedStrategy<Stored>)> {
    let folder = folder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { open(folder.path()).await.close().await });
    let connection = file(folder.path());
    let mut columns = Vec::new();
    for table in ["jobs", "frames", "meta"] {
        let mut statement = connection.prepare(&format!("PRAGMA table_info({table})")).unwrap();
        let found = statement
            .query_map([], |row| Ok((row.get(1)?, row.get::<_, String>(2)?, row.get::<_, bool>(3)?)));
        for (name, sort, is_filled) in found.unwrap().map(Result::unwrap) {
            let values = if is_filled { values(&sort) } else { or_null(values(&sort)) };
            columns.push((table, name, values));
        }
    }
    assert!(columns.len() > 35, "{}", columns.len());
    columns
}

/// A column of every table, and its corrupt value.
fn damages() -> impl Strategy<Value = Vec<(&'static str, String, Stored)>> {
    let one = proptest::sample::select(
        columns().into_iter().map(|column| (column.0, column.1)).collect::<Vec<_>>(),
    );
    let strategies = columns();
    let damage = one.prop_flat_map(move |(table, name)| {
        let found = strategies.iter().find(|column| (column.0, &column.1) == (table, &name)).unwrap();
        found.2.clone().prop_map(move |value| (table, name.clone(), value))
    });
    proptest::collection::vec(damage, 1..6)
}

/// Three jobs, of which one has not ended.
async fn filled(directory: &Path) {
    let ledger = open(directory).await;
    for end in [Some(end(2_000)), Some(end(3_000)), None] {
        let record = proxbox_bridge::ledger::Record { end, ..full() };
        put(&ledger, &record, frames(1..=3)).await;
    }
    ledger.close().await;
}

/// The file of an intact ledger.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let folder = folder();
    runtime.block_on(filled(folder.path()));
    std::fs::read(folder.path().join("ledger.sqlite3")).unwrap()
});

/// Runs every query of the ledger.
async fn ask_everything(ledger: &Ledger) -> Result<(), String> {
    let found = ledger.jobs(everything()).await.map_err(|error| error.0)?;
    for record in &found {
        let _ = ledger.job(record.id).await;
        for frame in ledger.frames(record.id).await.map_err(|error| error.0)? {
            let _ = frame.at.to_string();
        }
        let times = [Some(record.queued), record.started, record.progress.updated];
        let end = record.end.as_ref().map(|end| end.finished);
        let _ = times
            .into_iter()
            .chain([end])
            .flatten()
            .map(|at| (at.to_string(), at.seconds()))
            .collect::<Vec<_>>();
        let _ = record.progress.counts.total();
    }
    ledger.cooling_down(Timestamp::now()).await.map_err(|error| error.0)?;
    for cleaning in [Cleaning::Scheduled, Cleaning::Requested] {
        ledger.clean(cleaning).await.map_err(|error| error.0)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_stored_byte_keeps_the_ledger_from_opening_and_from_answering(
        damages in damages(),
        row in 0..3_i64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let folder = folder();
        std::fs::write(folder.path().join("ledger.sqlite3"), &*WHOLE).unwrap();
        {
            let connection = file(folder.path());
            connection.pragma_update(None, "foreign_keys", false).unwrap();
            connection.pragma_update(None, "synchronous", "OFF").unwrap();
            for (table, name, value) in &damages {
                let order = if *table == "jobs" { "rowid" } else { "1" };
                let key = match *table { "jobs" => "id", "frames" => "job, sequence", _ => "name" };
                let sql = format!(
                    "UPDATE OR IGNORE {table} SET {name} = ?1 WHERE ({key}) IN
                        (SELECT {key} FROM {table} ORDER BY {order} LIMIT 1 OFFSET ?2)"
                );
                connection.execute(&sql, rusqlite::params![value, row]).unwrap();
            }
        }
        let answered = runtime.block_on(async {
            let ledger = Ledger::open(options(folder.path())).await.unwrap();
            let health = ledger.health().borrow().clone();
            let answered = ask_everything(&ledger).await;
            put(&ledger, &full(), frames(1..=2)).await;
            ledger.close().await;
            (health, answered)
        });
        prop_assert_eq!(answered, (Health::Available, Ok(())));
    }
}

#[tokio::test]
async fn a_job_beyond_the_year_9999_that_never_ended_is_recorded_as_interrupted() {
    let folder = folder();
    filled(folder.path()).await;
    let far = "UPDATE jobs SET queued = 9e15, started = 9e15, updated = 9e15, cooldown_least = 9e18 WHERE finished IS NULL";
    file(folder.path()).execute(far, []).unwrap();
    let ledger = open(folder.path()).await;
    let newest = &ledger.jobs(everything()).await.unwrap()[0];
    let failure = newest.end.clone().unwrap().failure.unwrap();
    assert!(failure.detail.contains("9999-12-31T23:59:59.999Z"), "{}", failure.detail);
    ledger.close().await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_takes_nothing_from_the_others_and_fills_no_page() {
    let folder = folder();
    let ledger = Ledger::open(LedgerOptions { ..options(folder.path()) }).await.unwrap();
    let jobs: Vec<_> = (0..4).map(|_| full()).collect();
    for job in &jobs {
        put(&ledger, job, frames(1..=1)).await;
    }
    ledger.close().await;
    let connection = file(folder.path());
    let damaged = "UPDATE jobs SET kind = CAST(x'ff' AS TEXT) WHERE id IN (?1, ?2)";
    connection.execute(damaged, [jobs[1].id.to_string(), jobs[3].id.to_string()]).unwrap();
    drop(connection);
    let ledger = open(folder.path()).await;
    let page = ledger.jobs(proxbox_bridge::ledger::JobFilter { limit: 2, ..everything() }).await.unwrap();
    assert_eq!(page.iter().map(|record| record.id).collect::<Vec<_>>(), [jobs[2].id, jobs[0].id]);
    let error = ledger.job(jobs[1].id).await.unwrap_err();
    assert!(error.0.contains(&jobs[1].id.to_string()) && error.0.contains("kind"), "{error}");
    ledger.close().await;
}

#[tokio::test]
async fn a_frame_without_its_first_or_its_last_bytes_is_left_out() {
    let folder = folder();
    let ledger = open(folder.path()).await;
    let job = full();
    put(&ledger, &job, frames(1..=3)).await;
    ledger.close().await;
    for (sequence, bytes) in [(1, "event: step\ndata: 1\n"), (3, "data: 3\n\n")] {
        let damage = "UPDATE frames SET bytes = CAST(?2 AS BLOB) WHERE sequence = ?1";
        file(folder.path()).execute(damage, rusqlite::params![sequence, bytes]).unwrap();
    }
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.frames(job.id).await.unwrap(), frames(2..=2));
    ledger.close().await;
}
