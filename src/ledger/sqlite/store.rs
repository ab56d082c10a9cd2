//! The file: its lock, its connection, and the handling of their failures.

use std::fmt;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::watch;

use super::pending::Pending;
use super::record_clock::RecordClock;
use super::{LedgerOpenError, queries, recovery, schema};
use crate::ledger::{LedgerLoss, Timestamp};
use crate::private;
use crate::telemetry::{LedgerLost, LedgerOpened};

/// How long an operation waits for another program that uses the file, such as one that makes a copy.
const BUSY: Duration = Duration::from_secs(2);

/// The name of the file in the directory.
const FILE: &str = "ledger.sqlite3";

/// Why the ledger cannot be opened.
#[derive(Debug)]
pub(super) enum StoreError {
    /// Permanent until an operator acts.
    Permanent(LedgerOpenError),
    /// Transient: a retry may succeed.
    Transient(String),
}

impl StoreError {
    pub(super) fn text(self) -> String {
        match self {
            Self::Permanent(error) => error.to_string(),
            Self::Transient(problem) => problem,
        }
    }
}

/// Why a write failed.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The write failed, and a retry may fail too.
    Failed(String),
    /// The file was replaced or deleted. A new one can be opened at once.
    Lost(String),
}

/// One ledger. All methods block.
#[derive(Debug)]
pub(super) struct Store {
    directory: Option<PathBuf>,
    log_frames: usize,
    /// Held from before the first connection until the end.
    lock: Option<File>,
    connection: Option<Connection>,
    /// The files of `connection`, to detect their replacement.
    files: WatchedFiles,
    /// The loss of the file, until another one is open.
    loss: Option<LedgerLoss>,
    lost: watch::Sender<Option<LedgerLoss>>,
    pub(super) secrets: FingerprintSecrets,
    pub(super) aging: RecordClock,
    /// Whether the unfinished jobs of the previous process were marked as interrupted.
    recovered: bool,
}

/// The secrets that fingerprints in the ledger may have been made with.
#[derive(Clone)]
pub(super) struct FingerprintSecrets(Arc<Mutex<SecretsInner>>);

struct SecretsInner {
    /// New fingerprints are made with the first one.
    secrets: Vec<[u8; 32]>,
    /// Whether fingerprints may have been made.
    used: bool,
}

impl FingerprintSecrets {
    /// Creates the set with `secret`, which a ledger without a secret adopts.
    fn new(secret: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(SecretsInner { secrets: vec![secret], used: false })))
    }

    /// All secrets, for a caller that makes fingerprints.
    pub(super) fn all(&self) -> Vec<[u8; 32]> {
        let mut known = self.inner();
        known.used = true;
        known.secrets.clone()
    }

    /// Loads the secrets of the ledger, and stores there those that were used before. Other callers do not wait for
    /// the file meanwhile.
    fn exchange(&self, connection: &Connection) -> rusqlite::Result<()> {
        loop {
            let (secrets, used) = {
                let known = self.inner();
                (known.secrets.clone(), known.used)
            };
            let new = secrets.first().copied().unwrap_or_default();
            let found = schema::load_secrets(connection, new, if used { &secrets } else { &[] })?;
            let mut known = self.inner();
            // If it was used meanwhile, the secret must be stored too.
            if known.used == used {
                known.secrets = found;
                return Ok(());
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, SecretsInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FingerprintSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secrets>")
    }
}

impl Store {
    /// Creates a store that is not open. A ledger without a secret adopts `secret`.
    pub(super) fn new(
        directory: Option<PathBuf>,
        log_frames: usize,
        secret: [u8; 32],
        aging: RecordClock,
        lost: watch::Sender<Option<LedgerLoss>>,
    ) -> Self {
        Self {
            directory,
            log_frames,
            lock: None,
            connection: None,
            files: WatchedFiles::default(),
            loss: None,
            lost,
            secrets: FingerprintSecrets::new(secret),
            aging,
            recovered: false,
        }
    }

    /// The connection, if there is one.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// The location, for messages.
    pub(super) fn location(&self) -> String {
        self.directory.as_deref().map_or_else(
            || "the ledger in memory".to_owned(),
            |directory| file(directory).display().to_string(),
        )
    }

    /// Opens the file, unless it is open.
    pub(super) fn open(&mut self) -> Result<&mut Connection, StoreError> {
        let opened = match self.connection.take() {
            Some(connection) => connection,
            None => self.open_connection()?,
        };
        Ok(self.connection.insert(opened))
    }

    fn open_connection(&mut self) -> Result<Connection, StoreError> {
        let place = self.location();
        let sqlite = |error: rusqlite::Error| StoreError::Transient(format!("{place}: {error}"));
        let mut connection = match self.directory.clone() {
            None => Connection::open_in_memory().map_err(sqlite)?,
            Some(directory) => {
                self.lock_directory(&directory)?;
                let file = file(&directory);
                // SQLite gives the files beside it the same permissions.
                private::create(&file).map_err(|error| StoreError::Transient(format!("{place}: {error}")))?;
                for end in ["-wal", "-shm"] {
                    // A missing one will be created with the permissions of the file.
                    let _ = private::restrict_permissions(&directory.join(format!("{FILE}{end}")));
                }
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(file, flags).map_err(sqlite)?
            }
        };
        connection.busy_timeout(BUSY).map_err(sqlite)?;
        let found = schema::version(&connection).map_err(sqlite)?;
        if found > schema::VERSION {
            let file = self.directory.as_deref().map(file).unwrap_or_default();
            return Err(StoreError::Permanent(LedgerOpenError::Newer {
                file,
                found,
                known: schema::VERSION,
            }));
        }
        configure(&connection).map_err(sqlite)?;
        schema::migrate(&mut connection).map_err(sqlite)?;
        self.secrets.exchange(&connection).map_err(sqlite)?;
        let stand = schema::resume(&connection, &self.aging).map_err(sqlite)?;
        if !self.recovered {
            let interrupted = recovery::end(&mut connection, stand.time).map_err(sqlite)?;
            self.recovered = true;
            LedgerOpened { place: &place, interrupted }.emit();
        }
        if let Some(directory) = &self.directory {
            // The write-ahead log is created by the first write.
            self.files = WatchedFiles::new([file(directory), log(directory)]);
        }
        if let Some(lost) = self.loss.take() {
            self.lost.send_replace(Some(lost));
        }
        Ok(connection)
    }

    /// Checks that the files and the lock are still those that were opened, and advances the clock of the ledger.
    pub(super) fn check_files(&mut self) -> Result<(), WriteError> {
        if let Some(problem) = self.files.problem() {
            return Err(self.mark_lost(problem));
        }
        if self.connection.is_none() {
            return Ok(());
        }
        self.aging.observe();
        if let Some(directory) = self.directory.clone()
            && let Err(trouble) = self.lock_directory(&directory)
        {
            self.abandon_connection();
            return Err(WriteError::Failed(trouble.text()));
        }
        Ok(())
    }

    /// Abandons files that were deleted or replaced, as `problem` says.
    fn mark_lost(&mut self, problem: String) -> WriteError {
        self.abandon_connection();
        self.lock = None;
        self.files = WatchedFiles::default();
        LedgerLost { problem: &problem }.emit();
        self.loss = Some(LedgerLoss { at: Timestamp::now(), problem: problem.clone() });
        WriteError::Lost(problem)
    }

    /// Closes the connection without touching the files, which may belong to another bridge by now.
    fn abandon_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }

    /// Takes the lock on the directory, which excludes every other bridge, unless it is held already. A lock on a
    /// file that was deleted or moved excludes none.
    fn lock_directory(&mut self, directory: &Path) -> Result<(), StoreError> {
        let path = directory.join("lock");
        if let Some(lock) = &self.lock
            && let (Ok(held), Ok(found)) = (lock.metadata(), fs::metadata(&path))
            && id(&held) == id(&found)
        {
            return Ok(());
        }
        self.lock = None;
        let passing = |error: io::Error| StoreError::Transient(format!("{}: {error}", path.display()));
        private::create_dir_all(directory).map_err(|error| {
            StoreError::Transient(format!("the directory {} cannot be made: {error}", directory.display()))
        })?;
        let lock = private::open(&path).map_err(passing)?;
        match lock.try_lock() {
            Ok(()) => {
                self.lock = Some(lock);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Permanent(LedgerOpenError::Held { directory: directory.to_owned() }))
            }
            Err(TryLockError::Error(error)) => Err(passing(error)),
        }
    }

    /// Writes all pending updates, and opens the ledger first if necessary. When it returns, they are on disk.
    pub(super) fn write(&mut self, pending: &Pending) -> Result<(), WriteError> {
        // A write to a deleted file must not be reported as successful.
        self.check_files()?;
        let log_frames = self.log_frames;
        let aging = self.aging.clone();
        let connection = self.open().map_err(|trouble| WriteError::Failed(trouble.text()))?;
        queries::write(connection, pending, log_frames, aging.observe()).map_err(|error| {
            if !is_outside(&error) {
                self.drop_connection();
            }
            WriteError::Failed(format!("{}: {error}", self.location()))
        })
    }

    /// Drops a connection that may be broken, so that a new one is opened. A ledger in memory is kept: it is the only
    /// copy.
    pub(super) fn drop_connection(&mut self) {
        if let Some(directory) = &self.directory {
            // The last process to close the file removes the log.
            self.files.forget(&log(directory));
            self.connection = None;
        }
    }

    /// Closes the store. Pages that cannot be checkpointed stay in the write-ahead log, and are read from there.
    pub(super) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = schema::save_clock_state(&connection, self.aging.observe());
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        self.lock = None;
    }
}

/// Files, with their identity when they were opened.
#[derive(Debug, Default)]
struct WatchedFiles(Vec<(PathBuf, FileId)>);

/// The identity of a file: its device and inode number.
type FileId = (u64, u64);

impl WatchedFiles {
    fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let known = paths.into_iter().filter_map(|path| Some((id(&fs::metadata(&path).ok()?), path)));
        Self(known.map(|(id, path)| (path, id)).collect())
    }

    fn forget(&mut self, path: &Path) {
        self.0.retain(|(known, _)| known != path);
    }

    /// Describes a file that was deleted or replaced, if that can be determined.
    fn problem(&self) -> Option<String> {
        self.0.iter().find_map(|(path, known)| {
            // `stat` by path: opening and closing the file would release SQLite's locks on it.
            let what = match fs::metadata(path) {
                Ok(found) if id(&found) == *known => return None,
                Ok(_) => "replaced",
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    "deleted"
                }
                // Its existence cannot be determined.
                Err(_) => return None,
            };
            Some(format!(
                "{} was {what} while the bridge had it open. What was recorded there is lost, but for the jobs that \
                 are still in memory, which are recorded anew. Find out what did it, and restore a backup with the \
                 bridge stopped",
                path.display()
            ))
        })
    }
}

fn id(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// Returns whether the cause of a failure lies outside the connection, which remains usable.
fn is_outside(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
    )
}

pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// The write-ahead log of the file.
fn log(directory: &Path) -> PathBuf {
    directory.join(format!("{FILE}-wal"))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Must precede the first table; later it has no effect.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // In memory, and where files cannot be mapped, another mode stays in force, which is as safe.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A commit is on disk when it returns.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_does_not_wait_for_the_file_to_get_the_secrets_and_the_one_that_it_used_is_kept() {
        let secrets = FingerprintSecrets::new([2; 32]);
        let asked = secrets.clone();
        let folder = tempfile::tempdir().unwrap();
        let [mut connection, other] = [(); 2].map(|()| Connection::open(file(folder.path())).unwrap());
        schema::migrate(&mut connection).unwrap();
        schema::load_secrets(&connection, [1; 32], &[]).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        connection
            .busy_handler(Some(move |_| {
                // A locked mutex would block until the file is free.
                if asked.0.try_lock().is_ok() {
                    asked.all();
                }
                false
            }))
            .unwrap();
        secrets.exchange(&connection).unwrap_err();
        assert!(secrets.inner().used);
        other.execute_batch("ROLLBACK").unwrap();
        secrets.exchange(&connection).unwrap();
        assert_eq!(secrets.all(), [[1; 32], [2; 32]]);
    }
}
