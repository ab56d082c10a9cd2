//! Counting objects, each once, whichever event tells of it.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::object::Object;

/// What became of the objects of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    fn add(self, other: Self) -> Self {
        Self {
            seen: self.seen + other.seen,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            unconfirmed: self.unconfirmed + other.unconfirmed,
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

/// What a backend says of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being worked on.
    Processing,
    /// It is done.
    Completed,
    /// It failed.
    Failed,
}

/// What a summary of a whole stage says, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects created, updated or found unchanged.
    pub completed: u64,
    /// Objects that failed.
    pub failed: u64,
    /// Objects in all.
    pub total: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// Objects told of one by one, by their last state.
    processing: u64,
    completed: u64,
    failed: u64,
    /// Objects announced in number.
    announced: u64,
    /// Objects counted by the backend itself, at the end of a stage.
    summary: Summary,
}

impl Row {
    /// Events of single objects and numbers for the whole stage tell of the same objects, so the
    /// larger one of the two is the better informed.
    fn count(&self) -> Count {
        let completed = self.completed.max(self.summary.completed);
        let failed = self.failed.max(self.summary.failed);
        let told = self.processing + self.completed + self.failed;
        let seen = told.max(self.announced).max(self.summary.total).max(completed + failed);
        Count { seen, completed, failed, unconfirmed: seen - completed - failed }
    }

    fn slot(&mut self, state: State) -> &mut u64 {
        match state {
            State::Processing => &mut self.processing,
            State::Completed => &mut self.completed,
            State::Failed => &mut self.failed,
        }
    }
}

/// How many objects are told apart. Past this, memory is worth more than telling two events about
/// one object from events about two.
const TOLD_APART: usize = 1 << 20;

/// The count of a run while it runs.
#[derive(Debug, Default)]
pub struct Tally {
    rows: Vec<(Object, Row)>,
    states: HashMap<u64, State, BuildHasherDefault<DefaultHasher>>,
}

impl Tally {
    /// Notes what the backend says of the object `name` of the sort `object`, where `scope` is what it
    /// belongs to if the name alone does not tell it from others. Says whether that is news.
    pub fn object(&mut self, object: Object, scope: Option<&str>, name: &str, state: State) -> bool {
        let key = key(object, scope, name);
        let full = self.states.len() >= TOLD_APART;
        let row = row(&mut self.rows, object);
        match self.states.entry(key) {
            Entry::Occupied(mut known) => {
                let before = *known.get();
                if before == state || state == State::Processing {
                    return false;
                }
                *row.slot(before) -= 1;
                *row.slot(state) += 1;
                known.insert(state);
            }
            Entry::Vacant(new) => {
                *row.slot(state) += 1;
                if !full {
                    new.insert(state);
                }
            }
        }
        true
    }

    /// Notes that the backend announced `count` objects.
    pub fn announced(&mut self, object: Object, count: u64) {
        let row = row(&mut self.rows, object);
        row.announced = row.announced.max(count);
    }

    /// Notes the numbers that the backend gives for a whole stage.
    pub fn summary(&mut self, object: Object, summary: Summary) {
        let row = row(&mut self.rows, object);
        row.summary.completed = row.summary.completed.max(summary.completed);
        row.summary.failed = row.summary.failed.max(summary.failed);
        row.summary.total = row.summary.total.max(summary.total);
    }

    /// The objects of the sort `object` as they stand.
    pub fn count(&self, object: Object) -> Count {
        self.rows
            .iter()
            .find(|(known, _)| *known == object)
            .map_or_else(Count::default, |(_, row)| row.count())
    }

    /// Everything as it stands.
    pub fn counts(&self) -> Counts {
        Counts(
            self.rows
                .iter()
                .map(|(object, row)| (*object, row.count()))
                .filter(|(_, count)| count.seen > 0)
                .collect(),
        )
    }
}

fn row(rows: &mut Vec<(Object, Row)>, object: Object) -> &mut Row {
    let at = rows.iter().position(|(known, _)| *known == object).unwrap_or_else(|| {
        rows.push((object, Row::default()));
        rows.len() - 1
    });
    &mut rows[at].1
}

fn key(object: Object, scope: Option<&str>, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (object, scope, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_events_about_one_object_are_one_object() {
        let mut tally = Tally::default();
        assert!(tally.object(Object::Device, None, "pve1", State::Processing));
        assert!(!tally.object(Object::Device, None, "pve1", State::Processing));
        assert!(tally.object(Object::Device, None, "pve1", State::Completed));
        assert!(!tally.object(Object::Device, None, "pve1", State::Completed));
        assert!(!tally.object(Object::Device, None, "pve1", State::Processing));
        assert_eq!(tally.count(Object::Device), Count { seen: 1, completed: 1, ..Count::default() });
    }

    #[test]
    fn interfaces_of_the_same_name_are_told_apart_by_what_they_belong_to() {
        let mut tally = Tally::default();
        assert!(tally.object(Object::VmInterface, Some("web01"), "net0", State::Processing));
        assert!(tally.object(Object::VmInterface, Some("web02"), "net0", State::Processing));
        assert_eq!(tally.count(Object::VmInterface).seen, 2);
    }

    #[test]
    fn the_last_word_about_an_object_counts() {
        let mut tally = Tally::default();
        assert!(tally.object(Object::VirtualMachine, None, "web01", State::Failed));
        assert!(tally.object(Object::VirtualMachine, None, "web01", State::Completed));
        assert_eq!(tally.count(Object::VirtualMachine), Count { seen: 1, completed: 1, ..Count::default() });
    }

    #[test]
    fn what_the_backend_never_mentions_again_is_unconfirmed() {
        let mut tally = Tally::default();
        tally.announced(Object::VirtualMachine, 12);
        tally.summary(Object::VirtualMachine, Summary { completed: 4, failed: 0, total: 4 });
        assert_eq!(
            tally.count(Object::VirtualMachine),
            Count { seen: 12, completed: 4, failed: 0, unconfirmed: 8 }
        );
    }

    #[test]
    fn objects_and_the_summary_of_their_stage_are_counted_once() {
        let mut tally = Tally::default();
        tally.announced(Object::VirtualMachine, 12);
        for name in ["a", "b", "c", "d"] {
            tally.object(Object::VirtualMachine, None, name, State::Completed);
        }
        tally.summary(Object::VirtualMachine, Summary { completed: 4, failed: 8, total: 12 });
        assert_eq!(
            tally.count(Object::VirtualMachine),
            Count { seen: 12, completed: 4, failed: 8, unconfirmed: 0 }
        );
    }
}
