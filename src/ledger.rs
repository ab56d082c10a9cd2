//! The durable record of jobs.

mod clock;
mod record;
mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

pub use clock::{Clock, SystemClock};
pub use record::{
    Cooldown, InvalidJobId, JobEnd, JobId, JobProgress, JobUpdate, LoggedFrame, Record, Requester, Timestamp,
};
pub use sqlite::{LedgerOpenError, Sqlite, has_ledger, inspect};

use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;

/// A store for the records of jobs. Another database implements this trait.
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// Writes the record of a job, replacing the previous one, and adds its frames. Completes when the write is
    /// durable, that is, survives a loss of power.
    ///
    /// A failed write is kept and retried until it succeeds.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`], at once if the ledger is known to be unavailable.
    fn put(&self, entry: JobUpdate) -> BoxFuture<'static, Result<(), LedgerUnavailable>>;

    /// Reads the record of one job.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn job(&self, id: JobId) -> BoxFuture<'static, Result<Option<Record>, LedgerUnavailable>>;

    /// Reads the records that match `filter`, newest first, at most `filter.limit` of them.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn jobs(&self, filter: JobFilter) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>>;

    /// Reads the stored frames of a job after the number `after`, in order.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn frames(
        &self,
        id: JobId,
        after: u64,
    ) -> BoxFuture<'static, Result<Vec<LoggedFrame>, LedgerUnavailable>>;

    /// Reads the records of ended jobs whose backends may still run them after `now`, the longest cool-down first.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn cooling_down(&self, now: Timestamp) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>>;

    /// Returns the `jobs` whose recordings are due for removal: those whose frames were removed for their age and, of
    /// those that the ledger does not know, [`Retention::share`] of `jobs` in a scheduled cleaning. None of the
    /// unknown jobs is returned while their records may have been lost: after [`Ledger::lost`], and in a ledger that
    /// is younger than [`Retention::logs`].
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn without_log(
        &self,
        jobs: Vec<JobId>,
        cleaning: Cleaning,
    ) -> BoxFuture<'static, Result<Vec<JobId>, LedgerUnavailable>>;

    /// Removes what is past its retention, unless cleaning is held.
    ///
    /// The age of a record is the time that the bridge has observed since the end of the job. It does not depend on
    /// the wall clock.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn clean(&self, cleaning: Cleaning) -> BoxFuture<'static, Result<CleaningResult, LedgerUnavailable>>;

    /// Applies `retention` from now on.
    fn set_retention(&self, retention: Retention);

    /// The reason why cleaning is held, if it is.
    fn cleaning_held(&self) -> Option<String>;

    /// The last time the file was found deleted or replaced while the bridge was running. Its contents are lost:
    /// callers put the records that they still hold again.
    fn lost(&self) -> watch::Receiver<Option<LedgerLoss>>;

    /// Whether the ledger works, as a value to watch.
    fn health(&self) -> watch::Receiver<Health>;

    /// A secret for fingerprints, which lives as long as the ledger. Fingerprints made with it mean nothing
    /// elsewhere.
    fn secret(&self) -> [u8; 32];

    /// Every secret that stored fingerprints may have been made with, [`Ledger::secret`] first. A bridge that could
    /// not open its ledger at first started with a secret of its own.
    fn secrets(&self) -> Vec<[u8; 32]>;

    /// Writes what is pending, as far as possible, and closes the ledger.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// A filter for jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs of this kind.
    pub kind: Option<Kind>,
    /// Only jobs with this outcome.
    pub outcome: Option<Outcome>,
    /// Only jobs on this backend.
    pub backend: Option<String>,
    /// Only jobs queued at this time or later.
    pub since: Option<Timestamp>,
    /// Only jobs older than this one: the last job of the previous page.
    pub before: Option<JobId>,
    /// The maximum number of jobs.
    pub limit: usize,
}

/// The result of a cleaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleaningResult {
    /// Jobs that were removed entirely.
    pub jobs: Vec<JobId>,
    /// Jobs whose frames were removed, and whose recordings are to be removed too.
    pub logs: Vec<JobId>,
    /// How many jobs are due to lose their record or frames, and keep them until a later cleaning because of
    /// [`Retention::share`].
    pub left: u64,
    /// The reason why nothing was removed, if cleaning is held.
    pub held: Option<String>,
}

/// The interval between two scheduled cleanings.
pub const CLEANING_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How much a cleaning may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// A share of the jobs, and nothing while cleaning is held after a jump of the clock.
    Scheduled,
    /// Everything that is due. The operator confirms that the wall clock is right, and that the time it jumped by has
    /// passed.
    Requested,
}

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long the record of a job is kept after its end.
    pub jobs: Duration,
    /// How long the frames of a job are kept after its end.
    pub logs: Duration,
    /// How far the wall clock may be from the expected time before cleaning is held.
    pub clock_jump: Duration,
    /// How long cleaning is held then.
    pub clock_hold: Duration,
    /// The maximum share of the jobs that one cleaning removes, in percent. If twice what a steady load makes due
    /// within [`CLEANING_INTERVAL`] is more, that applies.
    pub share: usize,
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
    /// The clock that records age by.
    pub clock: Arc<dyn Clock>,
}
