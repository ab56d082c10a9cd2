//! How many objects of each sort a run has seen, completed, failed, or left unconfirmed.

use serde::Deserialize;

use super::object::Object;

/// What became of the objects of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Count {
    /// Objects that the backend announced or told of.
    pub seen: u64,
    /// Objects that it confirmed.
    pub completed: u64,
    /// Objects that it said have failed.
    pub failed: u64,
    /// Objects that it never said any more about.
    pub unconfirmed: u64,
}

impl Count {
    /// Whether every object that was seen is one of the others.
    pub fn adds_up(self) -> bool {
        let ends = self.completed.checked_add(self.failed).and_then(|sum| sum.checked_add(self.unconfirmed));
        ends == Some(self.seen)
    }

    fn add(self, other: Self) -> Self {
        Self {
            seen: self.seen.saturating_add(other.seen),
            completed: self.completed.saturating_add(other.completed),
            failed: self.failed.saturating_add(other.failed),
            unconfirmed: self.unconfirmed.saturating_add(other.unconfirmed),
        }
    }

    /// What has come since `before`. A number may also have gone down: an object that was done may have failed
    /// after all.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            seen: self.seen.saturating_sub(before.seen),
            completed: self.completed.saturating_sub(before.completed),
            failed: self.failed.saturating_sub(before.failed),
            unconfirmed: self.unconfirmed.saturating_sub(before.unconfirmed),
        }
    }
}

/// The counts of a run, by sort of object, in the order in which the backend came to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(Object, Count)>);

impl Counts {
    /// All sorts of objects together.
    pub fn total(&self) -> Count {
        self.0.iter().fold(Count::default(), |sum, (_, count)| sum.add(*count))
    }
}
