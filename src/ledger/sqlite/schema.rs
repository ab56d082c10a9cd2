//! The tables, and their migrations.

use rusqlite::{Connection, OptionalExtension};

use crate::ledger::Timestamp;
use crate::ledger::record_clock::{ClockState, RecordClock};
use crate::ledger::secrets::Secret;

/// The migration to each version from the previous one. The first creates version 1. A released migration is never
/// changed.
const STEPS: [&str; 8] = [
    "
    CREATE TABLE meta (
        name TEXT NOT NULL PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE jobs (
        id TEXT NOT NULL PRIMARY KEY,
        backend TEXT NOT NULL,
        kind TEXT NOT NULL,
        vm INTEGER,
        channels TEXT NOT NULL,
        dialect TEXT,
        query TEXT NOT NULL,
        fingerprint TEXT,
        address TEXT,
        actor TEXT,
        queued INTEGER NOT NULL,
        started INTEGER,
        updated INTEGER,
        first_frame INTEGER,
        counts TEXT NOT NULL,
        frames_in INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL,
        frames_out INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        watchers INTEGER NOT NULL,
        attaches INTEGER NOT NULL,
        finished INTEGER,
        outcome TEXT,
        cause TEXT,
        failure_step TEXT,
        failure_error TEXT,
        failure_detail TEXT,
        failed_objects TEXT NOT NULL,
        -- Whether its frames have not been removed for their age yet.
        logged INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    CREATE INDEX jobs_by_backend ON jobs (backend, id);
    CREATE INDEX jobs_by_kind ON jobs (kind, id);
    CREATE INDEX jobs_by_outcome ON jobs (outcome, id);
    CREATE INDEX jobs_by_queued ON jobs (queued);
    CREATE INDEX jobs_by_finished ON jobs (finished);
    CREATE INDEX jobs_with_log ON jobs (finished) WHERE logged = 1;

    CREATE TABLE frames (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        at INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (job, sequence)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- For how long the backend may be at work on it: after the bridge let go of it, and until when.
    ALTER TABLE jobs ADD COLUMN cooldown_least INTEGER;
    ALTER TABLE jobs ADD COLUMN cooldown_until INTEGER;
    CREATE INDEX jobs_by_cooldown ON jobs (cooldown_until) WHERE cooldown_until IS NOT NULL;
",
    "
    -- When its end was recorded, in the ledger's time: what it is kept by, whatever the wall clock was.
    ALTER TABLE jobs ADD COLUMN recorded INTEGER;
    DROP INDEX jobs_by_finished;
    DROP INDEX jobs_with_log;
    CREATE INDEX jobs_by_recorded ON jobs (recorded);
    CREATE INDEX jobs_with_log ON jobs (recorded) WHERE logged = 1;
",
    r#"
    -- The type of the event: the status of a step, or `error`, `complete`, or `extra` for a type of the backend's own.
    ALTER TABLE frames ADD COLUMN name TEXT NOT NULL DEFAULT 'progress';
    UPDATE frames SET name = CASE
        WHEN CAST(bytes AS TEXT) GLOB 'event: complete?data: *' THEN 'complete'
        WHEN CAST(bytes AS TEXT) GLOB 'event: error?data: *' THEN 'error'
        WHEN CAST(bytes AS TEXT) NOT GLOB 'event: step?data: *' THEN 'extra'
        WHEN CAST(bytes AS TEXT) GLOB '*", "status": "started", "*' THEN 'started'
        WHEN CAST(bytes AS TEXT) GLOB '*", "status": "completed", "*' THEN 'completed'
        WHEN CAST(bytes AS TEXT) GLOB '*", "status": "failed", "*' THEN 'failed'
        ELSE 'progress'
    END
    -- Most frames are progress, and keep the default without being written again.
    WHERE CAST(bytes AS TEXT) NOT GLOB 'event: step?data: *", "status": "progress", "*';
"#,
    "
    CREATE TABLE failed_objects (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        at INTEGER NOT NULL,
        object TEXT NOT NULL,
        name TEXT NOT NULL,
        cluster TEXT,
        owner TEXT,
        count INTEGER NOT NULL,
        error TEXT NOT NULL,
        PRIMARY KEY (job, number)
    ) STRICT, WITHOUT ROWID;
    -- How many objects failed, as in `counts`, and how many of them are not in `failed_objects`.
    ALTER TABLE jobs ADD COLUMN failed_total INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN failed_left_out INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET failed_total = (
        SELECT CAST(total(CASE WHEN type = 'object' THEN value ->> '$.failed' END) AS INTEGER)
            FROM json_each(CASE WHEN json_valid(counts) THEN counts ELSE '[]' END));
    UPDATE jobs SET failed_left_out = failed_total WHERE failed_total > 0;
    CREATE INDEX jobs_with_failed ON jobs (id) WHERE failed_total > 0;
",
    "ALTER TABLE jobs ADD COLUMN cancelled_by TEXT;",
    "
    -- The last sync of each kind that completed on each backend. It outlives the record of its job.
    CREATE TABLE last_success (
        backend TEXT NOT NULL,
        kind TEXT NOT NULL,
        job TEXT NOT NULL,
        at INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        unconfirmed INTEGER NOT NULL,
        PRIMARY KEY (backend, kind)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO last_success
        SELECT backend, kind, id, at, failed_total, (
            SELECT CAST(total(CASE WHEN type = 'object' THEN value ->> '$.unconfirmed' END) AS INTEGER)
                FROM json_each(CASE WHEN json_valid(counts) THEN counts ELSE '[]' END))
            -- The other columns are those of the row with the latest end.
            FROM (SELECT backend, kind, id, max(finished) AS at, failed_total, counts FROM jobs
                WHERE outcome = 'completed' AND finished IS NOT NULL AND vm IS NULL AND started IS NOT NULL
                GROUP BY backend, kind);

    -- The capabilities of each backend when they were last detected, as JSON.
    CREATE TABLE backends (
        url TEXT NOT NULL PRIMARY KEY,
        at INTEGER NOT NULL,
        capabilities TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    -- Notifications that their targets have not accepted yet. `queued` is in the ledger's time; `vm` is 0 for a sync of
    -- all virtual machines.
    CREATE TABLE notifications (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        target TEXT NOT NULL,
        id TEXT NOT NULL,
        event TEXT NOT NULL,
        backend TEXT NOT NULL,
        kind TEXT NOT NULL,
        vm INTEGER NOT NULL,
        at INTEGER NOT NULL,
        since INTEGER,
        resolved TEXT NOT NULL,
        job TEXT,
        queued INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        UNIQUE (target, id)
    ) STRICT;
    CREATE INDEX notifications_by_target ON notifications (target, number);
    -- Problems that targets were notified of, until a run resolves them. `notified` is 0 for syncs without a completed
    -- run that are not overdue yet; their `since` is in the ledger's time.
    CREATE TABLE notification_problems (
        target TEXT NOT NULL,
        backend TEXT NOT NULL,
        kind TEXT NOT NULL,
        vm INTEGER NOT NULL,
        event TEXT NOT NULL,
        since INTEGER NOT NULL,
        notified INTEGER NOT NULL,
        PRIMARY KEY (target, backend, kind, vm, event)
    ) STRICT, WITHOUT ROWID;
",
];

/// The version of the tables that this bridge supports.
pub const VERSION: i64 = STEPS.len() as i64;

/// The version of the existing tables; 0 if there are none.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Migrates the tables to [`VERSION`], in the transaction of the caller.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let there = usize::try_from(version(connection)?).unwrap_or_default();
    for (index, step) in STEPS.iter().enumerate().skip(there) {
        connection.execute_batch(step)?;
        connection.execute_batch(&format!("PRAGMA user_version = {}", index + 1))?;
    }
    Ok(())
}

/// How many secrets of processes that started without the ledger are kept.
const EARLIER_SECRETS: i64 = 8;
const IS_EARLIER: &str = "name GLOB 'earlier secret *' AND length(value) = 32";

/// Loads the secrets that stored fingerprints may have been made with, the ledger's own first. A ledger without a
/// secret adopts `new`. The secrets in `used`, which this process has made fingerprints with, are stored as well.
pub(super) fn load_secrets(
    connection: &Connection,
    new: Secret,
    used: &[Secret],
) -> rusqlite::Result<Vec<Secret>> {
    // A damaged secret is removed, so that a new one can take its place.
    connection.execute("DELETE FROM meta WHERE name = 'secret' AND length(value) <> 32", [])?;
    connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('secret', ?1)", [new])?;
    for secret in used {
        connection.execute(
            &format!(
                "INSERT OR IGNORE INTO meta (name, value)
                    SELECT format('earlier secret %020d',
                        (SELECT coalesce(max(cast(substr(name, 16) AS INTEGER)), 0) + 1 FROM meta
                            WHERE {IS_EARLIER})), ?1
                    WHERE NOT EXISTS (SELECT 1 FROM meta WHERE value = ?1)"
            ),
            [secret],
        )?;
    }
    connection.execute(
        &format!(
            "DELETE FROM meta WHERE {IS_EARLIER} AND name NOT IN
                (SELECT name FROM meta WHERE {IS_EARLIER} ORDER BY name DESC LIMIT ?1)"
        ),
        [EARLIER_SECRETS],
    )?;
    let mut statement = connection.prepare(&format!(
        "SELECT value FROM meta WHERE name = 'secret' OR ({IS_EARLIER}) ORDER BY name = 'secret' DESC, name DESC"
    ))?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The stored state of the ledger's time, if it is readable.
fn clock_state(connection: &Connection) -> rusqlite::Result<Option<ClockState>> {
    let stored = connection
        .query_row("SELECT value FROM meta WHERE name = 'time' AND length(value) = 16", [], |row| row.get(0))
        .optional()?;
    Ok(stored.map(ClockState::from_bytes))
}

/// Stores the state of the ledger's time.
pub(super) fn save_clock_state(connection: &Connection, stand: ClockState) -> rusqlite::Result<()> {
    let store = "INSERT OR REPLACE INTO meta (name, value) VALUES ('time', ?1)";
    connection.prepare_cached(store)?.execute([stand.to_bytes()]).map(|_| ())
}

/// When this ledger was created, in its own time. `now`, if it is new, of an older bridge, or damaged.
pub(super) fn created_at(connection: &Connection, now: i64) -> rusqlite::Result<i64> {
    let stored = connection
        .query_row("SELECT value FROM meta WHERE name = 'begun' AND length(value) = 8", [], |row| row.get(0))
        .optional()?;
    if let Some(begun) = stored.map(i64::from_be_bytes).filter(|begun| *begun <= now) {
        return Ok(begun);
    }
    let store = "INSERT OR REPLACE INTO meta (name, value) VALUES ('begun', ?1)";
    connection.execute(store, [now.to_be_bytes()])?;
    Ok(now)
}

/// Resumes `aging` from the stored state, and gives ended jobs without a recorded time one that retention counts
/// from.
pub(super) fn resume(connection: &Connection, aging: &RecordClock) -> rusqlite::Result<ClockState> {
    let stored = clock_state(connection)?;
    let newest: Option<i64> = connection.query_row(
        "SELECT max(max(queued, coalesce(started, 0), coalesce(updated, 0), coalesce(finished, 0))) FROM jobs",
        [],
        |row| row.get(0),
    )?;
    let stand = aging.resume(stored, newest.map(Timestamp::from_i64));
    // The recorded time of an older bridge's jobs is unknown. They are taken in the order in which they were written:
    // none was recorded before the end of an earlier one, however far the clock was behind.
    connection.execute(
        "UPDATE jobs SET recorded = ended.latest FROM
            (SELECT rowid AS row, max(finished) OVER (ORDER BY rowid) AS latest FROM jobs) AS ended
            WHERE jobs.rowid = ended.row AND finished IS NOT NULL AND recorded IS NULL",
        [],
    )?;
    // No recorded time lies in the future.
    connection.execute("UPDATE jobs SET recorded = ?1 WHERE recorded > ?1", [stand.time])?;
    created_at(connection, stand.time)?;
    save_clock_state(connection, stand)?;
    Ok(stand)
}

#[cfg(test)]
mod tests {
    use rusqlite::{ToSql, params};

    use super::*;
    use crate::core::domain::counts::Counts;
    use crate::core::domain::event::{Failure, Step, StepStatus, StreamEnd};
    use crate::core::domain::figures::ResultSummary;
    use crate::core::wire::sse::encoder::SseEncoder;
    use crate::ledger::damage::DamagedRows;
    use crate::ledger::sqlite::queries;
    use crate::ledger::{JobId, LoggedFrame};

    /// A database with the tables of an older bridge.
    fn at_version(version: usize) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&STEPS[..version].concat()).unwrap();
        connection.pragma_update(None, "user_version", version as i64).unwrap();
        connection
    }

    /// Inserts a job with the columns that every version has, and with these `values` of columns.
    fn insert_job(connection: &Connection, id: &str, values: &[(&str, &dyn ToSql)]) {
        let job = "INSERT INTO jobs (id, backend, kind, channels, query, queued, counts, frames_in, bytes_in,
            frames_out, bytes_out, watchers, attaches, failed_objects)
            VALUES (?1, 'b', 'devices', '[]', '', 1, '[]', 0, 0, 0, 0, 0, 0, '[]')";
        connection.execute(job, [id]).unwrap();
        for (column, value) in values {
            let set = format!("UPDATE jobs SET {column} = ?2 WHERE id = ?1");
            connection.execute(&set, params![id, value]).unwrap();
        }
    }

    #[test]
    fn the_tables_are_made_once() {
        let connection = Connection::open_in_memory().unwrap();
        assert_eq!(version(&connection).unwrap(), 0);
        migrate(&connection).unwrap();
        migrate(&connection).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION);
    }

    #[test]
    fn the_tables_of_an_older_bridge_keep_what_is_in_them() {
        let connection = at_version(1);
        insert_job(&connection, "a", &[]);
        migrate(&connection).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION);
        let cooldown = connection.query_row("SELECT id, cooldown_until FROM jobs", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        assert_eq!(cooldown.unwrap(), ("a".to_owned(), None));
    }

    #[test]
    fn a_job_of_an_older_bridge_states_that_its_failed_objects_are_not_kept() {
        let connection = at_version(4);
        let counts = |failed| format!(r#"{{"object": "device", "seen": 9, "failed": {failed}}}"#);
        let two = format!("[{}, {}]", counts(3), counts(4));
        for (id, counts) in [("a", two.as_str()), ("b", "[]"), ("c", "{"), ("d", "[1]"), ("e", "x")] {
            insert_job(&connection, id, &[("counts", &counts)]);
        }
        migrate(&connection).unwrap();
        let mut statement =
            connection.prepare("SELECT failed_total, failed_left_out FROM jobs ORDER BY id").unwrap();
        let failed: Vec<(i64, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(failed, [(7, 7), (0, 0), (0, 0), (0, 0), (0, 0)]);
    }

    #[test]
    fn the_last_success_of_an_older_bridge_is_the_latest_of_its_whole_inventories() {
        let connection = at_version(5);
        let counts = r#"[{"object": "device", "seen": 9, "failed": 2, "unconfirmed": 3}]"#;
        for (id, backend, vm, started, finished, outcome, counts) in [
            ("a", "x", None, Some(1), Some(10), "completed", "[]"),
            ("b", "x", None, Some(1), Some(30), "completed", counts),
            ("c", "x", None, Some(1), Some(20), "completed", "[]"),
            ("d", "x", None, Some(1), Some(40), "errored", "[]"),
            ("e", "x", Some(7), Some(1), Some(50), "completed", "[]"),
            ("f", "x", None, None, Some(60), "completed", "[]"),
            ("g", "y", None, Some(1), Some(5), "completed", "{"),
        ] {
            insert_job(
                &connection,
                id,
                &[
                    ("backend", &backend),
                    ("vm", &vm),
                    ("started", &started),
                    ("finished", &finished),
                    ("outcome", &outcome),
                    ("counts", &counts),
                    ("failed_total", &2),
                ],
            );
        }
        migrate(&connection).unwrap();
        let mut statement = connection.prepare("SELECT * FROM last_success ORDER BY backend").unwrap();
        let rows = statement.query_map([], |row| {
            let numbers = [row.get(3)?, row.get(4)?, row.get(5)?];
            Ok((row.get(0)?, row.get(2)?, numbers))
        });
        let rows: Vec<(String, String, [i64; 3])> = rows.unwrap().map(Result::unwrap).collect();
        let row = |backend: &str, job: &str, numbers| (backend.to_owned(), job.to_owned(), numbers);
        assert_eq!(rows, [row("x", "b", [30, 2, 3]), row("y", "g", [5, 2, 0])]);
    }

    #[test]
    fn the_jobs_of_an_older_bridge_are_there_after_the_queue_of_notifications_is_added() {
        let connection = at_version(7);
        insert_job(&connection, "a", &[("finished", &7), ("outcome", &"completed"), ("recorded", &9)]);
        migrate(&connection).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION);
        let count =
            |table| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
        let counts: [i64; 3] =
            ["jobs", "notifications", "notification_problems"].map(|table| count(table).unwrap());
        assert_eq!(counts, [1, 0, 0]);
    }

    #[test]
    fn the_frames_of_an_older_bridge_are_readable_and_have_their_types() {
        let connection = at_version(3);
        let id = JobId::new();
        insert_job(&connection, &id.to_string(), &[]);
        let text = r#"", "status": "failed", "message": "event: complete"#;
        let step = |status| Step { rowid: Some(text.into()), ..Step::stage(text, status, text) };
        let (mut stream, first) = SseEncoder::start(&step(StepStatus::Started));
        let mut frames = vec![first];
        frames.extend([StepStatus::Progress, StepStatus::Completed].map(|status| stream.step(&step(status))));
        frames.push(stream.step(&Step { error: Some(text.into()), ..step(StepStatus::Failed) }));
        let extra = serde_json::value::to_raw_value(text).unwrap();
        frames.extend(["completed", "discovery"].map(|name| stream.extra(name, &extra).unwrap()));
        let failure = Failure { step: text.to_owned(), error: text.to_owned(), detail: text.to_owned() };
        frames.extend(stream.finish(StreamEnd {
            message: text.to_owned(),
            counts: Counts::default(),
            summary: ResultSummary::default(),
            failure: Some(failure),
        }));
        let stored: Vec<LoggedFrame> = (1..)
            .zip(frames)
            .map(|(sequence, frame)| LoggedFrame { sequence, at: Timestamp(5), frame }.without_payload())
            .collect();
        for frame in &stored {
            let add = "INSERT INTO frames (job, sequence, at, bytes) VALUES (?1, ?2, 5, ?3)";
            connection
                .execute(add, params![id.to_string(), frame.sequence as i64, &*frame.frame.bytes])
                .unwrap();
        }
        migrate(&connection).unwrap();
        let mut damage = DamagedRows::default();
        assert_eq!(queries::frames(&connection, id, &mut damage).unwrap(), stored);
    }

    #[test]
    fn the_first_secret_stays_and_so_do_the_last_ones_that_were_used_before_it_was_known() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        assert_eq!(load_secrets(&connection, [1; 32], &[]).unwrap(), [[1; 32]]);
        assert_eq!(load_secrets(&connection, [2; 32], &[]).unwrap(), [[1; 32]]);
        for number in [2, 3, 3, 1, 4, 5, 6, 7, 8, 9, 10, 11] {
            load_secrets(&connection, [number; 32], &[[number; 32]]).unwrap();
        }
        let wanted: Vec<[u8; 32]> = [1, 11, 10, 9, 8, 7, 6, 5, 4].map(|number| [number; 32]).to_vec();
        assert_eq!(load_secrets(&connection, [0; 32], &[]).unwrap(), wanted);
    }

    #[test]
    fn a_job_that_ran_while_the_clock_was_behind_is_as_young_as_those_before_it() {
        let connection = at_version(2);
        for (id, finished) in
            [("a", Some(5_000)), ("b", Some(7_000)), ("c", Some(9)), ("d", None), ("e", Some(8_000))]
        {
            insert_job(&connection, id, &[("finished", &finished)]);
        }
        migrate(&connection).unwrap();
        let aging = crate::ledger::tests::aging(7_500);
        assert_eq!(resume(&connection, &aging).unwrap().time, 7_500);
        let mut statement = connection.prepare("SELECT recorded FROM jobs ORDER BY id").unwrap();
        let recorded: Vec<Option<i64>> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(recorded, [Some(5_000), Some(7_000), Some(7_000), None, Some(7_500)]);
    }
}
