//! How long records are kept, and what a cleaning removes.

use std::time::Duration;

use super::JobId;

/// The interval between two scheduled cleanings.
pub const CLEANING_INTERVAL: Duration = Duration::from_secs(60 * 60);

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

/// Retention in memory, which is shorter: frames for this long, and records for the time below.
const LOGS_IN_MEMORY: Duration = Duration::from_secs(60 * 60);
const JOBS_IN_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

impl Retention {
    /// The retention of a ledger in memory, which keeps records for less time, and a cleaning removes all that is due.
    pub(super) fn in_memory(self) -> Self {
        Self { jobs: self.jobs.min(JOBS_IN_MEMORY), logs: self.logs.min(LOGS_IN_MEMORY), share: 100, ..self }
    }
}

/// How much a cleaning may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// A share of the jobs, and nothing while cleaning is held after a jump of the clock.
    Scheduled,
    /// Everything that is due. The operator confirms that the wall clock is right, and that the time it jumped by has
    /// passed.
    Requested,
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

/// What one cleaning may remove. Its times are the ledger's.
#[derive(Clone, Copy, Debug)]
pub(super) struct CleaningPlan {
    /// Jobs that ended before this are removed.
    pub(super) jobs_before: i64,
    /// The frames of jobs that ended before this are removed. Never earlier than `jobs_before`: the frames of a
    /// removed job go with it.
    pub(super) logs_before: i64,
    /// How many jobs may be removed.
    pub(super) jobs: usize,
    /// How many jobs may lose their frames.
    pub(super) logs: usize,
}

/// A number of ended jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedJobs {
    /// All of them.
    pub(super) jobs: usize,
    /// Those with frames.
    pub(super) logs: usize,
}

/// What one step of a cleaning has removed, and the plan of the next step, if there may be more to remove.
pub(super) type CleaningStep = (CleaningResult, Option<CleaningPlan>);

/// Jobs that have no frames.
#[derive(Debug, Default)]
pub(super) struct WithoutLog {
    /// Jobs whose frames were removed for their age.
    pub(super) removed: Vec<JobId>,
    /// Jobs without a record.
    pub(super) unknown: Vec<JobId>,
}

impl CleaningPlan {
    /// Plans `cleaning` for the ledger's time `now`, in a ledger that has `ended` jobs.
    pub(super) fn new(cleaning: Cleaning, retention: Retention, now: i64, ended: EndedJobs) -> Self {
        let Retention { jobs, logs, share, .. } = retention;
        let [jobs_before, logs_before] = [jobs, logs].map(|age| now.saturating_sub(milliseconds(age)));
        let limit = |age: Duration, all: usize| match cleaning {
            Cleaning::Scheduled => share_of(all, share.max(steady_share(age))),
            Cleaning::Requested => all,
        };
        Self {
            jobs_before,
            logs_before: logs_before.max(jobs_before),
            jobs: limit(jobs, ended.jobs),
            logs: limit(logs, ended.logs),
        }
    }
}

/// `share` percent of `all`, at least one.
pub(super) fn share_of(all: usize, share: usize) -> usize {
    (all.saturating_mul(share) / 100).max(1)
}

/// Twice the share of records with the retention `age` that a steady load makes due between two cleanings, in
/// percent. Below the share that becomes due, the backlog would grow without end.
fn steady_share(age: Duration) -> usize {
    let share = 200 * CLEANING_INTERVAL.as_secs() / age.as_secs().max(1);
    usize::try_from(share.min(100)).unwrap_or(100)
}

pub(super) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
