//! Rows that cannot be read. Each is reported once.

use std::collections::HashSet;
use std::fmt::Display;

use crate::telemetry::LedgerRowDamaged;

/// How many reported rows are remembered.
const MAX_REPORTED: usize = 1_000;

/// The problems that were reported.
#[derive(Debug, Default)]
pub(super) struct DamagedRows(HashSet<String>);

impl DamagedRows {
    /// Reports a row that cannot be read.
    pub(super) fn check<T>(&mut self, row: Result<T, impl Display>) -> Option<T> {
        row.inspect_err(|problem| self.report(&problem.to_string())).ok()
    }

    /// Reports the `problem` of a skipped row.
    pub(super) fn report(&mut self, problem: &str) {
        if self.0.len() < MAX_REPORTED && self.0.insert(problem.to_owned()) {
            LedgerRowDamaged { problem }.emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damaged_row_is_reported_once_and_no_more_of_them_than_are_remembered() {
        let mut damage = DamagedRows::default();
        for job in [0, 0, 1] {
            damage.report(&job.to_string());
        }
        assert_eq!(damage.0.len(), 2);
        (0..=MAX_REPORTED).for_each(|job| damage.report(&job.to_string()));
        assert_eq!(damage.0.len(), MAX_REPORTED);
    }
}
