//! Objects: how they are counted, and what readers are told of each.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::value::RawValue;

use super::Normalizer;
use crate::core::domain::counting::Counting;
use crate::core::domain::event::{Status, Step};
use crate::core::domain::figures::Figures;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::FailedObject;
use crate::core::run::tally::{Count, Form, Numbers, Said, Scope, State};
use crate::core::text::detail::SENTENCE;
use crate::core::text::{plain, shortened};
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::wire::sse::encoder::Frame;

/// How many failed objects are named in the detail of a failed run, and how many of the first and of the
/// last ones in its record.
pub(super) const NAMED: usize = 5;
/// How much of the name of an object that failed is kept, in characters.
const NAME: usize = 120;
/// The errors of virtual machines that failed by the order of events.
const NOT_CONFIRMED: &str = "the backend ended the stage without having confirmed it";
const ENDED_EARLY: &str =
    "the backend ended the stage early, as it does when one has failed, or a part of one";

/// An object that failed, or several that nobody names.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// How many objects it stands for.
    count: u64,
    pub(super) object: FailedObject,
}

/// The first and the last of many.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) first: Vec<Failed>,
    pub(super) last: VecDeque<Failed>,
}

impl Remembered {
    fn push(&mut self, failed: Failed) {
        if self.first.len() < NAMED {
            self.first.push(failed);
            return;
        }
        if self.last.len() == NAMED {
            self.last.pop_front();
        }
        self.last.push_back(failed);
    }
}

/// The first of `failed` objects, and why they failed, in not much more than `limit` characters.
pub(super) fn in_short(first: &[Failed], limit: usize, failed: u64) -> String {
    let same_error = first.chunk_by(|one, other| one.object.error == other.object.error);
    let named = same_error.map(|failed| {
        let objects: Vec<&str> = failed.iter().map(|failed| failed.object.object.as_str()).collect();
        format!("{}: {}", objects.join(", "), failed[0].object.error.trim_end_matches('.'))
    });
    let mut named = shortened(&named.collect::<Vec<_>>().join("; "), limit);
    let more = failed.saturating_sub(first.iter().map(|failed| failed.count).sum());
    if more > 0 && !named.is_empty() {
        named.push_str(&format!("; and {more} more"));
    }
    named
}

impl Normalizer {
    /// Notes the names of all objects of a sort that the backend is going to work on.
    pub fn lists(&mut self, object: Object, names: Vec<String>) {
        if !names.is_empty() {
            self.tally.announced(object, names.len() as u64, names);
        }
    }

    /// Notes that the backend confirms each object that it has synced before it ends their stage, unless one has
    /// failed, and whether it said anything of one behind that.
    pub fn confirms_each(&mut self, object: Object, has_stragglers: bool, out: &mut Vec<Frame>) {
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
            self.note(object.as_str(), Cow::Owned(warning.clone()), out);
            self.told.warnings.push(warning);
        } else if completed > 0 && (has_stragglers || unconfirmed > 0) {
            self.tally.at_least_failed(object, 1);
            self.leg.why_untold = Some((NOT_CONFIRMED, ENDED_EARLY));
        }
    }

    /// Counts what the numbers of a stage say.
    pub(super) fn figures(&mut self, stage: &Stage<'_>, figures: Figures) {
        if let Stage::Known(kind) = stage {
            let numbers = Counting::of(*kind, self.release).numbers(figures);
            self.tally.numbers(kind.row().object, numbers);
        }
    }

    /// Where an object is. Interfaces of nodes that failed do not say on which: nodes are worked on one after the
    /// other.
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

    /// Tells of `count` objects that failed and are not named.
    pub(super) fn unnamed(&mut self, object: Object, count: u64, error: &str, out: &mut Vec<Frame>) {
        let failed = FailedObject { object: unnamed(count, object.as_str()), error: error.to_owned() };
        let message = format!("Failed: {}", failed.object);
        let step = Step::stage(object.as_str(), Status::Failed, message);
        self.write(&Step { error: Some(error.into()), ..step }, out);
        self.failed(Failed { count, object: failed });
    }

    /// Counts an object. Says whether what is said of it is news.
    pub(super) fn count(
        &mut self,
        object: Object,
        scope: &Scope<'_>,
        name: &str,
        form: Form,
        state: &ObjectState<'_>,
    ) -> bool {
        let said = |state| Said { form, state, is_part: false, found: 0, written: 0, id: None };
        let said = match state {
            ObjectState::Processing => said(State::Processing),
            ObjectState::Failed { partly: true, .. } => Said { is_part: true, ..said(State::Processing) },
            ObjectState::Completed { id, .. } => Said { id: *id, ..said(State::Completed) },
            ObjectState::Checked { found, written, .. } => {
                // Interfaces of nodes have rows of their own.
                let found = found.filter(|_| object != Object::NodeInterface).unwrap_or_default();
                let said = Said { found, ..said(State::Checked) };
                match Counting::of(Kind::VirtualDisks, self.release) {
                    Counting::LargestDiskRow if object == Object::VirtualDisk => {
                        let numbers = Numbers { written: Some(found), ..Numbers::default() };
                        self.tally.numbers(object, numbers);
                        said
                    }
                    _ => Said { written: *written, ..said },
                }
            }
            ObjectState::Failed { .. } if name.is_empty() => {
                return self.tally.nameless_failed(object, form, 1);
            }
            ObjectState::Failed { .. } => said(State::Failed),
        };
        let name =
            self.renamed.get(name).filter(|_| object == Object::VirtualMachine).map_or(name, String::as_str);
        self.tally.object(object, scope, name, said)
    }

    /// Tells readers what is said of an object.
    pub(super) fn object(
        &mut self,
        (object, word): (Object, Cow<'_, str>),
        scope: &Scope<'_>,
        name: Cow<'_, str>,
        state: ObjectState<'_>,
        payload: Option<&RawValue>,
        out: &mut Vec<Frame>,
    ) {
        let (status, message, error) = match state {
            ObjectState::Processing if !object.has_rows() => {
                (Status::Progress, format!("Checking {}", looked_for(object, scope, &name)), None)
            }
            ObjectState::Processing => (Status::Progress, format!("Processing {word} {name}"), None),
            ObjectState::Checked { found, warning, .. } => {
                let found = found.map(|found| format!(": {found} found")).unwrap_or_default();
                let warning = warning.map(|warning| format!(" (warning: {warning})")).unwrap_or_default();
                let looked_for = looked_for(object, scope, &name);
                (Status::Progress, format!("Checked {looked_for}{found}{warning}"), None)
            }
            ObjectState::Completed { warning: None, .. } => {
                (Status::Completed, format!("Synced {word} {name}"), None)
            }
            ObjectState::Completed { warning: Some(warning), .. } => {
                (Status::Completed, format!("Synced {word} {name} (warning: {warning})"), None)
            }
            ObjectState::Failed { error, partly } => {
                let object = match name.as_ref() {
                    "" => unnamed(1, &word),
                    name => match scope.owner.as_deref().filter(|owner| object.is_scoped() && *owner != word)
                    {
                        Some(owner) => {
                            format!("{word} {} of {}", shortened(name, NAME), shortened(owner, NAME))
                        }
                        None => format!("{word} {}", shortened(name, NAME)),
                    },
                };
                let message = format!("Failed {object}: {error}");
                if !partly {
                    let object = FailedObject { object, error: plain(&error, SENTENCE).into_owned() };
                    self.failed(Failed { count: 1, object });
                }
                (Status::Failed, message, Some(error))
            }
        };
        let rowid = Some(name).filter(|name| !name.is_empty());
        let step = Step { step: word, status, message: Cow::Owned(message), rowid, error, payload };
        self.write(&step, out);
    }

    fn failed(&mut self, failed: Failed) {
        if self.failed_objects.len() < NAMED {
            self.failed_objects.push(failed.clone());
        }
        self.remembered.push(failed);
    }
}

/// That the object `name` has failed.
pub(super) fn failed_object(object: Object, name: String, error: String) -> Fact<'static> {
    Fact::Object {
        object: (object, object.as_str().into()),
        scope: Scope::default(),
        name: name.into(),
        form: Form::Frame,
        state: ObjectState::failed(error.into()),
        payload: None,
    }
}

/// What stands for `count` objects that failed without a name.
fn unnamed(count: u64, word: &str) -> String {
    format!("{count} {word}, not named by the backend")
}

/// `snapshots of web01`, as the objects that are looked for in what is called `name`.
fn looked_for(object: Object, scope: &Scope<'_>, name: &str) -> String {
    let name = match object {
        Object::VirtualDisk => name.strip_suffix("-disks").unwrap_or(name),
        _ => name,
    };
    match &scope.owner {
        Some(owner) if object.is_scoped() => format!("{} of {name} on {owner}", object.plural()),
        _ => format!("{} of {name}", object.plural()),
    }
}
