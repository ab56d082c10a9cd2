//! What the ledger needs of a database.

use std::sync::Arc;

use tokio::sync::watch;

use super::notification::{NotificationRules, QueuedNotification};
use super::pending::Pending;
use super::record_clock::{ClockState, RecordClock};
use super::retention::{CleaningPlan, CleaningStep, EndedJobs, WithoutLog};
use super::secrets::FingerprintSecrets;
use super::{
    BackendHistory, FailureGroup, JobFilter, JobId, LedgerLoss, LedgerOpenError, LedgerOptions,
    LoggedFailure, LoggedFrame, Record, Retention, Run, Timestamp,
};

/// A database for the records of jobs. Its methods block; the writer calls one at a time, in the order of the
/// requests.
pub(super) trait Store: Send + 'static {
    /// The location, for messages.
    fn location(&self) -> String;

    /// Whether the database may hold the ledger of an earlier process.
    fn may_hold_ledger(&self) -> bool;

    /// Opens the database, unless it is open: excludes every other bridge, migrates the tables, loads the secrets
    /// and the clock of the [`StoreContext`], and once marks the unfinished jobs of an earlier process as
    /// interrupted.
    fn open(&mut self) -> Result<(), StoreError>;

    /// Whether it is open.
    fn is_open(&self) -> bool;

    /// Checks that an open database is still the one that was opened, and that no other bridge uses it.
    fn check(&mut self) -> Result<(), StoreError>;

    /// Writes all pending updates, and the state of the clock, in one transaction. When it returns, they are durable.
    /// A record without an end does not replace one with an end.
    fn write(&mut self, pending: &Pending) -> Result<(), StoreError>;

    /// See [`super::Ledger::job`].
    fn job(&mut self, id: JobId) -> Result<Option<Record>, StoreError>;

    /// See [`super::Ledger::jobs`]. Unreadable records are skipped and reported, and do not count towards the limit.
    fn jobs(&mut self, filter: &JobFilter) -> Result<Vec<Record>, StoreError>;

    /// See [`super::Ledger::runs`]. Unreadable records are skipped and reported, and do not count towards the limit.
    fn runs(&mut self, filter: &JobFilter) -> Result<Vec<Run>, StoreError>;

    /// See [`super::Ledger::frames`]. Unreadable frames are skipped and reported.
    fn frames(&mut self, id: JobId) -> Result<Vec<LoggedFrame>, StoreError>;

    /// See [`super::Ledger::failed`]. Unreadable ones are skipped and reported.
    fn failed(&mut self, id: JobId, after: u64, limit: usize) -> Result<Vec<LoggedFailure>, StoreError>;

    /// See [`super::Ledger::failed_by_error`].
    fn failed_by_error(
        &mut self,
        id: JobId,
        skip: u64,
        limit: usize,
    ) -> Result<Vec<FailureGroup>, StoreError>;

    /// See [`super::Ledger::cooling_down`]. Unreadable records are skipped and reported.
    fn cooling_down(&mut self, now: Timestamp) -> Result<Vec<Record>, StoreError>;

    /// See [`super::Ledger::history`]. Unreadable rows are skipped and reported.
    fn history(&mut self) -> Result<BackendHistory, StoreError>;

    /// See [`super::Ledger::save_history`].
    fn save_history(&mut self, history: &BackendHistory) -> Result<(), StoreError>;

    /// See [`super::Ledger::first_notifications`].
    fn first_notifications(&mut self) -> Result<Vec<QueuedNotification>, StoreError>;

    /// See [`super::Ledger::remove_notification`].
    fn remove_notification(&mut self, target: &str, id: &str) -> Result<(), StoreError>;

    /// See [`super::Ledger::count_attempt`].
    fn count_attempt(&mut self, target: &str, id: &str) -> Result<(), StoreError>;

    /// Stores the state of the clock.
    fn save_clock(&mut self, state: ClockState) -> Result<(), StoreError>;

    /// When this ledger was created, in its own time; `now` if that is unknown.
    fn created_at(&mut self, now: i64) -> Result<i64, StoreError>;

    /// Counts the ended jobs.
    fn ended_jobs(&mut self) -> Result<EndedJobs, StoreError>;

    /// Which of `jobs` have lost their frames for their age, and which ones are unknown.
    fn without_log(&mut self, jobs: &[JobId]) -> Result<WithoutLog, StoreError>;

    /// Removes as much of what `plan` names as does not hold up other requests for long. The last step counts what
    /// is left.
    fn clean(&mut self, plan: CleaningPlan) -> Result<CleaningStep, StoreError>;

    /// Drops a connection whose state is unknown, so that a new one is opened.
    fn disconnect(&mut self);

    /// Closes the database.
    fn close(&mut self);
}

/// Why a [`Store`] failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// An operator must act.
    #[error(transparent)]
    Permanent(#[from] LedgerOpenError),
    /// A retry may succeed.
    #[error("{0}")]
    Transient(String),
    /// The database was deleted or replaced. A new one can be opened at once.
    #[error("{0}")]
    Lost(String),
}

/// What a ledger shares with its store.
#[derive(Clone, Debug)]
pub(super) struct StoreContext {
    /// How many of the last frames of a job are kept.
    pub(super) log_frames: usize,
    in_memory: bool,
    pub(super) clock: RecordClock,
    pub(super) secrets: FingerprintSecrets,
    pub(super) notifications: NotificationRules,
    /// Where the store publishes a loss, once another database is open.
    pub(super) lost: watch::Sender<Option<LedgerLoss>>,
}

/// How many frames of a job are kept in memory.
const FRAMES_IN_MEMORY: usize = 200;
/// How many failed objects of a job are kept in memory.
const FAILED_IN_MEMORY: usize = 100;

impl StoreContext {
    pub(super) fn new(options: &LedgerOptions) -> Self {
        let LedgerOptions { directory, retention, log_frames, clock, notifications, .. } = options;
        let in_memory = directory.is_none();
        let context = Self {
            log_frames: if in_memory { FRAMES_IN_MEMORY.min(*log_frames) } else { *log_frames },
            in_memory,
            clock: RecordClock::new(Arc::clone(clock), *retention),
            secrets: FingerprintSecrets::random(),
            notifications: NotificationRules::new(notifications.clone()),
            lost: watch::Sender::new(None),
        };
        context.set_retention(*retention);
        context
    }

    /// See [`super::Ledger::failed_limit`].
    pub(super) fn failed_limit(&self, configured: usize) -> usize {
        if self.in_memory { FAILED_IN_MEMORY.min(configured) } else { configured }
    }

    /// Applies `retention` from now on, or less in memory.
    pub(super) fn set_retention(&self, retention: Retention) {
        self.clock.set_retention(if self.in_memory { retention.in_memory() } else { retention });
    }
}
