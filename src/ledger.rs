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
    Cooldown, InvalidJobId, JobEnd, JobId, JobProgress, JobUpdate, Record, Requester, StoredFrame, Timestamp,
};
pub use sqlite::{LedgerOpenError, Sqlite, has_ledger, inspect};

use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;

/// Where jobs are recorded. One that is written to a second database implements this.
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// Writes the record of a job, in the place of what was written of it before, and adds its frames.
    /// Done when that would survive a loss of power.
    ///
    /// What cannot be written is kept and tried again until it can be.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`], at once if the ledger is known to be unavailable.
    fn put(&self, entry: JobUpdate) -> BoxFuture<'static, Result<(), LedgerUnavailable>>;

    /// The record of one job.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn job(&self, id: JobId) -> BoxFuture<'static, Result<Option<Record>, LedgerUnavailable>>;

    /// The records that `filter` lets through, newest first, at most `filter.limit` of them.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn jobs(&self, filter: JobFilter) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>>;

    /// What is left of the frames of a job behind the one with the number `after`, in their order.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn frames(
        &self,
        id: JobId,
        after: u64,
    ) -> BoxFuture<'static, Result<Vec<StoredFrame>, LedgerUnavailable>>;

    /// The records of jobs whose backends may be at work on them after `now`, although they have ended: the longest
    /// cool-down first.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn cooling_down(&self, now: Timestamp) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>>;

    /// Which of `jobs` have recordings that are not to be kept any more: those whose frames were removed for their age
    /// and, of those that the ledger does not know, [`Retention::share`] of `jobs` in a usual cleaning. Of the latter
    /// none while their records may have been lost: after [`Ledger::lost`], and in a ledger that is younger than
    /// [`Retention::logs`].
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn without_log(
        &self,
        jobs: Vec<JobId>,
        cleaning: Cleaning,
    ) -> BoxFuture<'static, Result<Vec<JobId>, LedgerUnavailable>>;

    /// Removes what is older than it is to be kept, unless that is held back.
    ///
    /// Records age by the time that the bridge has seen pass since their job ended, and not by what the wall clock
    /// has been set to.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`].
    fn clean(&self, cleaning: Cleaning) -> BoxFuture<'static, Result<CleaningResult, LedgerUnavailable>>;

    /// From now on records are removed by `retention`.
    fn set_retention(&self, retention: Retention);

    /// Why nothing is removed for its age at present, if that is so.
    fn cleaning_held(&self) -> Option<String>;

    /// When its file was found to be deleted or replaced under the running bridge, the last time that it was.
    /// What was in it is gone: whoever still has records puts them again.
    fn lost(&self) -> watch::Receiver<Option<LedgerLoss>>;

    /// Whether it works, now and from now on.
    fn health(&self) -> watch::Receiver<Health>;

    /// A secret that lives as long as the ledger, for fingerprints that mean nothing elsewhere.
    fn secret(&self) -> [u8; 32];

    /// Every secret that fingerprints in it may have been made with, [`Ledger::secret`] first. A bridge whose
    /// ledger was not there yet began with a secret of its own.
    fn secrets(&self) -> Vec<[u8; 32]>;

    /// Writes what is left, as far as that is possible, and ends.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// Which jobs are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// On this backend.
    pub backend: Option<String>,
    /// Queued at this time or later.
    pub since: Option<Timestamp>,
    /// Older than this job: the last one of the page before.
    pub before: Option<JobId>,
    /// How many at most.
    pub limit: usize,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleaningResult {
    /// Jobs of which nothing is left.
    pub jobs: Vec<JobId>,
    /// Jobs that lost their frames, and whose recordings are to be removed too.
    pub logs: Vec<JobId>,
    /// How many jobs are due to lose their record or their frames, and keep them until a later cleaning:
    /// more would have been removed at once than [`Retention::share`].
    pub left: u64,
    /// Why nothing was removed, if cleaning is held back.
    pub held: Option<String>,
}

/// How often the ledger is cleaned.
pub const CLEANING_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How much a cleaning may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// A share of the jobs, and nothing while the clock is not believed.
    Scheduled,
    /// All that is due. An operator says that the wall clock is right, and that the time by which it jumped has
    /// passed.
    Requested,
}

/// For how long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long the record of a job is kept after its end.
    pub jobs: Duration,
    /// How long its frames are kept.
    pub logs: Duration,
    /// How far the wall clock may be from the time that the ledger expects, before nothing is removed.
    pub clock_jump: Duration,
    /// How long nothing is removed then.
    pub clock_hold: Duration,
    /// How many of the jobs one cleaning removes at most, in percent; twice what a steady load makes due within
    /// [`CLEANING_INTERVAL`], if that is more.
    pub share: usize,
}

/// The file of a ledger that was deleted or replaced while it was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLoss {
    /// When that was noticed.
    pub at: Timestamp,
    /// What was noticed.
    pub problem: String,
}

/// Whether the ledger works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Available,
    /// It does not, for this reason.
    Unavailable(String),
}

/// The ledger does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of jobs is unavailable: {0}")]
pub struct LedgerUnavailable(pub String);

/// Where a ledger is kept, and for how long what is in it.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// Its directory; without one it is kept in memory, and lost at the end.
    pub directory: Option<PathBuf>,
    /// For how long what is in it is kept.
    pub retention: Retention,
    /// How many of the last frames of a job are kept.
    pub log_frames: usize,
    /// What records age by.
    pub clock: Arc<dyn Clock>,
}
