//! Counts objects, each once, whichever events report it.
//!
//! A backend reports its objects in rows, one event per object, and in numbers, one event per stage. Rows say which
//! object; numbers say how many. If the two disagree, the lower number of completed objects counts, and the number of
//! failures is never less than was reported.

mod occurrences;

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::object::Object;
use occurrences::{ObjectIdentity, Occurrences, TallyChange};

/// The status of an object in a backend's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectStatus {
    /// It is being processed.
    Processing,
    /// It was inspected. It is not counted itself.
    Checked,
    /// It is synced.
    Completed,
    /// It failed.
    Failed,
}

/// The form in which a backend reports an object. Releases since 0.0.7 report each object in both forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventForm {
    /// A frame of `/ws`, or a `step` around it.
    Frame,
    /// `item_progress` or `error_detail`.
    Item,
}

/// A backend's report of one object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectReport {
    /// The form of the report.
    pub form: EventForm,
    /// The status of the object.
    pub state: ObjectStatus,
    /// It reports a part of the object, and implies only that the object exists.
    pub is_part: bool,
    /// How many objects were found in the inspected object.
    pub found: u64,
    /// How many of those were written.
    pub written: u64,
    /// The id of the object's record in NetBox.
    pub id: Option<u64>,
}

impl ObjectReport {
    /// A report of `state` alone.
    pub fn new(form: EventForm, state: ObjectStatus) -> Self {
        Self { form, state, is_part: false, found: 0, written: 0, id: None }
    }
}

/// Where an object belongs, if the backend reports it. Objects of one name in two scopes are distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// Its cluster.
    pub cluster: Option<Cow<'a, str>>,
    /// The node or virtual machine it belongs to.
    pub owner: Option<Cow<'a, str>>,
}

/// The backend's numbers for the objects of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportedCounts {
    /// Objects that are in NetBox now, without the failed ones.
    pub completed: Option<u64>,
    /// Distinct records in NetBox.
    pub records: Option<u64>,
    /// Objects written by this run. Others may have existed unchanged.
    pub written: Option<u64>,
    /// Objects that failed.
    pub failed: u64,
    /// The total number of objects.
    pub total: u64,
    /// Objects that were discovered and skipped. All others are in NetBox or have failed.
    pub skipped: Option<u64>,
    /// Whether every object has a row if any has one.
    pub at_most_rows: bool,
    /// Whether discovered objects that are not in `completed` have failed.
    pub rest_failed: bool,
}

impl ReportedCounts {
    /// Merges two reports. The lower number of objects in NetBox and the higher number of failures count.
    fn merge(self, other: Self) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            completed: least(self.completed, other.completed),
            records: least(self.records, other.records),
            written: self.written.max(other.written),
            failed: self.failed.max(other.failed),
            total: self.total.max(other.total),
            skipped: self.skipped.max(other.skipped),
            at_most_rows: self.at_most_rows || other.at_most_rows,
            rest_failed: self.rest_failed || other.rest_failed,
        }
    }
}

#[derive(Debug, Default)]
struct TallyRow {
    /// Objects reported in rows, by status.
    processing: u64,
    completed: u64,
    failed: u64,
    /// Objects reported as completed whose NetBox record is that of another object.
    duplicates: u64,
    /// Unnamed failed objects, by the form of the report.
    unnamed: [u64; 2],
    /// Objects announced as a number.
    announced: u64,
    /// Objects found in inspected objects, by the form of the report.
    found: [u64; 2],
    /// The found objects that were written.
    written: [u64; 2],
    /// The backend's numbers.
    numbers: ReportedCounts,
    /// The minimum number of failed objects, by the order of events.
    at_least_failed: u64,
    /// The names in the backend's list of planned objects.
    listed: Vec<String>,
    /// The names of the records in its result.
    recorded: Vec<String>,
    /// The count of another bridge between this one and the backend.
    from_bridge: Option<Count>,
}

impl TallyRow {
    fn reported_failures(&self) -> u64 {
        self.failed.saturating_add(self.unnamed.into_iter().max().unwrap_or_default())
    }

    fn count(&self, object: Object) -> Count {
        if let Some(count) = self.from_bridge {
            return count;
        }
        let ReportedCounts { completed, failed, total, skipped, rest_failed, .. } = self.numbers;
        let missing = match completed {
            Some(completed) if rest_failed => self.announced.saturating_sub(completed),
            _ => 0,
        };
        let failed = self.reported_failures().max(failed).max(missing).max(self.at_least_failed);
        let ended = self.processing.saturating_add(self.reported_failures()).max(self.at_least_failed);
        let reported = ended.saturating_add(self.completed);
        // Found objects are where they were searched for. A failed search found none.
        let found = self.found.into_iter().max().unwrap_or_default();
        let amounts = [found, self.reported_completed().unwrap_or_default()]
            .map(|amount| amount.saturating_add(failed));
        let seen = amounts.into_iter().chain([total]).fold(reported, u64::max);
        // A file is announced once for every node that sees it.
        let seen = if object == Object::Backup && seen > 0 { seen } else { seen.max(self.announced) };
        let counted = match skipped {
            Some(skipped) => seen.saturating_sub(failed).saturating_sub(skipped),
            None => self.reported_completed().unwrap_or(self.completed - self.duplicates),
        };
        let completed = counted.min(seen - failed);
        Count { seen, completed, failed, unconfirmed: seen - failed - completed }
    }

    /// The number of completed objects by the backend's numbers.
    fn reported_completed(&self) -> Option<u64> {
        let ReportedCounts { completed, records, written, at_most_rows, .. } = self.numbers;
        let rows = self.processing + self.completed + self.failed;
        let completed =
            completed.map(|completed| if at_most_rows && rows > 0 { completed.min(rows) } else { completed });
        let completed = completed.map(|completed| completed.saturating_sub(self.duplicates));
        let completed = completed.into_iter().chain(records).min();
        let written = self.written.into_iter().filter(|written| *written > 0).chain(written).max();
        completed.or_else(|| written.map(|written| written.max(self.completed)))
    }

    /// Whether the backend reports that nothing is in NetBox.
    fn reports_none(&self) -> bool {
        // Another bridge has already decided by its own count.
        self.from_bridge.is_none()
            && (self.reported_completed() == Some(0) && self.numbers.written.is_none() || self.has_skipped())
    }

    fn has_skipped(&self) -> bool {
        self.numbers.skipped.is_some_and(|skipped| skipped > 0)
    }

    fn slot(&mut self, state: ObjectStatus) -> Option<&mut u64> {
        match state {
            ObjectStatus::Processing => Some(&mut self.processing),
            ObjectStatus::Checked => None,
            ObjectStatus::Completed => Some(&mut self.completed),
            ObjectStatus::Failed => Some(&mut self.failed),
        }
    }
}

/// The maximum number of kept names of unfinished objects, and of names in a list.
const MAX_NAMES: usize = 4096;
/// The maximum length of such a name, in characters.
const MAX_NAME: usize = 120;

/// The counts of a run in progress.
#[derive(Debug, Default)]
pub struct Tally {
    rows: Vec<(Object, TallyRow)>,
    occurrences: Occurrences,
    /// The names of unfinished objects, each with a sequence number of its start.
    open: HashMap<ObjectIdentity, (u64, Object, String), RandomState>,
    begun: u64,
    /// Some unfinished objects exceed the limit and are not kept.
    has_more_open: bool,
}

impl Tally {
    /// Records the backend's report of the object `name` of type `object` in `scope`. Returns whether it is new.
    pub fn record(&mut self, object: Object, scope: &Scope<'_>, name: &str, report: ObjectReport) -> bool {
        let change = self.occurrences.observe(object, scope, name, report);
        let TallyChange { identity, before, after, is_first, is_duplicate } = change;
        let row = row(&mut self.rows, object);
        if is_first {
            for (sum, more) in [(&mut row.found, report.found), (&mut row.written, report.written)] {
                let sum = &mut sum[report.form as usize];
                *sum = sum.saturating_add(more);
            }
        }
        row.duplicates += u64::from(is_duplicate);
        if before == Some(after) {
            return false;
        }
        // For an inspected object, only a failure counts.
        let counts = |state| object.has_rows() || state == ObjectStatus::Failed;
        if let Some(slot) = before.filter(|state| counts(*state)).and_then(|state| row.slot(state)) {
            *slot -= 1;
        }
        if let Some(slot) = row.slot(after).filter(|_| counts(after)) {
            *slot += 1;
        }
        if after != ObjectStatus::Processing {
            self.open.remove(&identity);
        } else if self.open.len() < MAX_NAMES {
            self.begun += 1;
            let end = name.char_indices().nth(MAX_NAME);
            let name = end.map_or(name, |(end, _)| &name[..end]);
            self.open.insert(identity, (self.begun, object, name.to_owned()));
        } else {
            self.has_more_open = true;
        }
        true
    }

    /// Records that `count` unnamed objects failed. Returns whether this is new.
    pub fn add_unnamed_failures(&mut self, object: Object, form: EventForm, count: u64) -> bool {
        let row = row(&mut self.rows, object);
        let before = row.reported_failures();
        let nameless = &mut row.unnamed[form as usize];
        *nameless = nameless.saturating_add(count);
        row.reported_failures() > before
    }

    /// Records that the backend announced `count` objects, and their names.
    pub fn add_announced(&mut self, object: Object, count: u64, names: Vec<String>) {
        let row = row(&mut self.rows, object);
        row.announced = row.announced.max(count);
        // A second list may contain other objects or the same ones.
        let is_kept = row.listed.is_empty()
            && names.len() <= MAX_NAMES
            && names.iter().all(|name| name.len() <= MAX_NAME);
        row.listed = if is_kept { names } else { Vec::new() };
    }

    /// Records the backend's numbers for a whole stage.
    pub fn add_reported(&mut self, object: Object, numbers: ReportedCounts) {
        let counts = &mut row(&mut self.rows, object).numbers;
        *counts = counts.merge(numbers);
    }

    /// Records that the release confirms each object it has synced.
    pub fn confirms_each(&mut self, object: Object) {
        let completed = row(&mut self.rows, object).completed;
        self.add_reported(object, ReportedCounts { completed: Some(completed), ..ReportedCounts::default() });
    }

    /// Records that at least `count` objects failed.
    pub fn at_least_failed(&mut self, object: Object, count: u64) {
        let row = row(&mut self.rows, object);
        row.at_least_failed = row.at_least_failed.max(count);
    }

    /// Records the names of the objects of a type in the backend's result.
    pub fn add_recorded(&mut self, object: Object, names: Vec<String>) {
        row(&mut self.rows, object).recorded = names;
    }

    /// Records how another bridge between this one and the backend counted the run's objects.
    pub fn set_counted(&mut self, object: Object, count: Count) {
        row(&mut self.rows, object).from_bridge = Some(count);
    }

    /// The current count of the objects of type `object`.
    pub fn count(&self, object: Object) -> Count {
        self.row(object).map_or_else(Count::default, |row| row.count(object))
    }

    /// The current counts of all types.
    pub fn counts(&self) -> Counts {
        let counts = self.rows.iter().map(|(object, row)| (*object, row.count(*object)));
        Counts(counts.filter(|(_, count)| count.seen > 0).collect())
    }

    /// Whether the backend's own numbers report no objects of this type.
    pub fn has_nothing(&self, object: Object) -> bool {
        let has_numbers =
            |row: &TallyRow| row.reported_completed().is_some() || row.numbers.skipped.is_some();
        self.row(object).is_some_and(|row| row.count(object).seen == 0 && has_numbers(row))
    }

    /// Whether the backend itself reports that none of the objects of this type is in NetBox, provided that none was seen
    /// to be completed: it is also true if some were skipped.
    pub fn reports_none(&self, object: Object) -> bool {
        self.row(object).is_some_and(TallyRow::reports_none)
    }

    /// Whether the backend counts the failed objects of this type.
    pub fn counts_failures(&self, object: Object) -> bool {
        self.row(object).is_some_and(|row| row.numbers.failed >= row.count(object).failed)
    }

    /// Whether all objects of this type are known by name.
    pub fn is_listed(&self, object: Object) -> bool {
        self.row(object).is_some_and(|row| !row.listed.is_empty())
    }

    /// Whether the backend skipped objects it had discovered.
    pub fn has_skipped(&self, object: Object) -> bool {
        self.row(object).is_some_and(TallyRow::has_skipped)
    }

    /// The number of failed objects that have no row.
    pub fn unreported_failures(&self, object: Object) -> u64 {
        self.row(object).map_or(0, |row| match row.from_bridge {
            Some(_) => 0,
            None => row.count(object).failed - row.reported_failures(),
        })
    }

    /// The names of the unfinished objects of a type, if all of them are known.
    pub fn unfinished(&self, object: Object) -> Vec<String> {
        let Some(row) = self.row(object).filter(|_| !self.has_more_open) else { return Vec::new() };
        if row.listed.is_empty() {
            let mut open: Vec<_> = self.open.values().filter(|(_, known, _)| *known == object).collect();
            open.sort_unstable_by_key(|(begun, ..)| *begun);
            return open.into_iter().map(|(_, _, name)| name.clone()).collect();
        }
        let mut earlier: HashMap<&str, u16> = HashMap::new();
        let mut recorded: HashMap<&str, usize> = HashMap::new();
        for name in &row.recorded {
            *recorded.entry(name).or_default() += 1;
        }
        let mut unended = Vec::new();
        for name in &row.listed {
            let mentions = earlier.entry(name).or_default();
            let has_ended = self.occurrences.has_ended(object, name, *mentions);
            *mentions = mentions.saturating_add(1);
            match recorded.get_mut(name.as_str()).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None if has_ended => {}
                None => unended.push(name.clone()),
            }
        }
        unended
    }

    /// Where the backend reports more completed objects in rows than it counts: the object type and both numbers.
    pub fn mismatches(&self) -> impl Iterator<Item = (Object, u64, u64)> {
        self.rows.iter().filter_map(|(object, row)| {
            let counted = row.reported_completed().unwrap_or(row.completed - row.duplicates);
            let disagrees = row.completed > counted && row.from_bridge.is_none();
            disagrees.then_some((*object, row.completed, counted))
        })
    }

    fn row(&self, object: Object) -> Option<&TallyRow> {
        self.rows.iter().find(|(known, _)| *known == object).map(|(_, row)| row)
    }
}

fn row(rows: &mut Vec<(Object, TallyRow)>, object: Object) -> &mut TallyRow {
    let at = rows.iter().position(|(known, _)| *known == object).unwrap_or_else(|| {
        rows.push((object, TallyRow::default()));
        rows.len() - 1
    });
    &mut rows[at].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tally: &mut Tally, name: &str, state: ObjectStatus) -> bool {
        tally.record(
            Object::VirtualMachine,
            &Scope::default(),
            name,
            ObjectReport::new(EventForm::Frame, state),
        )
    }

    /// The counts of virtual machines: seen, completed, failed, unconfirmed.
    pub(super) fn count(tally: &Tally) -> [u64; 4] {
        let Count { seen, completed, failed, unconfirmed } = tally.count(Object::VirtualMachine);
        [seen, completed, failed, unconfirmed]
    }

    #[test]
    fn a_long_name_of_an_unfinished_object_is_cut() {
        let mut tally = Tally::default();
        let names = [MAX_NAME, MAX_NAME + 1].map(|length| "é".repeat(length));
        for name in &names {
            frame(&mut tally, name, ObjectStatus::Processing);
        }
        assert_eq!(tally.unfinished(Object::VirtualMachine), [names[0].as_str(), &names[0]]);
    }

    #[test]
    fn two_events_about_one_object_are_one_object() {
        let mut tally = Tally::default();
        assert!(frame(&mut tally, "web01", ObjectStatus::Processing));
        assert!(!frame(&mut tally, "web01", ObjectStatus::Processing));
        assert!(frame(&mut tally, "web01", ObjectStatus::Completed));
        assert!(!frame(&mut tally, "web01", ObjectStatus::Completed));
        assert_eq!(count(&tally), [1, 1, 0, 0]);
    }

    #[test]
    fn reports_in_two_forms_are_of_one_object() {
        let mut tally = Tally::default();
        let item = |tally: &mut Tally, state| {
            tally.record(
                Object::VirtualMachine,
                &Scope::default(),
                "web01",
                ObjectReport::new(EventForm::Item, state),
            )
        };
        assert!(item(&mut tally, ObjectStatus::Processing));
        assert!(item(&mut tally, ObjectStatus::Completed));
        assert!(!frame(&mut tally, "web01", ObjectStatus::Processing), "it is done");
        assert!(!frame(&mut tally, "web01", ObjectStatus::Completed));
        assert_eq!(count(&tally), [1, 1, 0, 0]);
        assert!(item(&mut tally, ObjectStatus::Processing), "another one of its name");
        assert!(!frame(&mut tally, "web01", ObjectStatus::Processing));
        assert!(frame(&mut tally, "web01", ObjectStatus::Failed));
        assert!(!item(&mut tally, ObjectStatus::Completed), "of two words the worse one is believed");
        assert_eq!(count(&tally), [2, 1, 1, 0]);
    }

    #[test]
    fn an_interface_is_known_by_what_it_belongs_to() {
        let mut tally = Tally::default();
        for owner in ["web01", "web02"] {
            let scope = Scope { owner: Some(owner.into()), ..Scope::default() };
            let begun = ObjectReport::new(EventForm::Frame, ObjectStatus::Processing);
            assert!(tally.record(Object::VmInterface, &scope, "net0", begun));
        }
        assert_eq!(tally.count(Object::VmInterface).seen, 2);
    }

    #[test]
    fn many_objects_of_one_name_take_no_more_time_than_they_are_worth() {
        let mut tally = Tally::default();
        for _ in 0..1000 {
            frame(&mut tally, "web01", ObjectStatus::Processing);
            frame(&mut tally, "web01", ObjectStatus::Completed);
        }
        assert_eq!(count(&tally), [64, 64, 0, 0]);
        frame(&mut tally, "web01", ObjectStatus::Failed);
        assert_eq!(count(&tally), [65, 64, 1, 0], "what failed is counted whatever it costs");
    }

    #[test]
    fn a_report_of_a_part_makes_no_second_object() {
        let mut tally = Tally::default();
        let part =
            ObjectReport { is_part: true, ..ObjectReport::new(EventForm::Frame, ObjectStatus::Processing) };
        for name in ["web01", "web02"] {
            frame(&mut tally, name, ObjectStatus::Processing);
            frame(&mut tally, name, ObjectStatus::Completed);
            tally.record(Object::VirtualMachine, &Scope::default(), name, part);
        }
        tally.record(Object::VirtualMachine, &Scope::default(), "web03", part);
        assert_eq!(count(&tally), [3, 2, 0, 1]);
    }

    #[test]
    fn numbers_beyond_all_measure_stay_numbers() {
        let mut tally = Tally::default();
        let most = ReportedCounts {
            completed: Some(u64::MAX),
            failed: u64::MAX,
            total: 1,
            ..ReportedCounts::default()
        };
        for object in [Object::Device, Object::VirtualMachine] {
            tally.add_reported(object, most);
            tally.add_announced(object, u64::MAX, Vec::new());
            let found = ObjectReport {
                found: u64::MAX,
                written: u64::MAX,
                ..ObjectReport::new(EventForm::Frame, ObjectStatus::Checked)
            };
            for name in ["a", "b"] {
                tally.record(object, &Scope::default(), name, found);
            }
        }
        assert_eq!(tally.counts().total().seen, u64::MAX);
        assert!(tally.count(Object::Device).adds_up());
    }

    #[test]
    fn objects_and_the_numbers_of_their_stage_are_counted_once() {
        let mut tally = Tally::default();
        tally.add_announced(Object::VirtualMachine, 12, Vec::new());
        for name in ["a", "b", "c", "d"] {
            frame(&mut tally, name, ObjectStatus::Completed);
        }
        let numbers =
            ReportedCounts { completed: Some(4), failed: 8, total: 12, ..ReportedCounts::default() };
        tally.add_reported(Object::VirtualMachine, numbers);
        assert_eq!(count(&tally), [12, 4, 8, 0]);
        assert_eq!(tally.unreported_failures(Object::VirtualMachine), 8);
    }

    #[test]
    fn a_number_that_is_no_larger_than_the_rows_counts_if_there_are_none() {
        let mut tally = Tally::default();
        let numbers = ReportedCounts { completed: Some(3), at_most_rows: true, ..ReportedCounts::default() };
        tally.add_reported(Object::VirtualMachine, numbers);
        assert_eq!(count(&tally), [3, 3, 0, 0]);
        frame(&mut tally, "a", ObjectStatus::Completed);
        assert_eq!(count(&tally), [1, 1, 0, 0]);
    }

    #[test]
    fn only_a_list_that_is_whole_names_what_is_left() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut tally = Tally::default();
        tally.add_announced(Object::VirtualMachine, 3, names(&["a", "b", "b"]));
        frame(&mut tally, "b", ObjectStatus::Completed);
        assert_eq!(tally.unfinished(Object::VirtualMachine), ["a", "b"]);
        tally.add_recorded(Object::VirtualMachine, names(&["a", "b"]));
        assert_eq!(tally.unfinished(Object::VirtualMachine), ["b"]);
        // The objects of a second list are unclear. Only started and unfinished objects are known.
        tally.add_announced(Object::VirtualMachine, 2, names(&["c", "d"]));
        let begun = ["h", "a", "g", "b", "f", "c", "e"];
        assert!(begun.iter().all(|name| frame(&mut tally, name, ObjectStatus::Processing)));
        assert_eq!(tally.unfinished(Object::VirtualMachine), begun);
    }
}
