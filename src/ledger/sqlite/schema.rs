//! The tables, and how those of an older bridge become them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// What makes the tables of each version out of those of the one before. The first step makes
/// version 1 out of nothing. A step that was released is never changed.
const STEPS: [&str; 2] = [
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
];

/// The version of the tables that this bridge knows.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// The version of the tables that are there; 0 if none are.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the tables up to [`VERSION`], each step as a whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let there = usize::try_from(version(connection)?).unwrap_or_default();
    for (index, step) in STEPS.iter().enumerate().skip(there) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.execute_batch(&format!("PRAGMA user_version = {}", index + 1))?;
        transaction.commit()?;
    }
    Ok(())
}

/// The secret that is there, or `new` if none was: then it is there from now on.
pub(super) fn secret(connection: &Connection, new: [u8; 32]) -> rusqlite::Result<[u8; 32]> {
    let known = connection
        .query_row("SELECT value FROM meta WHERE name = 'secret'", [], |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    connection.execute("INSERT INTO meta (name, value) VALUES ('secret', ?1)", [new])?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_made_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(version(&connection).unwrap(), 0);
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION);
    }

    #[test]
    fn the_tables_of_an_older_bridge_keep_what_is_in_them() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(STEPS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let job = "INSERT INTO jobs (id, backend, kind, channels, query, queued, counts, frames_in, bytes_in,
            frames_out, bytes_out, watchers, attaches, failed_objects)
            VALUES ('a', 'b', 'devices', '[]', '', 1, '[]', 0, 0, 0, 0, 0, 0, '[]')";
        connection.execute(job, []).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version(&connection).unwrap(), VERSION);
        let cooldown = connection.query_row("SELECT id, cooldown_until FROM jobs", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        assert_eq!(cooldown.unwrap(), ("a".to_owned(), None));
    }

    #[test]
    fn the_first_secret_stays() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(secret(&connection, [1; 32]).unwrap(), [1; 32]);
        assert_eq!(secret(&connection, [2; 32]).unwrap(), [1; 32]);
    }
}
