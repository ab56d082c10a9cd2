//! Counting objects, each once, whichever event tells of it.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash, Hasher};

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

    /// What has come since `before`. The last word about an object counts, so that a number may also
    /// have gone down.
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
    /// Objects created or updated.
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
    /// Objects summed up by the backend itself, by what became of them.
    summary: Summary,
    /// Objects that the backend handled in a finished stage. Some releases count those that failed too.
    handled: u64,
    /// What another bridge has counted, which has heard the backend itself.
    counted: Option<Count>,
}

impl Row {
    /// Events of single objects and numbers for the whole stage tell of the same objects, so the
    /// larger one of the two is the better informed.
    fn count(&self) -> Count {
        if let Some(count) = self.counted {
            return count;
        }
        let completed = self.completed.max(self.summary.completed);
        let failed = self.failed.max(self.summary.failed);
        let told = self.processing + self.completed + self.failed;
        let numbers = [self.announced, self.summary.total, self.handled, completed.saturating_add(failed)];
        let seen = numbers.into_iter().fold(told, u64::max);
        // A finished stage confirms the objects that nobody said have failed.
        let completed = completed.max(self.handled.min(seen - failed));
        Count { seen, completed, failed, unconfirmed: (seen - failed).saturating_sub(completed) }
    }

    fn slot(&mut self, state: State) -> &mut u64 {
        match state {
            State::Processing => &mut self.processing,
            State::Completed => &mut self.completed,
            State::Failed => &mut self.failed,
        }
    }
}

/// How many objects are told apart: as many as fit into 2.25 MiB. Past this, memory is worth more than
/// telling two events about one object from events about two.
const TOLD_APART: usize = (1 << 18) / 8 * 7;

/// An object and its state in eight bytes: the hash of its name, with its state in the two lowest bits.
#[derive(Clone, Copy, Debug)]
struct Known(u64);

impl Known {
    fn new(key: u64, state: State) -> Self {
        Self(key & !0b11 | state as u64)
    }

    fn state(self) -> State {
        match self.0 & 0b11 {
            0 => State::Processing,
            1 => State::Completed,
            _ => State::Failed,
        }
    }
}

// Its state says nothing about which object it is.
impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0 >> 2 == other.0 >> 2
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.0 >> 2).hash(hasher);
    }
}

/// The count of a run while it runs.
#[derive(Debug, Default)]
pub struct Tally {
    rows: Vec<(Object, Row)>,
    known: HashSet<Known, BuildHasherDefault<DefaultHasher>>,
}

impl Tally {
    /// Notes what the backend says of the object `name` of the sort `object`, where `scope` is what it
    /// belongs to if the name alone does not tell it from others. Says whether that is news.
    pub fn object(&mut self, object: Object, scope: Option<&str>, name: &str, state: State) -> bool {
        let told = Known::new(key(object, scope, name), state);
        let row = row(&mut self.rows, object);
        if let Some(before) = self.known.get(&told).map(|known| known.state()) {
            if before == state || state == State::Processing {
                return false;
            }
            *row.slot(before) -= 1;
            self.known.replace(told);
        } else if self.known.len() < TOLD_APART {
            self.known.insert(told);
        }
        *row.slot(state) += 1;
        true
    }

    /// Notes that the backend announced `count` objects.
    pub fn announced(&mut self, object: Object, count: u64) {
        let row = row(&mut self.rows, object);
        row.announced = row.announced.max(count);
    }

    /// Notes how many objects the backend says it handled in a stage that is done.
    pub fn handled(&mut self, object: Object, count: u64) {
        let row = row(&mut self.rows, object);
        row.handled = row.handled.max(count);
    }

    /// Notes the numbers that the backend gives for a whole stage.
    pub fn summary(&mut self, object: Object, summary: Summary) {
        let row = row(&mut self.rows, object);
        row.summary.completed = row.summary.completed.max(summary.completed);
        row.summary.failed = row.summary.failed.max(summary.failed);
        row.summary.total = row.summary.total.max(summary.total);
    }

    /// Notes how another bridge between this one and the backend has counted the objects of a run.
    pub fn counted(&mut self, object: Object, count: Count) {
        row(&mut self.rows, object).counted = Some(count);
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
    fn the_count_of_a_finished_stage_does_not_confirm_what_failed() {
        let mut tally = Tally::default();
        for name in ["a", "b", "c"] {
            tally.object(Object::VirtualDisk, None, name, State::Failed);
        }
        tally.object(Object::VirtualDisk, None, "d", State::Processing);
        tally.handled(Object::VirtualDisk, 4);
        assert_eq!(
            tally.count(Object::VirtualDisk),
            Count { seen: 4, completed: 1, failed: 3, unconfirmed: 0 }
        );
    }

    #[test]
    fn numbers_beyond_all_measure_stay_numbers() {
        let mut tally = Tally::default();
        let most = Summary { completed: u64::MAX, failed: u64::MAX, total: 1 };
        tally.summary(Object::Device, most);
        tally.summary(Object::VirtualMachine, most);
        assert_eq!(tally.counts().total().seen, u64::MAX);
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
