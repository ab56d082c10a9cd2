//! The failed objects of a job, on their way to the log and to the ledger.

use crate::core::domain::outcome::ObjectFailure;
use crate::ledger::{LoggedFailure, Timestamp};
use crate::telemetry;

/// How many failed objects of a job have a log line of their own.
const MAX_LINES: u64 = 20;

/// The failed objects of one job.
#[derive(Debug)]
pub(super) struct FailureLog {
    /// How many are kept (`jobs.failed_objects`).
    limit: u64,
    /// The number of the last one.
    number: u64,
    /// Failed objects without a log line.
    unlogged: u64,
    /// Failed objects beyond the limit.
    left_out: u64,
    /// Those that are not handed to the ledger yet.
    pending: Vec<LoggedFailure>,
}

impl FailureLog {
    /// Creates a log that keeps `limit` failed objects.
    pub(super) fn new(limit: usize) -> Self {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        Self { limit, number: 0, unlogged: 0, left_out: 0, pending: Vec::new() }
    }

    /// Adds a failure reported at `at`. Returns the number of objects that are left out because of the limit.
    pub(super) fn add(&mut self, at: Timestamp, failure: ObjectFailure) -> u64 {
        self.number += 1;
        if self.number <= MAX_LINES {
            telemetry::ObjectFailed { failure: &failure }.emit();
        } else {
            self.unlogged = self.unlogged.saturating_add(failure.count);
        }
        if self.number > self.limit {
            self.left_out = self.left_out.saturating_add(failure.count);
            return failure.count;
        }
        self.pending.push(LoggedFailure { number: self.number, at, failure });
        0
    }

    /// How many failures are not handed to the ledger yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes the failures that are not handed to the ledger yet.
    pub(super) fn take(&mut self) -> Vec<LoggedFailure> {
        std::mem::take(&mut self.pending)
    }

    /// Logs how many failed objects have no line of their own.
    pub(super) fn log_rest(&self) {
        if self.unlogged > 0 {
            telemetry::MoreObjectsFailed { more: self.unlogged, left_out: self.left_out }.emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_beyond_the_limit_are_counted_by_object() {
        let mut failures = FailureLog::new(2);
        let failure = |count| ObjectFailure { count, ..ObjectFailure::example() };
        let left_out = [1, 5, 3, 1].map(|count| failures.add(Timestamp(7), failure(count)));
        assert_eq!((left_out, failures.left_out), ([0, 0, 3, 1], 4));
        let kept: Vec<_> =
            failures.take().into_iter().map(|kept| (kept.number, kept.failure.count)).collect();
        assert_eq!((kept, failures.pending()), (vec![(1, 1), (2, 5)], 0));
    }
}
