//! The file: its lock, its connection, and the handling of their failures.

use std::fmt;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::notifications::{self, Now};
use super::rows::RowError;
use super::{FILE, failed, file, has_ledger, history, inspect, queries, recovery, retention, schema};
use crate::ledger::damage::DamagedRows;
use crate::ledger::pending::Pending;
use crate::ledger::record_clock::ClockState;
use crate::ledger::retention::{CleaningPlan, CleaningStep, EndedJobs, WithoutLog};
use crate::ledger::store::{Store, StoreContext, StoreError};
use crate::ledger::{
    BackendHistory, FailureGroup, JobFilter, JobId, LedgerLoss, LedgerOpenError, LedgerOptions,
    LedgerReadError, LoggedFailure, LoggedFrame, QueuedNotification, Record, Run, Timestamp,
};
use crate::private;
use crate::telemetry::{LedgerLost, LedgerOpened};

/// A ledger in one SQLite file, or in memory.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    directory: Option<PathBuf>,
    busy_timeout: Duration,
    context: StoreContext,
    /// Held from before the first connection until the end.
    lock: Option<File>,
    connection: Option<Connection>,
    /// The files of `connection`, to detect their replacement.
    files: WatchedFiles,
    /// The loss of the file, until another one is open.
    loss: Option<LedgerLoss>,
    damage: DamagedRows,
    /// Whether the unfinished jobs of the previous process were marked as interrupted.
    recovered: bool,
    /// Whether the file is only read, and may be in use by a bridge.
    is_read_only: bool,
}

impl SqliteStore {
    /// Creates a store that is not open.
    pub(crate) fn new(options: LedgerOptions, context: StoreContext) -> Self {
        let LedgerOptions { directory, busy_timeout, .. } = options;
        Self {
            directory,
            busy_timeout,
            context,
            lock: None,
            connection: None,
            files: WatchedFiles::default(),
            loss: None,
            damage: DamagedRows::default(),
            recovered: false,
            is_read_only: false,
        }
    }

    /// Opens the ledger in `directory` for reading alone.
    ///
    /// # Errors
    ///
    /// See [`inspect::open_read_only`].
    pub(crate) fn open_read_only(
        directory: &Path,
        options: LedgerOptions,
        context: StoreContext,
    ) -> Result<Self, LedgerReadError> {
        let connection = Some(inspect::open_read_only(directory, options.busy_timeout)?);
        Ok(Self { connection, is_read_only: true, ..Self::new(options, context) })
    }

    /// Runs a query on the connection.
    pub(super) fn query<T>(
        &mut self,
        query: impl FnOnce(&mut Connection, &mut DamagedRows) -> Result<T, RowError>,
    ) -> Result<T, StoreError> {
        let Self { connection: Some(connection), damage, .. } = self else {
            return Err(StoreError::Transient("it is not open".to_owned()));
        };
        query(connection, damage).map_err(|error| self.transient(&error))
    }

    fn transient(&self, error: &dyn fmt::Display) -> StoreError {
        StoreError::Transient(format!("{}: {error}", self.location()))
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
        connection.busy_timeout(self.busy_timeout).map_err(sqlite)?;
        let found = schema::version(&connection).map_err(sqlite)?;
        if found > schema::VERSION {
            let file = self.directory.as_deref().map(file).unwrap_or_default();
            return Err(LedgerOpenError::Newer { file, found, known: schema::VERSION }.into());
        }
        configure(&connection, found).map_err(sqlite)?;
        if let Some(interrupted) = self.prepare(&mut connection).map_err(sqlite)? {
            self.recovered = true;
            self.context.notifications.wake();
            LedgerOpened { place: &place, interrupted }.emit();
        }
        if let Some(directory) = &self.directory {
            // The write-ahead log is created by the first write.
            self.files = WatchedFiles::new([file(directory), log(directory)]);
        }
        if let Some(lost) = self.loss.take() {
            self.context.lost.send_replace(Some(lost));
        }
        Ok(connection)
    }

    /// Brings the tables up to date in one transaction, as every commit waits for the disk. Returns how many jobs of an
    /// earlier process it ended, or `None` if that was done before.
    fn prepare(&self, connection: &mut Connection) -> rusqlite::Result<Option<usize>> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&transaction)?;
        let Self { context, .. } = self;
        context.secrets.exchange(|new, used| schema::load_secrets(&transaction, new, used))?;
        let stand = schema::resume(&transaction, &context.clock)?;
        let interrupted = if self.recovered {
            None
        } else {
            Some(recovery::end(&transaction, &context.notifications.rules(), stand.time)?)
        };
        transaction.commit()?;
        Ok(interrupted)
    }

    /// Abandons files that were deleted or replaced, as `problem` says.
    fn mark_lost(&mut self, problem: String) -> StoreError {
        self.abandon_connection();
        self.lock = None;
        self.files = WatchedFiles::default();
        LedgerLost { problem: &problem }.emit();
        self.loss = Some(LedgerLoss { at: Timestamp::now(), problem: problem.clone() });
        StoreError::Lost(problem)
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
        let path = directory.join(super::LOCK);
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
                Err(LedgerOpenError::Held { directory: directory.to_owned() }.into())
            }
            Err(TryLockError::Error(error)) => Err(passing(error)),
        }
    }
}

impl Store for SqliteStore {
    fn location(&self) -> String {
        self.directory.as_deref().map_or_else(
            || "the ledger in memory".to_owned(),
            |directory| file(directory).display().to_string(),
        )
    }

    fn may_hold_ledger(&self) -> bool {
        self.directory.as_deref().is_none_or(has_ledger)
    }

    fn open(&mut self) -> Result<(), StoreError> {
        if self.connection.is_none() {
            self.connection = Some(self.open_connection()?);
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Checks the files and the lock, and advances the clock of the ledger.
    fn check(&mut self) -> Result<(), StoreError> {
        if let Some(problem) = self.files.problem() {
            return Err(self.mark_lost(problem));
        }
        if self.connection.is_none() || self.is_read_only {
            return Ok(());
        }
        self.context.clock.observe();
        if let Some(directory) = self.directory.clone()
            && let Err(error) = self.lock_directory(&directory)
        {
            self.abandon_connection();
            return Err(error);
        }
        Ok(())
    }

    fn write(&mut self, pending: &Pending) -> Result<(), StoreError> {
        let (log_frames, now) = (self.context.log_frames, self.context.clock.observe());
        let rules = self.context.notifications.rules();
        let mut is_broken = false;
        let written = self.query(|connection, _| {
            let written = queries::write(connection, pending, log_frames, &rules, now);
            is_broken = written.as_ref().is_err_and(|error| !is_outside(error));
            Ok(written?)
        });
        if is_broken {
            self.disconnect();
        }
        if written? {
            self.context.notifications.wake();
        }
        Ok(())
    }

    fn job(&mut self, id: JobId) -> Result<Option<Record>, StoreError> {
        self.query(|connection, _| queries::job(connection, id))
    }

    fn jobs(&mut self, filter: &JobFilter) -> Result<Vec<Record>, StoreError> {
        self.query(|connection, damage| queries::jobs(connection, filter, damage))
    }

    fn runs(&mut self, filter: &JobFilter) -> Result<Vec<Run>, StoreError> {
        self.query(|connection, damage| queries::runs(connection, filter, damage))
    }

    fn frames(&mut self, id: JobId) -> Result<Vec<LoggedFrame>, StoreError> {
        self.query(|connection, damage| queries::frames(connection, id, damage))
    }

    fn failed(&mut self, id: JobId, after: u64, limit: usize) -> Result<Vec<LoggedFailure>, StoreError> {
        self.query(|connection, damage| failed::page(connection, (id, after), limit, damage))
    }

    fn failed_by_error(
        &mut self,
        id: JobId,
        skip: u64,
        limit: usize,
    ) -> Result<Vec<FailureGroup>, StoreError> {
        self.query(|connection, _| Ok(failed::by_error(connection, (id, skip), limit)?))
    }

    fn cooling_down(&mut self, now: Timestamp) -> Result<Vec<Record>, StoreError> {
        self.query(|connection, damage| queries::cooling_down(connection, now, damage))
    }

    fn history(&mut self) -> Result<BackendHistory, StoreError> {
        self.query(|connection, damage| history::read(connection, damage))
    }

    fn save_history(&mut self, history: &BackendHistory) -> Result<(), StoreError> {
        self.query(|connection, _| Ok(history::save(connection, history)?))
    }

    fn first_notifications(&mut self) -> Result<Vec<QueuedNotification>, StoreError> {
        let clock = &self.context.clock;
        let now = Now { ledger: clock.observe().time, wall: clock.wall().to_i64() };
        let rules = self.context.notifications.rules();
        self.query(|connection, damage| {
            let mut first = notifications::first_of_each(connection, &rules, now, damage)?;
            for queued in &mut first {
                // Without a readable record, the rest is sent.
                let record = queued.job.map(|job| queries::job(connection, job).unwrap_or_default());
                queued.record = record.flatten();
            }
            Ok(first)
        })
    }

    fn remove_notification(&mut self, target: &str, id: &str) -> Result<(), StoreError> {
        self.query(|connection, _| Ok(notifications::remove(connection, target, id)?))
    }

    fn count_attempt(&mut self, target: &str, id: &str) -> Result<(), StoreError> {
        self.query(|connection, _| Ok(notifications::count_attempt(connection, target, id)?))
    }

    fn save_clock(&mut self, state: ClockState) -> Result<(), StoreError> {
        self.query(|connection, _| Ok(schema::save_clock_state(connection, state)?))
    }

    fn created_at(&mut self, now: i64) -> Result<i64, StoreError> {
        self.query(|connection, _| Ok(schema::created_at(connection, now)?))
    }

    fn ended_jobs(&mut self) -> Result<EndedJobs, StoreError> {
        self.query(|connection, _| Ok(retention::ended_jobs(connection)?))
    }

    fn without_log(&mut self, jobs: &[JobId]) -> Result<WithoutLog, StoreError> {
        self.query(|connection, _| Ok(retention::without_log(connection, jobs)?))
    }

    fn clean(&mut self, plan: CleaningPlan) -> Result<CleaningStep, StoreError> {
        self.query(|connection, _| Ok(retention::step(connection, plan)?))
    }

    /// A ledger in memory is kept: it is the only copy.
    fn disconnect(&mut self) {
        if let Some(directory) = &self.directory {
            // The last process to close the file removes the log.
            self.files.forget(&log(directory));
            self.connection = None;
        }
    }

    /// Pages that cannot be checkpointed stay in the write-ahead log, and are read from there.
    fn close(&mut self) {
        if self.is_read_only {
            self.abandon_connection();
        }
        if let Some(connection) = self.connection.take() {
            let _ = schema::save_clock_state(&connection, self.context.clock.observe());
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

/// The write-ahead log of the file.
fn log(directory: &Path) -> PathBuf {
    directory.join(format!("{FILE}-wal"))
}

/// Configures a connection to tables of this version.
fn configure(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    if version == 0 {
        // Must precede the first table. Later it has no effect, but writes.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    // In memory, and where files cannot be mapped, another mode stays in force, which is as safe.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A commit is on disk when it returns.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In KiB. The file system caches the pages as well, and the default is 2 MiB.
    connection.pragma_update(None, "cache_size", -256)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Without stable query plans, SQLite prepares a cached statement again after its bindings were cleared.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(()))
}
