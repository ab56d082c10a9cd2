//! The tables, and how those of an older bridge become them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// What makes the tables of each version out of those of the one before. The first step makes
/// version 1 out of nothing. A step that was released is never changed.
const STEPS: [&str; 1] = ["
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
"];

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
    fn the_first_secret_stays() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(secret(&connection, [1; 32]).unwrap(), [1; 32]);
        assert_eq!(secret(&connection, [2; 32]).unwrap(), [1; 32]);
    }
}
