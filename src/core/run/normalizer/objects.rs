//! Objects: how they are counted, and which steps they produce.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash};

use super::Normalizer;
use crate::core::domain::counting::CountSource;
use crate::core::domain::counts::Count;
use crate::core::domain::event::{Step, StepStatus};
use crate::core::domain::figures::Figures;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::{FailedObject, ObjectFailure};
use crate::core::run::tally::{EventForm, ObjectReport, ObjectStatus, ReportedCounts, Scope};
use crate::core::text::detail::SENTENCE;
use crate::core::text::{plain, shortened};
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::wire::sse::frame::Frame;

/// The number of failed objects named in the detail of a failed run. The record keeps this many of the first and of
/// the last ones.
pub(super) const MAX_NAMED: usize = 5;
/// The maximum length of the name of a failed object, of its cluster and of its owner, in characters.
const MAX_NAME: usize = 120;
/// The error of virtual machines whose failure follows from the order of events.
const NOT_CONFIRMED: &str = "the backend ended the stage without having confirmed it";
const ENDED_EARLY: &str =
    "the backend ended the stage early, as it does when one has failed, or a part of one";

/// A failed object, or several unnamed ones.
#[derive(Clone, Debug)]
pub(super) struct FailedGroup {
    /// The number of objects it stands for.
    count: u64,
    pub(super) object: FailedObject,
}

/// The first and the last items of a long sequence.
#[derive(Debug, Default)]
pub(super) struct FailureSample {
    pub(super) first: Vec<FailedGroup>,
    pub(super) last: VecDeque<FailedGroup>,
}

impl FailureSample {
    fn push(&mut self, failed: FailedGroup) {
        if self.first.len() < MAX_NAMED {
            self.first.push(failed);
            return;
        }
        if self.last.len() == MAX_NAMED {
            self.last.pop_front();
        }
        self.last.push_back(failed);
    }
}

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
}

/// Lists the first of `failed` objects with their errors, in roughly `limit` characters.
pub(super) fn summarize_failures(first: &[FailedGroup], limit: usize, failed: u64) -> String {
    let same_error = first.chunk_by(|one, other| one.object.error == other.object.error);
    let text = same_error.map(|failed| {
        let objects: Vec<&str> = failed.iter().map(|failed| failed.object.object.as_str()).collect();
        format!("{}: {}", objects.join(", "), failed[0].object.error.trim_end_matches('.'))
    });
    let mut text = shortened(&text.collect::<Vec<_>>().join("; "), limit);
    let more = failed.saturating_sub(first.iter().map(|failed| failed.count).sum());
    if more > 0 && !text.is_empty() {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

impl Normalizer {
    /// Records the names of all objects of a type that the backend is going to process.
    pub fn note_listed(&mut self, object: Object, names: Vec<String>) {
        if !names.is_empty() {
            self.tally.add_announced(object, names.len() as u64, names);
        }
    }

    /// Records that a frame about an object arrived after the end of its stage.
    pub fn note_straggler(&mut self) {
        self.leg.has_stragglers = true;
    }

    /// Records that the backend confirms each synced object before it ends their stage, unless one has failed.
    pub fn confirms_each(&mut self, object: Object, out: &mut Vec<Frame>) {
        let has_stragglers = self.leg.has_stragglers;
        let Count { seen, completed, unconfirmed, .. } = self.tally.count(object);
        if seen == 0 {
            return;
        }
        self.tally.confirms_each(object);
        if has_stragglers && unconfirmed == 0 && self.tally.is_listed(object) {
            let warning = format!(
                "The backend ended the stage of {} early: a part of one has failed.",
                object.plural()
            );
            self.write_note(object.as_str(), Cow::Owned(warning.clone()), out);
            self.summary.warnings.push(warning);
        } else if completed > 0 && (has_stragglers || unconfirmed > 0) {
            self.tally.at_least_failed(object, 1);
            self.leg.unreported_reason = Some((NOT_CONFIRMED, ENDED_EARLY));
        }
    }

    /// Applies the numbers of a stage to the counts.
    pub(super) fn apply_figures(&mut self, stage: &Stage<'_>, figures: Figures) {
        if let Stage::Known(kind) = stage {
            let numbers = CountSource::for_kind(*kind, self.release).reported_counts(figures);
            self.tally.add_reported(kind.row().object, numbers);
        }
    }

    /// The scope of an object. Failed node interfaces do not name their node, so the node reported last is used: nodes
    /// are processed one after the other.
    pub(super) fn on_node<'a>(&mut self, object: Object, name: &str, scope: Scope<'a>) -> Scope<'a> {
        match object {
            Object::NodeInterface => self.node = Some(name.to_owned()),
            Object::Interface if scope.owner.is_none() => {
                return Scope { owner: self.node.clone().map(Cow::Owned), ..scope };
            }
            _ => {}
        }
        scope
    }

    /// Writes that `count` unnamed objects failed.
    pub(super) fn apply_unnamed(&mut self, object: Object, count: u64, error: &str, out: &mut Vec<Frame>) {
        let described = unnamed_message(count, object.as_str());
        let step = Step::stage(object.as_str(), StepStatus::Failed, format!("Failed: {described}"));
        self.write(&Step { error: Some(error.into()), ..step }, out);
        let failure = ObjectFailure {
            object,
            name: String::new(),
            cluster: None,
            owner: None,
            count,
            error: plain(error, SENTENCE).into_owned(),
        };
        self.record_failure(FailedObject { object: described, error: error.to_owned() }, failure);
    }

    /// What the state of an object means for the counts.
    pub(super) fn report(
        &mut self,
        object: Object,
        form: EventForm,
        state: &ObjectState<'_>,
    ) -> ObjectReport {
        let report = |state| ObjectReport::new(form, state);
        match state {
            ObjectState::Processing => report(ObjectStatus::Processing),
            ObjectState::Failed { is_part: true, .. } => {
                ObjectReport { is_part: true, ..report(ObjectStatus::Processing) }
            }
            ObjectState::Failed { .. } => report(ObjectStatus::Failed),
            ObjectState::Completed { id, .. } => ObjectReport { id: *id, ..report(ObjectStatus::Completed) },
            ObjectState::Checked { found, written, .. } => {
                // Interfaces of nodes have rows of their own.
                let found = found.filter(|_| object != Object::NodeInterface).unwrap_or_default();
                let report = ObjectReport { found, ..report(ObjectStatus::Checked) };
                match CountSource::for_kind(Kind::VirtualDisks, self.release) {
                    CountSource::LargestDiskRow if object == Object::VirtualDisk => {
                        let numbers = ReportedCounts { written: Some(found), ..ReportedCounts::default() };
                        self.tally.add_reported(object, numbers);
                        report
                    }
                    _ => ObjectReport { written: *written, ..report },
                }
            }
        }
    }

    /// The step of an object, without its payload. Records a failure.
    pub(super) fn object_step<'a>(
        &mut self,
        (object, word): (Object, Cow<'a, str>),
        scope: &Scope<'_>,
        name: Cow<'a, str>,
        state: ObjectState<'a>,
    ) -> Step<'a> {
        let remark = |warning: Option<Cow<'_, str>>| {
            warning.map(|warning| format!(" (warning: {warning})")).unwrap_or_default()
        };
        let (status, message, error) = match state {
            ObjectState::Processing if !object.has_rows() => {
                (StepStatus::Progress, format!("Checking {}", describe_checked(object, scope, &name)), None)
            }
            ObjectState::Processing => {
                (StepStatus::Progress, ["Processing ", &word, " ", &name].concat(), None)
            }
            ObjectState::Checked { found, warning, .. } => {
                let found = found.map(|found| format!(": {found} found")).unwrap_or_default();
                let looked_for = describe_checked(object, scope, &name);
                (StepStatus::Progress, format!("Checked {looked_for}{found}{}", remark(warning)), None)
            }
            ObjectState::Completed { warning, .. } => {
                (StepStatus::Completed, ["Synced ", &word, " ", &name, &remark(warning)].concat(), None)
            }
            ObjectState::Failed { error, is_part: partly } => {
                let owner = scope.owner.as_deref().filter(|owner| *owner != word);
                let owner = owner.map(|owner| shortened(owner, MAX_NAME));
                let short = shortened(&name, MAX_NAME);
                let described = match owner.as_ref().filter(|_| object.is_scoped()) {
                    _ if name.is_empty() => unnamed_message(1, &word),
                    Some(owner) => format!("{word} {short} of {owner}"),
                    None => format!("{word} {short}"),
                };
                let message = format!("Failed {described}: {error}");
                if !partly {
                    let failure = ObjectFailure {
                        object,
                        // The backend's word for an unknown type stands nowhere else.
                        name: if object == Object::Other { format!("{word} {short}") } else { short },
                        cluster: scope.cluster.as_deref().map(|cluster| shortened(cluster, MAX_NAME)),
                        owner,
                        count: 1,
                        error: plain(&error, SENTENCE).into_owned(),
                    };
                    let object = FailedObject { object: described, error: failure.error.clone() };
                    self.record_failure(object, failure);
                }
                (StepStatus::Failed, message, Some(error))
            }
        };
        let rowid = Some(name).filter(|name| !name.is_empty());
        Step { step: word, status, message: Cow::Owned(message), rowid, error, payload: None }
    }

    fn record_failure(&mut self, object: FailedObject, failure: ObjectFailure) {
        let failed = FailedGroup { count: failure.count, object };
        self.new_failures.push(failure);
        if self.leg.failed_objects.len() < MAX_NAMED {
            self.leg.failed_objects.push(failed.clone());
        }
        self.failure_sample.push(failed);
    }
}

/// The fact that the object `name` failed.
pub(super) fn failed_object(object: Object, name: String, error: String) -> Fact<'static> {
    Fact::Object {
        object: (object, object.as_str().into()),
        scope: Scope::default(),
        name: name.into(),
        form: EventForm::Frame,
        state: ObjectState::failed(error.into()),
        payload: None,
    }
}

/// The message for `count` unnamed objects that failed.
fn unnamed_message(count: u64, object: &str) -> String {
    format!("{count} {object}, not named by the backend")
}

/// `snapshots of web01`: the objects searched for in the owner `name`.
fn describe_checked(object: Object, scope: &Scope<'_>, name: &str) -> String {
    let name = match object {
        Object::VirtualDisk => name.strip_suffix("-disks").unwrap_or(name),
        _ => name,
    };
    match &scope.owner {
        Some(owner) if object.is_scoped() => format!("{} of {name} on {owner}", object.plural()),
        _ => format!("{} of {name}", object.plural()),
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
    }
}
