//! Rows that cannot be read. Each is reported once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::rows::RowError;
use crate::telemetry::LedgerRowDamaged;

/// How many rows are remembered as reported.
const MAX_REPORTED: usize = 1_000;

/// The jobs whose damaged rows have been reported.
#[derive(Clone, Debug, Default)]
pub(super) struct DamagedRows(Arc<Mutex<HashSet<String>>>);

impl DamagedRows {
    /// Reports a row that is left out.
    pub(super) fn report(&self, unreadable: &RowError) {
        let problem = unreadable.to_string();
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < MAX_REPORTED && reported.insert(problem.clone()) {
            LedgerRowDamaged { problem: &problem }.emit();
        }
    }
}
