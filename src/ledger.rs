//! The durable record of jobs.
//!
//! | part | what it is |
//! |---|---|
//! | `writer` | the single writer, which batches updates into transactions |
//! | `pending` | updates that are not written yet |
//! | `store` | what the ledger needs of a database |
//! | `sqlite` | the database: one file of SQLite, or memory |
//! | `record` | the record of a job |
//! | `history` | the last successes on backends, and their capabilities |
//! | `record_clock`, `clock` | the clock that records age by, and those that drive it |
//! | `notification` | the queue of notifications |
//! | `retention` | how long records are kept, and what a cleaning removes |
//! | `secrets` | the secrets of fingerprints |
//! | `damage` | rows that cannot be read |
//!
//! Another database is a `store::Store` in a directory of its own, and a line in [`Ledger::open`].

mod clock;
mod damage;
mod history;
mod notification;
mod pending;
mod record;
mod record_clock;
mod retention;
mod secrets;
mod sqlite;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};

pub use clock::{Clock, SystemClock};
pub use history::{BackendHistory, DetectedCapabilities, LastSuccess};
pub use notification::{MAX_AGE, MAX_QUEUED, NotificationRule, QueuedNotification, ResolvedProblem};
pub use record::{
    Cooldown, FailureGroup, InvalidJobId, JobEnd, JobId, JobProgress, JobUpdate, LoggedFailure, LoggedFrame,
    Record, Requester, Run, Stored, Timestamp,
};
pub use retention::{CLEANING_INTERVAL, Cleaning, CleaningResult, Retention};
pub use sqlite::{FILES, VERSION, has_ledger, inspect};

use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;
use crate::core::http::url::BackendUrl;
use pending::Pending;
use retention::{CleaningPlan, WithoutLog, milliseconds, share_of};
use sqlite::SqliteStore;
use store::{Store, StoreContext, StoreError};
use writer::{LedgerWriter, WriterHandle, WriterRequest, with_store};

/// The answer of the ledger, or why it does not work.
pub type LedgerFuture<T> = BoxFuture<'static, Result<T, LedgerUnavailable>>;

/// A ledger: the records of jobs, in a database.
pub struct Ledger {
    requests: WriterHandle,
    context: StoreContext,
    never_worked: Option<String>,
    health: watch::Receiver<Health>,
    lost: watch::Receiver<Option<LedgerLoss>>,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Ledger {
    /// Opens the ledger, or creates it. If it cannot be opened now, it is returned as unavailable, and opened as soon
    /// as possible.
    ///
    /// Unfinished jobs of an earlier process are marked as interrupted.
    ///
    /// # Errors
    ///
    /// [`LedgerOpenError`], if another bridge uses it, or a newer one wrote it.
    pub async fn open(options: LedgerOptions) -> Result<Arc<Self>, LedgerOpenError> {
        let context = StoreContext::new(&options);
        let store = SqliteStore::new(options, context.clone());
        Self::start(Arc::new(Mutex::new(store)), context).await
    }

    /// Opens the ledger in `options.directory` for reading alone. It takes no lock, migrates nothing and writes nothing,
    /// also if a bridge is using it. Unfinished jobs stay unfinished.
    ///
    /// # Errors
    ///
    /// [`LedgerReadError`], if there is no ledger, or it cannot be read as it is.
    pub async fn open_read_only(
        directory: PathBuf,
        options: LedgerOptions,
    ) -> Result<Arc<Self>, LedgerReadError> {
        let context = StoreContext::new(&options);
        let (place, sharing) = (directory.clone(), context.clone());
        let opened = spawn_blocking(move || SqliteStore::open_read_only(&directory, options, sharing)).await;
        let store = opened.map_err(|error| LedgerReadError::Unreadable {
            file: place,
            problem: format!("something panicked: {error}"),
        })??;
        Ok(Self::start(Arc::new(Mutex::new(store)), context).await?)
    }

    async fn start(
        store: Arc<Mutex<dyn Store>>,
        context: StoreContext,
    ) -> Result<Arc<Self>, LedgerOpenError> {
        let lost = context.lost.subscribe();
        let opening = store.clone();
        let opened = spawn_blocking(move || with_store(&opening, |store| store.open())).await;
        let place = with_store(&store, |store| store.location());
        let health = match opened {
            Ok(Ok(())) => Health::Available,
            Ok(Err(StoreError::Permanent(error))) => return Err(error),
            Ok(Err(StoreError::Transient(problem) | StoreError::Lost(problem))) => {
                Health::Unavailable(problem)
            }
            Err(error) => Health::Unavailable(format!("{place}: something panicked: {error}")),
        };
        let never_worked = match &health {
            Health::Unavailable(problem) if !with_store(&store, |store| store.may_hold_ledger()) => {
                Some(problem.clone())
            }
            _ => None,
        };
        writer::publish(&health);
        let (sender, queue) = mpsc::unbounded_channel();
        let (publisher, health) = watch::channel(health);
        let writer = LedgerWriter::new(store, Pending::new(context.log_frames), queue, publisher);
        let task = Arc::new(tokio::sync::Mutex::new(Some(tokio::spawn(writer.run()))));
        let requests = WriterHandle { sender, place };
        Ok(Arc::new(Self { requests, context, never_worked, health, lost, task }))
    }

    /// The reason why it could not be opened, if there is no ledger of an earlier process either.
    pub fn never_worked(&self) -> Option<&str> {
        self.never_worked.as_deref()
    }

    /// Writes the record of a job, replacing the previous one, and adds its frames and failed objects. Completes when the write is
    /// durable, that is, survives a loss of power.
    ///
    /// A failed write is kept and retried until it succeeds. If the ledger is known to be unavailable, the error is
    /// returned at once.
    pub fn put(&self, entry: JobUpdate) -> LedgerFuture<()> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(WriterRequest::Put(Box::new(entry), answer), answered)
    }

    /// Reads the record of one job.
    pub fn job(&self, id: JobId) -> LedgerFuture<Option<Record>> {
        self.requests.query(move |store| store.job(id))
    }

    /// Reads the records that match `filter`, newest first, at most `filter.limit` of them.
    pub fn jobs(&self, filter: JobFilter) -> LedgerFuture<Vec<Record>> {
        self.requests.query(move |store| store.jobs(&filter))
    }

    /// Reads how long the jobs that match `filter` took, the newest `filter.limit` of those that started and ended.
    pub fn runs(&self, filter: JobFilter) -> LedgerFuture<Vec<Run>> {
        self.requests.query(move |store| store.runs(&filter))
    }

    /// Reads the stored frames of a job, in order.
    pub fn frames(&self, id: JobId) -> LedgerFuture<Vec<LoggedFrame>> {
        self.requests.query(move |store| store.frames(id))
    }

    /// Reads the failed objects of a job after the number `after`, in order, at most `limit` of them.
    pub fn failed(&self, id: JobId, after: u64, limit: usize) -> LedgerFuture<Vec<LoggedFailure>> {
        self.requests.query(move |store| store.failed(id, after, limit))
    }

    /// Groups the failed objects of a job by their error, the largest group first. Returns at most `limit` groups after
    /// the first `skip` ones.
    pub fn failed_by_error(&self, id: JobId, skip: u64, limit: usize) -> LedgerFuture<Vec<FailureGroup>> {
        self.requests.query(move |store| store.failed_by_error(id, skip, limit))
    }

    /// How many failed objects of a job are kept if `configured` is the configured limit. In memory it is lower.
    pub fn failed_limit(&self, configured: usize) -> usize {
        self.context.failed_limit(configured)
    }

    /// Reads the records of ended jobs whose backends may still run them after `now`, the longest cool-down first.
    pub fn cooling_down(&self, now: Timestamp) -> LedgerFuture<Vec<Record>> {
        self.requests.query(move |store| store.cooling_down(now))
    }

    /// Reads the last successes on all backends, and their capabilities. They outlive the records of jobs.
    pub fn history(&self) -> LedgerFuture<BackendHistory> {
        self.requests.query(move |store| store.history())
    }

    /// Stores the capabilities in `history`, and the successes that the ledger has no later one of.
    pub fn save_history(&self, history: BackendHistory) -> LedgerFuture<()> {
        self.requests.query(move |store| store.save_history(&history))
    }

    /// Returns the `jobs` whose recordings are due for removal: those whose frames were removed for their age and, of
    /// those that the ledger does not know, [`Retention::share`] of `jobs` in a scheduled cleaning. None of the
    /// unknown jobs is returned while their records may have been lost: after [`Ledger::lost`], and in a ledger that
    /// is younger than [`Retention::logs`], which may have replaced another one.
    pub fn without_log(&self, jobs: Vec<JobId>, cleaning: Cleaning) -> LedgerFuture<Vec<JobId>> {
        let (clock, lost) = (self.context.clock.clone(), self.lost.clone());
        self.requests.query(move |store| {
            let (now, retention) = (clock.observe().time, clock.retention());
            let is_old = now.saturating_sub(store.created_at(now)?) >= milliseconds(retention.logs);
            let most = match cleaning {
                _ if !is_old || lost.borrow().is_some() => 0,
                Cleaning::Scheduled => share_of(jobs.len(), retention.share),
                Cleaning::Requested => jobs.len(),
            };
            let WithoutLog { mut removed, unknown } = store.without_log(&jobs)?;
            removed.extend(unknown.into_iter().take(most));
            Ok(removed)
        })
    }

    /// Removes what is past its retention, unless cleaning is held.
    ///
    /// The age of a record is the time that the bridge has observed since the end of the job. It does not depend on
    /// the wall clock.
    pub fn clean(&self, cleaning: Cleaning) -> LedgerFuture<CleaningResult> {
        let (requests, clock) = (self.requests.clone(), self.context.clock.clone());
        async move {
            let mut all = CleaningResult::default();
            let plan = requests.query(move |store| {
                let now = match cleaning {
                    Cleaning::Scheduled => clock.observe(),
                    Cleaning::Requested => clock.trust(),
                };
                store.save_clock(now)?;
                if let Some(held) = clock.held() {
                    return Ok(Err(held));
                }
                Ok(Ok(CleaningPlan::new(cleaning, clock.retention(), now.time, store.ended_jobs()?)))
            });
            let mut rest = match plan.await? {
                Ok(plan) => Some(plan),
                Err(held) => return Ok(CleaningResult { held: Some(held), ..all }),
            };
            while let Some(plan) = rest {
                let (cleaned, next) = requests.query(move |store| store.clean(plan)).await?;
                all.jobs.extend(cleaned.jobs);
                all.logs.extend(cleaned.logs);
                all.left = cleaned.left;
                rest = next;
            }
            Ok(all)
        }
        .boxed()
    }

    /// Applies `retention` from now on.
    pub fn set_retention(&self, retention: Retention) {
        self.context.set_retention(retention);
    }

    /// Queues notifications by `rules` from now on.
    pub fn set_notification_rules(&self, rules: Vec<NotificationRule>) {
        self.context.notifications.set(rules);
    }

    /// Queues the notifications of syncs that are overdue, and reads the first notification of each target. Those that
    /// are older than [`MAX_AGE`], or have no target any more, are dropped.
    pub fn first_notifications(&self) -> LedgerFuture<Vec<QueuedNotification>> {
        self.requests.query(|store| store.first_notifications())
    }

    /// Removes a notification that its target has, or never accepts.
    pub fn remove_notification(&self, target: &str, id: &str) -> LedgerFuture<()> {
        let (target, id) = (target.to_owned(), id.to_owned());
        self.requests.query(move |store| store.remove_notification(&target, &id))
    }

    /// Counts an attempt to send a notification.
    pub fn count_attempt(&self, target: &str, id: &str) -> LedgerFuture<()> {
        let (target, id) = (target.to_owned(), id.to_owned());
        self.requests.query(move |store| store.count_attempt(&target, &id))
    }

    /// A receiver that changes when a notification is queued, and when the rules change.
    pub fn notifications_changed(&self) -> watch::Receiver<Arc<[NotificationRule]>> {
        self.context.notifications.subscribe()
    }

    /// The reason why cleaning is held, if it is.
    pub fn cleaning_held(&self) -> Option<String> {
        self.context.clock.held()
    }

    /// The last time the file was found deleted or replaced while the bridge was running. Its contents are lost:
    /// callers put the records that they still hold again.
    pub fn lost(&self) -> watch::Receiver<Option<LedgerLoss>> {
        self.lost.clone()
    }

    /// Whether the ledger works, as a value to watch.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// A secret for fingerprints, which lives as long as the ledger. Fingerprints made with it mean nothing
    /// elsewhere.
    pub fn secret(&self) -> [u8; 32] {
        self.secrets().first().copied().unwrap_or_default()
    }

    /// Every secret that stored fingerprints may have been made with, [`Ledger::secret`] first. A bridge that could
    /// not open its ledger at first started with a secret of its own.
    pub fn secrets(&self) -> Vec<[u8; 32]> {
        self.context.secrets.all()
    }

    /// Writes what is pending, as far as possible, and closes the ledger.
    pub fn close(&self) -> BoxFuture<'static, ()> {
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

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("place", &self.requests.place).finish_non_exhaustive()
    }
}

/// A filter for jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs of this kind.
    pub kind: Option<Kind>,
    /// Only jobs with one of these outcomes. If there is none, all jobs.
    pub outcomes: Vec<Outcome>,
    /// Only jobs with failed objects, or only jobs without any.
    pub failed: Option<bool>,
    /// Only jobs on this backend.
    pub backend: Option<BackendUrl>,
    /// Only jobs queued at this time or later.
    pub since: Option<Timestamp>,
    /// Only jobs older than this one: the last job of the previous page.
    pub before: Option<JobId>,
    /// The maximum number of jobs.
    pub limit: usize,
}

/// The loss of the file: it was deleted or replaced while it was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLoss {
    /// When the loss was noticed.
    pub at: Timestamp,
    /// What was noticed.
    pub problem: String,
}

/// Whether the ledger works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Available,
    /// It does not work, with the reason.
    Unavailable(String),
}

/// The ledger does not work. It holds the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of jobs is unavailable: {0}")]
pub struct LedgerUnavailable(pub String);

/// The location and the retention of a ledger.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The directory. Without one the ledger is kept in memory, and lost when the process ends.
    pub directory: Option<PathBuf>,
    /// How long records are kept.
    pub retention: Retention,
    /// How many of the last frames of a job are kept.
    pub log_frames: usize,
    /// How long an operation waits for another program that uses the file, such as one that makes a copy.
    pub busy_timeout: Duration,
    /// The clock that records age by.
    pub clock: Arc<dyn Clock>,
    /// What the targets of notifications are notified of.
    pub notifications: Vec<NotificationRule>,
}

/// Why a ledger cannot be read without a bridge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerReadError {
    /// There is none.
    #[error("there is no ledger in {}", .directory.display())]
    Missing {
        /// The directory.
        directory: PathBuf,
    },
    /// An earlier release wrote it, and reading must not migrate it.
    #[error(
        "{} was written by an older bridge (version {found} of the tables; this bridge reads {known}): use the \
         program of that bridge, or start this one on it, which migrates it",
        .file.display()
    )]
    Older {
        /// Its file.
        file: PathBuf,
        /// The version of its tables.
        found: i64,
        /// The only version that this bridge reads.
        known: i64,
    },
    /// A later release wrote it.
    #[error(transparent)]
    Open(#[from] LedgerOpenError),
    /// It cannot be read.
    #[error("cannot read {}: {problem}", .file.display())]
    Unreadable {
        /// Its file.
        file: PathBuf,
        /// The reason.
        problem: String,
    },
}

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
