//! Distinguishes objects in bounded memory.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use foldhash::{fast, quality};

use super::{EventForm, ObjectReport, ObjectStatus, Scope};
use crate::core::domain::object::Object;

/// The maximum number of objects that are distinguished: as many as fit into 4 MiB with the ids of their records.
/// Beyond it, objects count in the form that is reported first, and each end is that of one of the objects that have
/// begun, whichever it is.
const MAX_TRACKED: usize = (1 << 17) / 8 * 7;
/// The maximum number of objects of one type and name that are distinguished.
const MAX_PER_NAME: u16 = 64;

/// How well an object that has begun in the scope of a report matches it.
const BEST_FIT: u8 = 3;

/// The reports of one object. Zero means unreported.
#[derive(Clone, Copy, Debug, Default)]
struct Occurrence {
    owner: u32,
    cluster: u16,
    /// Its state in each form, in three bits each, and whether it is in NetBox under an id.
    states: u8,
    /// How often it was reported as started in each form, in four bits each.
    begun: u8,
}

impl Occurrence {
    fn state(self, form: EventForm) -> Option<ObjectStatus> {
        match self.states >> (3 * form as u8) & 0b111 {
            1 => Some(ObjectStatus::Processing),
            2 => Some(ObjectStatus::Checked),
            3 => Some(ObjectStatus::Completed),
            4 => Some(ObjectStatus::Failed),
            _ => None,
        }
    }

    fn set(&mut self, form: EventForm, state: ObjectStatus) {
        let shift = 3 * form as u8;
        self.states = self.states & !(0b111 << shift) | (state as u8 + 1) << shift;
    }

    /// Records that it has an id. Returns whether this is new.
    fn identify(&mut self) -> bool {
        const IDENTIFIED: u8 = 1 << 7;
        let is_news = self.states & IDENTIFIED == 0;
        self.states |= IDENTIFIED;
        is_news
    }

    fn begun(self, form: EventForm) -> u8 {
        self.begun >> (4 * form as u8) & 0b1111
    }

    /// Changes the number of starts by `change`.
    fn count_begun(&mut self, form: EventForm, change: i8) {
        let shift = 4 * form as u8;
        let begun = self.begun(form).saturating_add_signed(change).min(0b1111);
        self.begun = self.begun & !(0b1111 << shift) | begun << shift;
    }

    /// Whether another object of the same name started in its place and has failed now.
    fn hides_failure(self, report: ObjectReport) -> bool {
        let has_failed = self.state(report.form) == Some(ObjectStatus::Failed);
        has_failed && report.state == ObjectStatus::Failed && self.begun(report.form) > 1
    }

    /// Its status. If the two forms disagree, the worse one counts.
    fn outcome(self) -> ObjectStatus {
        let states = [EventForm::Frame, EventForm::Item].map(|form| self.state(form));
        let ends = [ObjectStatus::Failed, ObjectStatus::Completed, ObjectStatus::Checked];
        ends.into_iter().find(|end| states.contains(&Some(*end))).unwrap_or(ObjectStatus::Processing)
    }

    fn is_elsewhere(self, place: Self) -> bool {
        let differ = |one: u32, other: u32| one != 0 && other != 0 && one != other;
        differ(self.owner, place.owner) || differ(self.cluster.into(), place.cluster.into())
    }

    fn add(&mut self, place: Self) {
        self.owner = if self.owner == 0 { place.owner } else { self.owner };
        self.cluster = if self.cluster == 0 { place.cluster } else { self.cluster };
    }

    /// How well an object matches a report; higher is better. `None` if the report cannot be about it.
    fn fits(self, report: ObjectReport, place: Self) -> Option<u8> {
        let ObjectReport { form, state, is_part, .. } = report;
        if self.is_elsewhere(place) || self.hides_failure(report) {
            return None;
        }
        match (self.state(form), state) {
            (Some(_), _) if is_part => Some(0),
            (Some(ObjectStatus::Processing), ObjectStatus::Processing) => Some(0),
            (Some(ObjectStatus::Processing), _)
                if self.owner == place.owner && self.cluster == place.cluster =>
            {
                Some(BEST_FIT)
            }
            (Some(ObjectStatus::Processing), _) => Some(2),
            (None, _) => Some(1),
            (Some(status), state) if status == state => Some(0),
            // It has ended, and an object of its name starts, or ends with another status.
            (Some(_), _) => None,
        }
    }
}

/// The objects of a type that are not distinguished.
#[derive(Debug, Default)]
struct Undistinguished {
    /// The form in which they count: that of the first report of a whole object.
    form: Option<EventForm>,
    /// How many have begun and not ended.
    begun: u64,
    /// The failures reported in each form. The larger number counts.
    failed: [u64; 2],
}

impl Undistinguished {
    /// Counts a report. Returns the previous status of its object: the reported status if the report does not count.
    fn observe(&mut self, report: ObjectReport) -> Option<ObjectStatus> {
        let ObjectReport { form, state, is_part, .. } = report;
        if !is_part {
            self.form.get_or_insert(form);
        }
        let counts = if state == ObjectStatus::Failed {
            let most = self.failed.into_iter().max();
            self.failed[form as usize] += 1;
            Some(self.failed[form as usize]) > most
        } else {
            self.form.is_none_or(|counted| counted == form)
        };
        if !counts {
            return Some(state);
        }
        let before = (self.begun > 0 && (is_part || state != ObjectStatus::Processing))
            .then_some(ObjectStatus::Processing);
        match state {
            ObjectStatus::Processing if before.is_none() => self.begun += 1,
            ObjectStatus::Processing => {}
            _ => self.begun = self.begun.saturating_sub(1),
        }
        before
    }
}

/// The identity of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectIdentity(u64);

/// The effect of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct TallyChange {
    pub(super) identity: ObjectIdentity,
    /// The previous status of the object, if any.
    pub(super) before: Option<ObjectStatus>,
    pub(super) after: ObjectStatus,
    /// Whether the same form did not report this before.
    pub(super) is_first: bool,
    /// Whether it turned out to be in NetBox under the id of another object.
    pub(super) is_duplicate: bool,
}

/// All reported objects.
///
/// An object is identified by its type, its name and its scope. Many events omit the scope. In that case, an object
/// that has ended and starts again, or ends with another status, counts as another object of the same name.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    seen: HashMap<ObjectIdentity, Occurrence, fast::RandomState>,
    /// The NetBox records of the objects.
    records: HashSet<ObjectIdentity, fast::RandomState>,
    undistinguished: HashMap<Object, Undistinguished, fast::RandomState>,
    /// Hashes what identifies an object. SipHash takes a tenth of the time of a frame.
    hasher: quality::RandomState,
}

impl Occurrences {
    pub(super) fn observe(
        &mut self,
        object: Object,
        scope: &Scope<'_>,
        name: &str,
        report: ObjectReport,
    ) -> TallyChange {
        let place = Occurrence {
            owner: scope.owner.as_deref().map_or(0, |owner| self.hasher.hash_one(owner) as u32 | 1),
            cluster: scope.cluster.as_deref().map_or(0, |cluster| self.hasher.hash_one(cluster) as u16 | 1),
            states: 0,
            begun: 0,
        };
        let mut hidden = None;
        let mut best: Option<(u8, ObjectIdentity)> = None;
        for ordinal in 0..MAX_PER_NAME {
            let identity = self.identity(object, scope, name, ordinal);
            let Some(occurrence) = self.seen.get(&identity) else {
                if let Some(hidden) = hidden.filter(|_| best.is_none_or(|(fits, _)| fits <= 1)) {
                    // Neither is one meant that has failed already: there are more that began.
                    best = best.filter(|(fits, _)| *fits > 0);
                    self.seen.entry(hidden).and_modify(|hidden| hidden.count_begun(report.form, -1));
                }
                let target = best.map_or(identity, |(_, best)| best);
                return self.update(object, target, place, report);
            };
            if occurrence.hides_failure(report) {
                hidden.get_or_insert(identity);
            }
            let fits = occurrence.fits(report, place);
            if let Some(fits) = fits.filter(|fits| best.is_none_or(|(best, _)| *fits > best)) {
                best = Some((fits, identity));
                if fits == BEST_FIT {
                    break;
                }
            }
        }
        match best {
            Some((_, identity)) => self.update(object, identity, place, report),
            // Beyond the limit, only the ends of objects are counted.
            None => {
                let before = (report.state == ObjectStatus::Processing).then_some(ObjectStatus::Processing);
                let identity = self.identity(object, scope, name, MAX_PER_NAME - 1);
                TallyChange { identity, before, after: report.state, is_first: true, is_duplicate: false }
            }
        }
    }

    fn update(
        &mut self,
        object: Object,
        identity: ObjectIdentity,
        place: Occurrence,
        report: ObjectReport,
    ) -> TallyChange {
        let ObjectReport { form, state, is_part, .. } = report;
        if self.seen.len() >= MAX_TRACKED && !self.seen.contains_key(&identity) {
            let before = self.undistinguished.entry(object).or_default().observe(report);
            return TallyChange { identity, before, after: state, is_first: true, is_duplicate: false };
        }
        let occurrence = self.seen.entry(identity).or_default();
        let before = (occurrence.states != 0).then(|| occurrence.outcome());
        let is_first = occurrence.state(form) != Some(state);
        occurrence.add(place);
        if !is_part || before.is_none() {
            occurrence.set(form, state);
        }
        if state == ObjectStatus::Processing && !is_part {
            occurrence.count_begun(form, 1);
        }
        let record = report.id.filter(|_| state == ObjectStatus::Completed && occurrence.identify());
        let record = record.map(|record| ObjectIdentity(self.hasher.hash_one((object, record))));
        let is_duplicate = record.is_some_and(|record| !self.records.insert(record));
        TallyChange { identity, before, after: occurrence.outcome(), is_first, is_duplicate }
    }

    /// Whether an object of this name has ended. `earlier` is the number of objects of the name reported before it.
    pub(super) fn has_ended(&self, object: Object, name: &str, earlier: u16) -> bool {
        let occurrence = self.seen.get(&self.identity(object, &Scope::default(), name, earlier));
        occurrence.is_some_and(|occurrence| occurrence.outcome() != ObjectStatus::Processing)
    }

    fn identity(&self, object: Object, scope: &Scope<'_>, name: &str, ordinal: u16) -> ObjectIdentity {
        let owner = scope.owner.as_deref().filter(|_| object.is_scoped());
        ObjectIdentity(self.hasher.hash_one((object, owner, name, ordinal)))
    }
}

#[cfg(test)]
mod tests {
    use crate::core::domain::object::Object;
    use crate::core::run::tally::{EventForm, ObjectReport, ObjectStatus, Scope, Tally};

    use ObjectStatus::{Completed, Failed, Processing};

    /// The counts of virtual machines of one name after `events`.
    fn count(events: &[(EventForm, ObjectStatus)]) -> [u64; 4] {
        let mut tally = Tally::default();
        for (form, state) in events.iter().copied() {
            let report = ObjectReport::new(form, state);
            tally.record(Object::VirtualMachine, &Scope::default(), "web01", report);
        }
        super::super::tests::count(&tally)
    }

    #[test]
    fn as_many_objects_of_one_name_fail_as_have_begun_in_either_form() {
        for (states, expected) in [
            (vec![Processing, Completed], [1, 1, 0, 0]),
            (vec![Processing, Failed], [1, 0, 1, 0]),
            (vec![Processing, Processing, Failed], [1, 0, 1, 0]),
            (vec![Processing, Failed, Failed], [1, 0, 1, 0]),
            (vec![Processing, Processing, Failed, Failed], [2, 0, 2, 0]),
            (vec![Processing, Processing, Failed, Failed, Failed], [2, 0, 2, 0]),
            ([[Processing; 3], [Failed; 3]].concat(), [3, 0, 3, 0]),
            ([[Processing; 3], [Failed; 3], [Failed; 3]].concat(), [3, 0, 3, 0]),
        ] {
            for form in [EventForm::Frame, EventForm::Item] {
                let events: Vec<_> = states.iter().map(|state| (form, *state)).collect();
                assert_eq!(count(&events), expected, "{events:?}");
            }
        }
    }

    #[test]
    fn two_objects_of_one_name_reported_in_both_forms_are_two() {
        let [frame, item] = [EventForm::Frame, EventForm::Item].map(|form| move |state| (form, state));
        let begun = [frame(Processing), item(Processing), frame(Processing), item(Processing)];
        let failed = [frame(Failed), frame(Failed), item(Failed), item(Failed), frame(Failed), item(Failed)];
        assert_eq!(count(&[begun.as_slice(), failed.as_slice()].concat()), [2, 0, 2, 0]);
    }

    #[test]
    fn of_two_objects_of_one_name_the_one_that_began_in_the_cluster_of_a_report_is_meant() {
        let [frame, item] =
            [EventForm::Frame, EventForm::Item].map(|form| move |state| ObjectReport::new(form, state));
        let [anywhere, there] =
            [None, Some("lab")].map(|cluster| Scope { cluster: cluster.map(Into::into), ..Scope::default() });
        let mut tally = Tally::default();
        for (scope, report) in [
            (&anywhere, item(Completed)),
            (&there, item(Processing)),
            (&anywhere, frame(Processing)),
            (&there, frame(Processing)),
            (&there, frame(Failed)),
            (&there, item(Failed)),
            (&anywhere, frame(Completed)),
        ] {
            tally.record(Object::VirtualMachine, scope, "web01", report);
        }
        assert_eq!(super::super::tests::count(&tally), [2, 1, 1, 0]);
    }

    #[test]
    fn names_over_the_tracking_limit_take_no_memory_and_tracked_objects_still_end() {
        let mut known = super::Occurrences::default();
        let mut take = |name: &str, state| {
            let report = ObjectReport::new(EventForm::Frame, state);
            known.observe(Object::VirtualMachine, &Scope::default(), name, report).after
        };
        for number in 0..super::MAX_TRACKED {
            take(&number.to_string(), Processing);
        }
        assert_eq!((take("one more", Processing), take("0", Failed)), (Processing, Failed));
        assert_eq!(known.seen.len(), super::MAX_TRACKED);
        assert!(known.has_ended(Object::VirtualMachine, "0", 0));
    }

    #[test]
    fn objects_over_the_tracking_limit_begin_and_end_once() {
        let mut take = count_untracked();
        let report = |state| ObjectReport::new(EventForm::Frame, state);
        let part = ObjectReport { is_part: true, ..report(Processing) };
        for (name, report, expected) in [
            ("a", report(Processing), [1, 0, 0, 1]),
            ("b", report(Processing), [2, 0, 0, 2]),
            ("b", part, [2, 0, 0, 2]),
            ("b", report(Completed), [2, 1, 0, 1]),
            ("a", report(Failed), [2, 1, 1, 0]),
            // It has not begun.
            ("c", report(Completed), [3, 2, 1, 0]),
            ("d", part, [4, 2, 1, 1]),
        ] {
            assert_eq!(take(name, report), expected, "{name}");
        }
    }

    #[test]
    fn objects_over_the_tracking_limit_that_are_reported_in_both_forms_count_once() {
        let mut take = count_untracked();
        let [frame, item] =
            [EventForm::Frame, EventForm::Item].map(|form| move |state| ObjectReport::new(form, state));
        for (name, report, expected) in [
            ("unfinished", frame(Processing), [1, 0, 0, 1]),
            ("a", frame(Processing), [2, 0, 0, 2]),
            ("a", item(Processing), [2, 0, 0, 2]),
            ("a", frame(Completed), [2, 1, 0, 1]),
            ("a", item(Completed), [2, 1, 0, 1]),
            ("b", frame(Processing), [3, 1, 0, 2]),
            ("b", item(Failed), [3, 1, 1, 1]),
            ("b", frame(Failed), [3, 1, 1, 1]),
            ("c", frame(Failed), [3, 1, 2, 0]),
            ("c", item(Failed), [3, 1, 2, 0]),
        ] {
            assert_eq!(take(name, report), expected, "{name} {report:?}");
        }
    }

    /// Counts reports of virtual machines beside as many others as are distinguished.
    fn count_untracked() -> impl FnMut(&str, ObjectReport) -> [u64; 4] {
        let mut tally = Tally::default();
        let mut take = move |name: &str, report| {
            tally.record(Object::VirtualMachine, &Scope::default(), name, report);
            super::super::tests::count(&tally)
        };
        for number in 0..super::MAX_TRACKED {
            take(&number.to_string(), ObjectReport::new(EventForm::Frame, Completed));
        }
        let tracked = super::MAX_TRACKED as u64;
        move |name, report| {
            let [seen, completed, failed, unconfirmed] = take(name, report);
            [seen - tracked, completed - tracked, failed, unconfirmed]
        }
    }
}
