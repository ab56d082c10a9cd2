//! Events of the ledger.

use std::time::Duration;

use super::metrics::METRICS;

/// The ledger was opened for the first time in this process.
#[derive(Debug)]
pub struct LedgerOpened<'a> {
    /// Its location.
    pub place: &'a str,
    /// The number of jobs that the previous process left unfinished. They are recorded as interrupted now.
    pub interrupted: usize,
}

impl LedgerOpened<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        match self.interrupted {
            0 => tracing::info!(place = self.place, "Ledger opened."),
            interrupted => tracing::warn!(
                place = self.place,
                interrupted,
                "Ledger opened. The previous process ended while jobs were running; they are recorded as interrupted."
            ),
        }
    }
}

/// The ledger became available or unavailable.
#[derive(Debug)]
pub struct LedgerHealthChanged<'a> {
    /// Why it is unavailable. `None` if it is available.
    pub problem: Option<&'a str>,
}

impl LedgerHealthChanged<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.available.set(i64::from(self.problem.is_none()));
        match self.problem {
            Some(problem) => tracing::warn!(
                problem,
                "Ledger unavailable: jobs continue, and their records are kept in memory."
            ),
            None => tracing::info!("Ledger available."),
        }
    }
}

/// A file of the ledger was deleted or replaced while it was open.
#[derive(Debug)]
pub struct LedgerLost<'a> {
    /// Which file, and what the bridge does about it.
    pub problem: &'a str,
}

impl LedgerLost<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.lost.inc();
        tracing::error!(problem = self.problem, "Ledger file deleted or replaced.");
    }
}

/// A row of the ledger cannot be read and is skipped.
#[derive(Debug)]
pub struct LedgerRowDamaged<'a> {
    /// The job of the row, and the error.
    pub problem: &'a str,
}

impl LedgerRowDamaged<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.damaged.inc();
        tracing::warn!(
            problem = self.problem,
            "Damaged row in the ledger skipped. A backup of the ledger may have an intact copy."
        );
    }
}

/// The wall clock jumped. The ledger removes nothing because of its age until the clock is trusted again.
#[derive(Debug)]
pub struct LedgerClockJumped<'a> {
    /// The size of the jump, and what to do.
    pub problem: &'a str,
}

impl LedgerClockJumped<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.cleaning_held.set(1);
        tracing::warn!(problem = self.problem, "Clock jumped: cleaning of the ledger is suspended.");
    }
}

/// A cleaning removed nothing because the wall clock is not trusted.
#[derive(Debug)]
pub struct LedgerCleaningHeld<'a> {
    /// The size of the jump, and what to do.
    pub problem: &'a str,
}

impl LedgerCleaningHeld<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(
            problem = self.problem,
            "No expired record removed: cleaning of the ledger is suspended."
        );
    }
}

/// Why the wall clock is trusted again after a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrustReason {
    /// It returned to the expected time.
    WentBack,
    /// It did not jump again for `limits.clock_hold`.
    Stayed,
    /// An operator requested a cleaning.
    Ordered,
}

/// The wall clock is trusted again.
#[derive(Debug)]
pub struct LedgerClockTrusted {
    /// The reason.
    pub why: ClockTrustReason,
}

impl LedgerClockTrusted {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.cleaning_held.set(0);
        let why = match self.why {
            ClockTrustReason::WentBack => "the clock returned to the expected time",
            ClockTrustReason::Stayed => {
                "the clock has not jumped again for limits.clock_hold; the jump does not count towards the age of \
                 records"
            }
            ClockTrustReason::Ordered => {
                "an operator requested a cleaning; the jump counts towards the age of records"
            }
        };
        tracing::info!(why, "Cleaning of the ledger resumed.");
    }
}

/// A batch was written.
#[derive(Debug)]
pub struct LedgerCommitted {
    /// The time that it took.
    pub duration: Duration,
    /// The number of jobs in it.
    pub jobs: usize,
}

impl LedgerCommitted {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.commit.observe(self.duration.as_secs_f64());
        tracing::trace!(jobs = self.jobs, duration_seconds = self.duration.as_secs_f64(), "Ledger written.");
    }
}

/// A batch could not be written. It is kept and retried.
#[derive(Debug)]
pub struct LedgerCommitFailed<'a> {
    /// The error.
    pub problem: &'a str,
    /// The number of jobs in it.
    pub jobs: usize,
}

impl LedgerCommitFailed<'_> {
    /// Writes the log line and updates the metrics. The line is at debug because it recurs with each attempt:
    /// [`LedgerHealthChanged`] is the one for operators.
    pub fn emit(self) {
        METRICS.ledger.commit_failures.inc();
        tracing::debug!(problem = self.problem, jobs = self.jobs, "Ledger not written.");
    }
}

/// A pending record, log or batch of failed objects was discarded because too many were waiting to be written.
#[derive(Debug)]
pub struct LedgerShed {
    /// The id of the job.
    pub job: String,
    /// Whether the record was discarded, too. If not, only the log or the failed objects were.
    pub record: bool,
}

impl LedgerShed {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.shed.inc();
        tracing::warn!(
            job = self.job,
            record = self.record,
            "Pending record, log or failed objects discarded: too many are waiting to be written."
        );
    }
}

/// The ledger was closed.
#[derive(Debug)]
pub struct LedgerClosed {
    /// The number of jobs whose newest data could not be written.
    pub unwritten: usize,
}

impl LedgerClosed {
    /// Writes the log line.
    pub fn emit(self) {
        match self.unwritten {
            0 => tracing::debug!("Ledger closed."),
            jobs => tracing::warn!(jobs, "Ledger closed. The newest data of some jobs was not written."),
        }
    }
}
