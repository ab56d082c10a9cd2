//! Detects failures that a backend repeats.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// The number of failures that are remembered. Beyond it, every failure counts as new.
const MAX_SEEN: usize = 4096;

/// The failures that were already written, as hashes of their content.
#[derive(Debug, Default)]
pub(super) struct SeenFailures(HashSet<u64>);

impl SeenFailures {
    /// Records `failure`. Returns whether it is new.
    pub(super) fn is_first(&mut self, failure: &(impl Hash + ?Sized)) -> bool {
        let mut hasher = DefaultHasher::new();
        failure.hash(&mut hasher);
        let hash = hasher.finish();
        if self.0.len() >= MAX_SEEN {
            return !self.0.contains(&hash);
        }
        self.0.insert(hash)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
