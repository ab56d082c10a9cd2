//! A ledger in one file of SQLite.
//!
//! | part | what it is |
//! |---|---|
//! | [`actor`] | the single writer, which batches updates into transactions |
//! | [`pending`] | updates that are not written yet |
//! | [`store`] | the file, its lock and its connection |
//! | [`schema`] | the tables and their migrations |
//! | [`rows`], [`queries`] | records as rows, and the queries |
//! | [`damage`] | rows that cannot be read |
//! | [`mod@inspect`] | checks of the file without opening the ledger |
//! | [`recovery`], [`retention`] | unfinished jobs of an earlier process, and the removal of old records |
//! | [`record_clock`] | the clock that records age by |

mod actor;
mod damage;
mod inspect;
mod pending;
mod queries;
mod record_clock;
mod recovery;
mod retention;
mod rows;
mod schema;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Cleaning, CleaningResult, Health, JobFilter, JobId, JobUpdate, Ledger, LedgerLoss, LedgerOptions,
    LedgerUnavailable, LoggedFrame, Record, Retention, Timestamp,
};
pub use inspect::{has_ledger, inspect};

use actor::{LedgerWriter, WriterRequest};
use damage::DamagedRows;
use pending::Pending;
use record_clock::RecordClock;
use rows::RowError;
use store::{FingerprintSecrets, Store, StoreError};

/// Why a ledger cannot be opened. A retry does not help: an operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerOpenError {
    /// Another process has it open, whose jobs would be marked as ended.
    #[error("another bridge is using {}: stop it, or set another data_dir", .directory.display())]
    Held {
        /// Its directory.
        directory: PathBuf,
    },
    /// A later release wrote it.
    #[error(
        "{} was written by a newer bridge (version {found} of the tables; this bridge knows {known}): \
         use that bridge again, or set another data_dir",
        .file.display()
    )]
    Newer {
        /// Its file.
        file: PathBuf,
        /// The version of its tables.
        found: i64,
        /// The newest version that this bridge supports.
        known: i64,
    },
}

/// A ledger in one SQLite file, or in memory.
pub struct Sqlite {
    requests: WriterHandle,
    never_worked: Option<String>,
    health: watch::Receiver<Health>,
    lost: watch::Receiver<Option<LedgerLoss>>,
    secrets: FingerprintSecrets,
    aging: RecordClock,
    damage: DamagedRows,
    /// Where the file is. `None` if the ledger is in memory.
    directory: Option<PathBuf>,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

/// The effective retention. A ledger in memory keeps records for less time, and a cleaning removes all that is due.
fn effective_retention(retention: Retention, directory: Option<&Path>) -> Retention {
    if directory.is_some() {
        return retention;
    }
    let Retention { jobs, logs, .. } = retention;
    Retention { jobs: jobs.min(JOBS_IN_MEMORY), logs: logs.min(LOGS_IN_MEMORY), share: 100, ..retention }
}

impl Sqlite {
    /// Opens the ledger, or creates it. If it cannot be opened now, it is returned as unavailable, and opened as soon
    /// as possible.
    ///
    /// Unfinished jobs of an earlier process are marked as interrupted.
    ///
    /// # Errors
    ///
    /// [`LedgerOpenError`], if another bridge uses it, or a newer one wrote it.
    pub async fn open(options: LedgerOptions) -> Result<Arc<Self>, LedgerOpenError> {
        let LedgerOptions { directory, retention, mut log_frames, clock } = options;
        if directory.is_none() {
            log_frames = log_frames.min(FRAMES_IN_MEMORY);
        }
        let aging = RecordClock::new(clock, effective_retention(retention, directory.as_deref()));
        let (loses, lost) = watch::channel(None);
        let store = Store::new(directory.clone(), log_frames, random(), aging.clone(), loses);
        let place = store.location();
        let store = Arc::new(Mutex::new(store));
        let opening = store.clone();
        let opened =
            spawn_blocking(move || actor::with_store(&opening, |store| store.open().map(|_| ()))).await;
        let health = match opened {
            Ok(Ok(())) => Health::Available,
            Ok(Err(StoreError::Permanent(error))) => return Err(error),
            Ok(Err(StoreError::Transient(problem))) => Health::Unavailable(problem),
            Err(error) => Health::Unavailable(format!("{place}: something panicked: {error}")),
        };
        let secrets = actor::with_store(&store, |store| store.secrets.clone());
        let never_worked = match &health {
            Health::Unavailable(problem)
                if directory.as_ref().is_some_and(|directory| !has_ledger(directory)) =>
            {
                Some(problem.clone())
            }
            _ => None,
        };
        actor::publish(&health);
        let (requests, queue) = mpsc::unbounded_channel();
        let (publisher, health) = watch::channel(health);
        let actor = LedgerWriter::new(store, Pending::new(log_frames), queue, publisher);
        let task = Arc::new(tokio::sync::Mutex::new(Some(tokio::spawn(actor.run()))));
        let requests = WriterHandle { sender: requests, place };
        let damage = DamagedRows::default();
        Ok(Arc::new(Self { requests, health, lost, secrets, aging, damage, directory, never_worked, task }))
    }
}

impl Sqlite {
    /// The reason why it could not be opened, if its directory does not hold a ledger of an earlier process either.
    pub fn never_worked(&self) -> Option<&str> {
        self.never_worked.as_deref()
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("place", &self.requests.place).finish_non_exhaustive()
    }
}

impl Ledger for Sqlite {
    fn put(&self, entry: JobUpdate) -> BoxFuture<'static, Result<(), LedgerUnavailable>> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(WriterRequest::Put(Box::new(entry), answer), answered)
    }

    fn job(&self, id: JobId) -> BoxFuture<'static, Result<Option<Record>, LedgerUnavailable>> {
        self.requests.query(move |connection| queries::job(connection, id))
    }

    fn jobs(&self, filter: JobFilter) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>> {
        let damage = self.damage.clone();
        self.requests.query(move |connection| queries::jobs(connection, &filter, &damage))
    }

    fn frames(
        &self,
        id: JobId,
        after: u64,
    ) -> BoxFuture<'static, Result<Vec<LoggedFrame>, LedgerUnavailable>> {
        let damage = self.damage.clone();
        self.requests.query(move |connection| queries::frames(connection, (id, after), &damage))
    }

    fn cooling_down(&self, now: Timestamp) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>> {
        let damage = self.damage.clone();
        self.requests.query(move |connection| queries::cooling_down(connection, now, &damage))
    }

    fn without_log(
        &self,
        jobs: Vec<JobId>,
        cleaning: Cleaning,
    ) -> BoxFuture<'static, Result<Vec<JobId>, LedgerUnavailable>> {
        let (aging, lost) = (self.aging.clone(), self.lost.clone());
        self.requests.query(move |connection| {
            let most = match cleaning {
                _ if lost.borrow().is_some() => 0,
                Cleaning::Scheduled => retention::share_of(jobs.len(), aging.retention().share),
                Cleaning::Requested => jobs.len(),
            };
            Ok(retention::without_log(connection, &aging, &jobs, most)?)
        })
    }

    fn set_retention(&self, retention: Retention) {
        self.aging.set_retention(effective_retention(retention, self.directory.as_deref()));
    }

    fn clean(&self, cleaning: Cleaning) -> BoxFuture<'static, Result<CleaningResult, LedgerUnavailable>> {
        let (requests, aging) = (self.requests.clone(), self.aging.clone());
        async move {
            let mut all = CleaningResult::default();
            let plan =
                requests.query(move |connection| Ok(retention::plan(connection, &aging, cleaning)?)).await?;
            let plan = match plan {
                Ok(plan) => plan,
                Err(held) => return Ok(CleaningResult { held: Some(held), ..all }),
            };
            let mut rest = Some(plan);
            while let Some(plan) = rest {
                let step = requests.query(move |connection| Ok(retention::step(connection, plan)?)).await?;
                all.jobs.extend(step.cleaned.jobs);
                all.logs.extend(step.cleaned.logs);
                rest = step.rest;
            }
            all.left = requests.query(move |connection| Ok(retention::remaining(connection, plan)?)).await?;
            Ok(all)
        }
        .boxed()
    }

    fn cleaning_held(&self) -> Option<String> {
        self.aging.held()
    }

    fn lost(&self) -> watch::Receiver<Option<LedgerLoss>> {
        self.lost.clone()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn secret(&self) -> [u8; 32] {
        self.secrets.all().first().copied().unwrap_or_default()
    }

    fn secrets(&self) -> Vec<[u8; 32]> {
        self.secrets.all()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        // Fails if the ledger is closed already. A second call waits for the first close.
        let _ = self.requests.sender.send(WriterRequest::Close);
        let task = self.task.clone();
        async move {
            let mut task = task.lock().await;
            if let Some(task) = task.take() {
                // Fails only after a panic, which was reported where it happened.
                let _ = task.await;
            }
        }
        .boxed()
    }
}

/// How long a query waits for its result.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Retention in memory, which is shorter: frames for this long, and records for the time below.
const LOGS_IN_MEMORY: Duration = Duration::from_secs(60 * 60);
const JOBS_IN_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many frames of a job are kept in memory.
const FRAMES_IN_MEMORY: usize = 200;

/// A handle to the writer.
#[derive(Clone)]
struct WriterHandle {
    sender: mpsc::UnboundedSender<WriterRequest>,
    /// The name of the file, for messages.
    place: String,
}

impl WriterHandle {
    /// Runs a query on the connection, after all earlier updates.
    fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LedgerUnavailable>> {
        let (answer, reply) = oneshot::channel();
        let place = self.place.clone();
        let query = move |connection: Result<&mut Connection, LedgerUnavailable>| {
            let result = connection.and_then(|connection| {
                query(connection).map_err(|error| LedgerUnavailable(format!("{place}: {error}")))
            });
            // The caller may have gone.
            drop(answer.send(result));
        };
        let reply = self.send(WriterRequest::Query(Box::new(query)), reply);
        let place = self.place.clone();
        let overdue = move |_| Err(LedgerUnavailable(format!("{place} has not answered in time")));
        async move { timeout(QUERY_TIMEOUT, reply).await.unwrap_or_else(overdue) }.boxed()
    }

    /// Sends the request at once, so that requests run in the order of the calls, even if their futures are dropped.
    fn send<T: Send + 'static>(
        &self,
        request: WriterRequest,
        reply: oneshot::Receiver<Result<T, LedgerUnavailable>>,
    ) -> BoxFuture<'static, Result<T, LedgerUnavailable>> {
        let sent = self.sender.send(request);
        let place = self.place.clone();
        async move {
            sent.map_err(|_| LedgerUnavailable(format!("{place} is closed")))?;
            reply.await.map_err(|_| LedgerUnavailable(format!("{place} ended before it answered")))?
        }
        .boxed()
    }
}

/// Random bytes: all but twelve of the bits are random.
fn random() -> [u8; 32] {
    let mut random = [0; 32];
    let (first, second) = random.split_at_mut(16);
    first.copy_from_slice(Uuid::new_v4().as_bytes());
    second.copy_from_slice(Uuid::new_v4().as_bytes());
    random
}
