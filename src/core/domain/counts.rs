//! The numbers of seen, completed, failed and unconfirmed objects of a run, by object type.

use serde::{Deserialize, Serialize};

use super::object::Object;

/// The counts of one object type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Objects that the backend announced or reported.
    pub seen: u64,
    /// Objects reported as completed.
    pub completed: u64,
    /// Objects reported as failed.
    pub failed: u64,
    /// Objects without a final report.
    pub unconfirmed: u64,
}

impl Count {
    /// Whether the other three counts add up to `seen`.
    pub fn adds_up(self) -> bool {
        let ends = self.completed.checked_add(self.failed).and_then(|sum| sum.checked_add(self.unconfirmed));
        ends == Some(self.seen)
    }

    /// Each of its counts merged with that of `other`.
    #[must_use]
    pub fn merge(self, other: Self, merge: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            seen: merge(self.seen, other.seen),
            completed: merge(self.completed, other.completed),
            failed: merge(self.failed, other.failed),
            unconfirmed: merge(self.unconfirmed, other.unconfirmed),
        }
    }

    /// The change since `before`. A count may have decreased: a completed object may have failed later.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.merge(before, u64::saturating_sub)
    }
}

/// The counts of a run by object type, in the order in which the backend reported them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(Object, Count)>);

impl Counts {
    /// The sum over all object types.
    pub fn total(&self) -> Count {
        self.0.iter().fold(Count::default(), |sum, (_, count)| sum.merge(*count, u64::saturating_add))
    }
}
