//! Rows that cannot be read. Each is reported once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::rows::RowError;
use crate::telemetry::LedgerRowDamaged;

/// How many reported rows are remembered.
const MAX_REPORTED: usize = 1_000;

/// The jobs whose damaged rows were reported.
#[derive(Clone, Debug, Default)]
pub(super) struct DamagedRows(Arc<Mutex<HashSet<String>>>);

impl DamagedRows {
    /// Reports a skipped row.
    pub(super) fn report(&self, unreadable: &RowError) {
        let problem = unreadable.to_string();
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < MAX_REPORTED && reported.insert(problem.clone()) {
            LedgerRowDamaged { problem: &problem }.emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damaged_row_is_reported_once_and_no_more_of_them_than_are_remembered() {
        let damage = DamagedRows::default();
        let reported = || damage.0.lock().unwrap().len();
        let row = |job: usize| RowError::Malformed { job: job.to_string(), problem: "odd".to_owned() };
        for job in [0, 0, 1] {
            damage.report(&row(job));
        }
        assert_eq!(reported(), 2);
        (0..=MAX_REPORTED).for_each(|job| damage.report(&row(job)));
        assert_eq!(reported(), MAX_REPORTED);
    }
}
