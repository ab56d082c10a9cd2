//! Rows that cannot be read. Each is reported once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::rows::Unreadable;
use crate::telemetry::LedgerRowDamaged;

/// How many rows are remembered as reported.
const REMEMBERED: usize = 1_000;

/// The jobs whose damaged rows have been reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage(Arc<Mutex<HashSet<String>>>);

impl Damage {
    /// Reports a row that is left out.
    pub(super) fn report(&self, unreadable: &Unreadable) {
        let problem = unreadable.to_string();
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < REMEMBERED && reported.insert(problem.clone()) {
            LedgerRowDamaged { problem: &problem }.emit();
        }
    }
}
