//! The file: its lock, its connection, and what is done when one of them fails.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::pending::Pending;
use super::{OpenError, interrupted, queries, schema};
use crate::telemetry::LedgerOpened;

/// How long something waits for another program that uses the file, such as one that makes a copy.
const BUSY: Duration = Duration::from_secs(2);

/// Why the ledger cannot be opened.
#[derive(Debug)]
pub(super) enum Trouble {
    /// For good, until somebody does something about it.
    Lasting(OpenError),
    /// It may go away.
    Passing(String),
}

impl Trouble {
    pub(super) fn text(self) -> String {
        match self {
            Self::Lasting(error) => error.to_string(),
            Self::Passing(problem) => problem,
        }
    }
}

/// One ledger. Everything here blocks.
#[derive(Debug)]
pub(super) struct Store {
    directory: Option<PathBuf>,
    log_frames: usize,
    /// Held from before the first connection until the end.
    lock: Option<File>,
    connection: Option<Connection>,
    pub(super) secret: Secret,
    /// Whether the jobs of the process before this one have their end.
    recovered: bool,
}

/// The secret of the ledger, if it has ever been opened, or the one that it would have.
#[derive(Clone)]
pub(super) struct Secret(Arc<Mutex<[u8; 32]>>);

impl Secret {
    fn new(secret: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(secret)))
    }

    pub(super) fn get(&self) -> [u8; 32] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, secret: [u8; 32]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = secret;
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Store {
    /// A store that is not open. `secret` is the one of a ledger that has none.
    pub(super) fn new(directory: Option<PathBuf>, log_frames: usize, secret: [u8; 32]) -> Self {
        Self {
            directory,
            log_frames,
            lock: None,
            connection: None,
            secret: Secret::new(secret),
            recovered: false,
        }
    }

    /// The connection, if there is one.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// Where it is, in messages.
    pub(super) fn place(&self) -> String {
        self.directory.as_deref().map_or_else(
            || "the ledger in memory".to_owned(),
            |directory| file(directory).display().to_string(),
        )
    }

    /// Opens it, if it is not open.
    pub(super) fn open(&mut self) -> Result<&mut Connection, Trouble> {
        let opened = match self.connection.take() {
            Some(connection) => connection,
            None => self.fresh()?,
        };
        Ok(self.connection.insert(opened))
    }

    fn fresh(&mut self) -> Result<Connection, Trouble> {
        let place = self.place();
        let sqlite = |error: rusqlite::Error| Trouble::Passing(format!("{place}: {error}"));
        let mut connection = match self.directory.clone() {
            None => Connection::open_in_memory().map_err(sqlite)?,
            Some(directory) => {
                self.hold(&directory)?;
                let file = file(&directory);
                create(&file).map_err(|error| Trouble::Passing(format!("{place}: {error}")))?;
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(file, flags).map_err(sqlite)?
            }
        };
        connection.busy_timeout(BUSY).map_err(sqlite)?;
        let found = schema::version(&connection).map_err(sqlite)?;
        if found > schema::VERSION {
            let file = self.directory.as_deref().map(file).unwrap_or_default();
            return Err(Trouble::Lasting(OpenError::Newer { file, found, known: schema::VERSION }));
        }
        configure(&connection).map_err(sqlite)?;
        schema::migrate(&mut connection).map_err(sqlite)?;
        if !self.recovered {
            // Asked for once: the secret of a process is the same to its end.
            let secret = schema::secret(&connection, self.secret.get()).map_err(sqlite)?;
            let interrupted = interrupted::end(&mut connection).map_err(sqlite)?;
            self.secret.set(secret);
            self.recovered = true;
            LedgerOpened { place: &place, interrupted }.emit();
        }
        Ok(connection)
    }

    /// Takes the lock on the directory, which keeps every other bridge out of it.
    fn hold(&mut self, directory: &Path) -> Result<(), Trouble> {
        if self.lock.is_some() {
            return Ok(());
        }
        let path = directory.join("lock");
        let passing = |error: io::Error| Trouble::Passing(format!("{}: {error}", path.display()));
        builder().create(directory).map_err(|error| {
            Trouble::Passing(format!("the directory {} cannot be made: {error}", directory.display()))
        })?;
        let lock = private().create(true).truncate(false).open(&path).map_err(passing)?;
        match lock.try_lock() {
            Ok(()) => {
                self.lock = Some(lock);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => {
                Err(Trouble::Lasting(OpenError::Held { directory: directory.to_owned() }))
            }
            Err(TryLockError::Error(error)) => Err(passing(error)),
        }
    }

    /// Writes everything that is pending, and opens the ledger for it if need be. When this is done, it
    /// is on the disk.
    pub(super) fn write(&mut self, pending: &Pending) -> Result<(), String> {
        let log_frames = self.log_frames;
        let connection = self.open().map_err(Trouble::text)?;
        queries::write(connection, pending, log_frames).map_err(|error| {
            if !is_outside(&error) {
                self.suspect();
            }
            format!("{}: {error}", self.place())
        })
    }

    /// Gives up a connection that may be broken; the next one may not be. In memory it is all there is.
    pub(super) fn suspect(&mut self) {
        if self.directory.is_some() {
            self.connection = None;
        }
    }

    /// Ends it. What cannot be moved out of the write-ahead log stays there, and is read from there.
    pub(super) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        self.lock = None;
    }
}

/// Whether a failure has its reason outside of the connection, which is as good as it was.
fn is_outside(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
    )
}

fn file(directory: &Path) -> PathBuf {
    directory.join("ledger.sqlite3")
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Before there is any table; later it would do nothing.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // In memory, and where files cannot be mapped, another mode stays, which is as safe.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A commit is on the disk when it returns.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(()))
}

/// Makes the file, for nobody else to read: SQLite gives those beside it the same permissions. One that
/// is there is not touched.
fn create(file: &Path) -> io::Result<()> {
    if fs::exists(file)? {
        return Ok(());
    }
    match private().create_new(true).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}
