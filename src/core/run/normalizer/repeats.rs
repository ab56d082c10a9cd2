//! Detects failures that a backend repeats.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault, Hash};

/// The number of failures that are remembered. Beyond it, every failure counts as new.
const MAX_SEEN: usize = 4096;

/// The failures that were already written, as hashes of their content.
#[derive(Debug, Default)]
pub(super) struct SeenFailures(HashSet<u64>);

impl SeenFailures {
    /// Records `failure`. Returns whether it is new.
    pub(super) fn is_first(&mut self, failure: &(impl Hash + ?Sized)) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(failure);
        if self.0.len() >= MAX_SEEN {
            return !self.0.contains(&hash);
        }
        self.0.insert(hash)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_new_once_and_always_where_too_many_are_known() {
        let mut repeats = SeenFailures::default();
        for failure in 0..MAX_SEEN {
            assert!(repeats.is_first(&failure));
            assert!(!repeats.is_first(&failure));
        }
        for _ in 0..2 {
            assert!(repeats.is_first(&MAX_SEEN));
            assert!(!repeats.is_first(&0_usize));
        }
        repeats.clear();
        assert!(repeats.is_first(&0_usize));
    }
}
