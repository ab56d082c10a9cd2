//! Inspects a ledger without opening it, because opening would change it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{file, schema};
use crate::ledger::LedgerOpenError;

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

/// The version of the tables in `file`.
fn version(file: &Path) -> Option<i64> {
    let with_suffix = |end: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let has_log =
        fs::metadata(with_suffix("-wal")).is_ok_and(|log| log.len() > 0) && with_suffix("-shm").exists();
    // The write-ahead log may hold a newer version, which only SQLite can read. Without one the header is right, and
    // opening would create files.
    let in_log = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        schema::version(&Connection::open_with_flags(file, flags).ok()?).ok()
    };
    let logged = if has_log { in_log() } else { None };
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
