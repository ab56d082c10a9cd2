//! Reads a ledger without changing it: opening it as a bridge does would take its lock and migrate it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};

use super::{file, schema};
use crate::ledger::{LedgerOpenError, LedgerReadError};

/// The magic bytes of a database (<https://www.sqlite.org/fileformat2.html#the_database_header>).
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The offset of `user_version` in the header.
const USER_VERSION: usize = 60;

/// Checks whether a bridge can use the ledger in `directory`, if there is one. Nothing is changed there.
///
/// # Errors
///
/// [`LedgerOpenError::Newer`]. A lock of another bridge and an unreadable file are not detected here.
pub fn inspect(directory: &Path) -> Result<(), LedgerOpenError> {
    let file = file(directory);
    match version(&file) {
        Some(found) if found > schema::VERSION => {
            Err(LedgerOpenError::Newer { file, found, known: schema::VERSION })
        }
        _ => Ok(()),
    }
}

/// Returns whether `directory` holds a ledger of any bridge, damaged or not. True if that cannot be determined.
pub fn has_ledger(directory: &Path) -> bool {
    match fs::metadata(file(directory)) {
        Ok(found) => found.is_file() && found.len() > 0,
        Err(error) => !matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
        ),
    }
}

/// Opens the database in `directory` for reading alone: without its lock, without migrations and without any other
/// write. A bridge may be using it.
///
/// # Errors
///
/// [`LedgerReadError`].
pub(super) fn open_read_only(
    directory: &Path,
    busy_timeout: Duration,
) -> Result<Connection, LedgerReadError> {
    let file = file(directory);
    if !has_ledger(directory) {
        return Err(LedgerReadError::Missing { directory: directory.to_owned() });
    }
    let opened = || {
        let connection = read_only(&file)?;
        connection.busy_timeout(busy_timeout)?;
        Ok((schema::version(&connection)?, connection))
    };
    let (found, connection) = opened().map_err(|error: rusqlite::Error| LedgerReadError::Unreadable {
        file: file.clone(),
        problem: error.to_string(),
    })?;
    match found {
        schema::VERSION => Ok(connection),
        found if found > schema::VERSION => {
            Err(LedgerOpenError::Newer { file, found, known: schema::VERSION }.into())
        }
        0 => Err(LedgerReadError::Unreadable {
            file,
            problem: "it has no tables; copy the whole directory, with ledger.sqlite3-wal".to_owned(),
        }),
        found => Err(LedgerReadError::Older { file, found, known: schema::VERSION }),
    }
}

/// A connection that can only read.
fn read_only(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if has_log(file) {
        return Connection::open_with_flags(file, flags);
    }
    // Without a write-ahead log, no bridge is using the file. Otherwise SQLite would create one.
    let path = percent_encode(file.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC);
    Connection::open_with_flags(format!("file:{path}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)
}

/// Whether `file` has a write-ahead log, as it has while a bridge uses it and after a crash.
fn has_log(file: &Path) -> bool {
    fs::metadata(with_suffix(file, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn with_suffix(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The version of the tables in `file`.
fn version(file: &Path) -> Option<i64> {
    // The write-ahead log may hold a newer version, which only SQLite can read. Without one the header is right.
    let in_log = || schema::version(&read_only(file).ok()?).ok();
    let is_logged = has_log(file) && with_suffix(file, "-shm").exists();
    let logged = if is_logged { in_log() } else { None };
    logged.or_else(|| in_header(file))
}

fn in_header(file: &Path) -> Option<i64> {
    let mut header = [0; USER_VERSION + 4];
    File::open(file).ok()?.read_exact(&mut header).ok()?;
    let version = header.strip_prefix(MAGIC)?.last_chunk()?;
    Some(i64::from(i32::from_be_bytes(*version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_database_has_no_version() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(file(folder.path()), [b'x'; 5000]).unwrap();
        assert_eq!(inspect(folder.path()), Ok(()));
    }

    #[test]
    fn a_ledger_is_missing_only_if_its_file_is_known_to_be_absent_or_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        assert!(!has_ledger(folder.path()) && !has_ledger(&file));
        fs::write(&file, "").unwrap();
        assert!(!has_ledger(folder.path()) && !has_ledger(&file));
        fs::write(&file, "x").unwrap();
        assert!(has_ledger(folder.path()));
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        assert!(has_ledger(folder.path()));
    }

    #[test]
    fn an_empty_log_that_a_copy_holds_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        assert!(!has_log(&file));
        fs::write(with_suffix(&file, "-wal"), "").unwrap();
        assert!(!has_log(&file));
        fs::write(with_suffix(&file, "-wal"), "x").unwrap();
        assert!(has_log(&file));
    }

    #[test]
    fn the_version_is_read_from_the_file_and_from_its_log_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(inspect(folder.path()), Ok(()));
        let file = file(folder.path());
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        connection.pragma_update(None, "user_version", schema::VERSION).unwrap();
        assert_eq!(inspect(folder.path()), Ok(()));
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert_ne!(in_header(&file), Some(99), "it stands in the log");
        let newer = LedgerOpenError::Newer { file: file.clone(), found: 99, known: schema::VERSION };
        assert_eq!(inspect(folder.path()), Err(newer.clone()));
        drop(connection);
        assert_eq!(inspect(folder.path()), Err(newer));
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(names.collect::<Vec<_>>(), [file]);
    }
}
