//! What happens to the ledger.

use std::time::Duration;

use super::metrics::METRICS;

/// The ledger can be written, for the first time in this process.
#[derive(Debug)]
pub struct LedgerOpened<'a> {
    /// Where it is.
    pub place: &'a str,
    /// Jobs that the bridge before this one left without an end, and which have one now.
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
                "Ledger opened: the bridge before this one ended in the middle of jobs."
            ),
        }
    }
}

/// Whether the ledger works has changed.
#[derive(Debug)]
pub struct LedgerHealthChanged<'a> {
    /// Why it does not, if it does not.
    pub problem: Option<&'a str>,
}

impl LedgerHealthChanged<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.available.set(i64::from(self.problem.is_none()));
        match self.problem {
            Some(problem) => tracing::warn!(
                problem,
                "Ledger unavailable: jobs go on, and what is to be recorded of them is kept in memory."
            ),
            None => tracing::info!("Ledger available."),
        }
    }
}

/// The files of the ledger are not those that were opened.
#[derive(Debug)]
pub struct LedgerLost<'a> {
    /// Which, and what is done about it.
    pub problem: &'a str,
}

impl LedgerLost<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.lost.inc();
        tracing::error!(problem = self.problem, "Ledger file deleted or replaced.");
    }
}

/// A row cannot be read, and is left out.
#[derive(Debug)]
pub struct LedgerRowDamaged<'a> {
    /// Of which job, and why.
    pub problem: &'a str,
}

impl LedgerRowDamaged<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.damaged.inc();
        tracing::warn!(
            problem = self.problem,
            "Damaged row in the ledger left out. A backup of ledger.sqlite3 may have it whole."
        );
    }
}

/// The wall clock is not where the ledger expects it, and nothing is removed for its age.
#[derive(Debug)]
pub struct LedgerClockJumped<'a> {
    /// By how much, and what to do.
    pub problem: &'a str,
}

impl LedgerClockJumped<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.cleaning_held.set(1);
        tracing::warn!(problem = self.problem, "Clock jumped: cleaning of the ledger is held back.");
    }
}

/// A cleaning has removed nothing because the wall clock is not believed.
#[derive(Debug)]
pub struct LedgerCleaningHeld<'a> {
    /// By how much it jumped, and what to do.
    pub problem: &'a str,
}

impl LedgerCleaningHeld<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(problem = self.problem, "No old record removed: cleaning is held back.");
    }
}

/// Why the wall clock is believed after a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrustReason {
    /// It went back to where it was expected.
    WentBack,
    /// It stayed for `limits.clock_hold`.
    Stayed,
    /// An operator ordered a cleaning.
    Ordered,
}

/// The wall clock is believed again.
#[derive(Debug)]
pub struct LedgerClockTrusted {
    /// Why.
    pub why: ClockTrustReason,
}

impl LedgerClockTrusted {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.cleaning_held.set(0);
        let why = match self.why {
            ClockTrustReason::WentBack => "the clock is where it was expected",
            ClockTrustReason::Stayed => {
                "the clock has not jumped again for limits.clock_hold; records have not aged by the jump"
            }
            ClockTrustReason::Ordered => "an operator ordered a cleaning; records have aged by the jump",
        };
        tracing::info!(why, "Cleaning of the ledger is not held back any more.");
    }
}

/// A batch was written.
#[derive(Debug)]
pub struct LedgerCommitted {
    /// How long it took.
    pub duration: Duration,
    /// How many jobs it was about.
    pub jobs: usize,
}

impl LedgerCommitted {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.commit.observe(self.duration.as_secs_f64());
        tracing::trace!(jobs = self.jobs, duration_seconds = self.duration.as_secs_f64(), "Ledger written.");
    }
}

/// Something could not be written. It is kept, and tried again.
#[derive(Debug)]
pub struct LedgerCommitFailed<'a> {
    /// Why.
    pub problem: &'a str,
    /// How many jobs it is about.
    pub jobs: usize,
}

impl LedgerCommitFailed<'_> {
    /// Writes the log line and moves the metrics. The line that an operator sees is the one of the
    /// change that follows from the first failure; this one comes again with each attempt.
    pub fn emit(self) {
        METRICS.ledger.commit_failures.inc();
        tracing::debug!(problem = self.problem, jobs = self.jobs, "Ledger not written.");
    }
}

/// Too much waited to be written, and something of it was given up.
#[derive(Debug)]
pub struct LedgerShed {
    /// The id of the job.
    pub job: String,
    /// Whether its record went too, or its log alone.
    pub record: bool,
}

impl LedgerShed {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.shed.inc();
        tracing::warn!(
            job = self.job,
            record = self.record,
            "Something that waited to be recorded was given up, because too much waits."
        );
    }
}

/// The ledger was closed.
#[derive(Debug)]
pub struct LedgerClosed {
    /// Jobs of which something could not be written to the last.
    pub unwritten: usize,
}

impl LedgerClosed {
    /// Writes the log line.
    pub fn emit(self) {
        match self.unwritten {
            0 => tracing::debug!("Ledger closed."),
            jobs => tracing::warn!(jobs, "Ledger closed: what is new of some jobs was never recorded."),
        }
    }
}
