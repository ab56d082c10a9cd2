//! From what happened to what readers are told.
//!
//! The normaliser holds the wire contract: it begins the stream, counts objects, drops what readers
//! trip over, judges the end and writes it once. It can be asked to write at any time; before the
//! beginning and after the end it writes nothing.

mod verdict;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use serde_json::value::RawValue;

use super::counting::{COUNTS_OBJECTS, Counting};
use super::detail::{SENTENCE, stage_of};
use super::event::{Failure, Status, Step, Told};
use super::fact::{Fact, ObjectState, Stage};
use super::figures::Figures;
use super::kind::Kind;
use super::lenient::Number;
use super::object::Object;
use super::outcome::FailedObject;
use super::policy::Policies;
use super::release::Release;
use super::sse::{Frame, Stream};
use super::tally::{Count, Form, Numbers, Said, Scope, State, Tally};
use super::text::{plain, shortened};

/// How many failed objects are named in the detail of a failed run, and how many of the first and of the
/// last ones in its record.
const NAMED: usize = 5;
/// The errors of virtual machines that failed by the order of events.
const NOT_CONFIRMED: &str = "the backend ended the stage without having confirmed it";
const ENDED_EARLY: &str =
    "the backend ended the stage early, as it does when one has failed, or a part of one";
/// How many other names of virtual machines are kept.
const RENAMED: usize = 4096;
/// How much of the name of an object that failed is kept, in characters.
const NAME: usize = 120;
/// How much of the failed objects and of other failures stands in the final message of a run that did not fail, in
/// characters.
const HEADLINE: usize = 200;
/// How much of its error stands in the final message of one that did, in characters of JSON. The whole of it stands
/// beside it.
const FAILED_HEADLINE: usize = 120;
/// How many warnings of a run of several legs are kept.
const WARNINGS: usize = 5;

/// What the operator and the client want of the stream.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// When failed objects fail the run.
    pub object_failures: Policies,
    /// Pass the backend's own event types on.
    pub all_events: bool,
    /// Keep the backend's own account of an object in its step.
    pub payloads: bool,
}

/// The backend's last word on a leg.
#[derive(Debug)]
struct LastWord {
    ok: Option<bool>,
    message: String,
    detail: Option<String>,
}

/// An object that failed, or several that nobody names.
#[derive(Clone, Debug)]
struct Failed {
    /// How many objects it stands for.
    count: u64,
    object: FailedObject,
}

/// The first and the last of many.
#[derive(Debug, Default)]
struct Remembered {
    first: Vec<Failed>,
    last: VecDeque<Failed>,
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
fn in_short(first: &[Failed], limit: usize, failed: u64) -> String {
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

/// Turns facts into frames.
#[derive(Debug)]
pub struct Normalizer {
    kind: Kind,
    options: Options,
    /// The backend's release, as far as it is known.
    release: Option<Release>,
    /// There is a stream between its first step and its end.
    stream: Option<Stream>,
    tally: Tally,
    started: Vec<Kind>,
    finished: Vec<Kind>,
    skipped: Vec<Kind>,
    /// Why the run was skipped, if it is not that the backend has no such sync.
    why_skipped: Option<String>,
    told: Told,
    /// The first objects of the leg that failed, and why.
    failed_objects: Vec<Failed>,
    /// The first and the last objects of the run that failed.
    remembered: Remembered,
    /// The node whose interfaces were told of last.
    node: Option<String>,
    /// The names in Proxmox of virtual machines that have others in NetBox, by the latter.
    renamed: HashMap<String, String>,
    /// The first things that failed and are no single object.
    troubles: Vec<String>,
    dropped: u64,
    unreadable: u64,
    leg: Leg,
}

/// What is known of the part of the run that is going on.
#[derive(Debug, Default)]
struct Leg {
    /// The one stage that it is, where the run has more.
    stage: Option<Kind>,
    before: Count,
    aborted: Option<Failure>,
    trouble: Option<Failure>,
    last_word: Option<LastWord>,
    /// Why objects failed that the backend did not tell of, if the order of its events says so: one that is named, and
    /// others.
    why_untold: Option<(&'static str, &'static str)>,
}

impl Normalizer {
    /// A normaliser for a run of `kind`.
    pub fn new(kind: Kind, options: Options) -> Self {
        Self {
            kind,
            options,
            release: None,
            stream: None,
            tally: Tally::default(),
            started: Vec::new(),
            finished: Vec::new(),
            skipped: Vec::new(),
            why_skipped: None,
            told: Told::default(),
            failed_objects: Vec::new(),
            remembered: Remembered::default(),
            node: None,
            renamed: HashMap::new(),
            troubles: Vec::new(),
            dropped: 0,
            unreadable: 0,
            leg: Leg::default(),
        }
    }

    /// Notes what is known of the backend that is driven.
    pub fn drives(&mut self, release: Option<Release>) {
        self.release = release;
    }

    /// Notes that the backend sends an event of the type `name`, which dates it if its release is not known.
    pub fn hears(&mut self, name: &str) {
        if self.release.is_none() && matches!(name, "discovery" | "item_progress" | "phase_summary") {
            self.release = Some(COUNTS_OBJECTS);
        }
    }

    /// Tells what the run waits for, before it begins.
    pub fn wait(&mut self, message: &str, out: &mut Vec<Frame>) {
        let step = Step::stage(self.kind.row().step, Status::Started, message);
        self.begin(&step, out);
    }

    /// Begins the run.
    pub fn start(&mut self, out: &mut Vec<Frame>) {
        if !self.started.contains(&self.kind) {
            self.started.push(self.kind);
            self.begin(&starting(self.kind), out);
        }
    }

    /// Writes `step`, at the beginning of the stream if there is none.
    fn begin(&mut self, step: &Step<'_>, out: &mut Vec<Frame>) {
        match &mut self.stream {
            Some(stream) => out.push(stream.step(step)),
            None => {
                let (stream, frame) = Stream::start(step);
                self.stream = Some(stream);
                out.push(frame);
            }
        }
    }

    /// Tells that the stages `kinds` are about to be driven.
    pub fn begin_leg(&mut self, kinds: &[Kind], out: &mut Vec<Frame>) {
        let stage = kinds.first().copied().filter(|kind| *kind != self.kind);
        self.leg = Leg { stage, before: self.tally.counts().total(), ..Leg::default() };
        self.failed_objects.clear();
        if let Some(kind) = kinds.first() {
            self.stage_started(*kind, out);
        }
    }

    /// Tells readers something about the run that is no part of its work.
    pub fn notice(&mut self, notice: &str, out: &mut Vec<Frame>) {
        self.write(&Step::stage(self.kind.row().step, Status::Progress, notice), out);
    }

    /// Tells that the backend cannot do the stage `kind`, or that it is not done for the reason `why`.
    pub fn skip(&mut self, kind: Kind, why: Option<String>, out: &mut Vec<Frame>) {
        self.skipped.push(kind);
        let row = kind.row();
        let title = capitalized(row.title);
        let reason =
            why.as_ref().map_or_else(|| format!("this backend {}.", self.cannot("it")), Clone::clone);
        let message = format!("{title} synchronization skipped: {reason}");
        self.why_skipped = why;
        self.write(&Step::stage(row.step, Status::Progress, message), out);
    }

    /// Takes a fact.
    pub fn take(&mut self, fact: Fact<'_>, out: &mut Vec<Frame>) {
        match fact {
            Fact::StageStarted(Stage::Known(kind)) => self.stage_started(kind, out),
            Fact::StageStarted(Stage::Other(word)) => {
                let message = format!("Starting {word} synchronization.");
                self.write(&Step::stage(word, Status::Started, message), out);
            }
            Fact::StageFinished { stage, figures } => {
                self.figures(&stage, figures);
                match stage {
                    Stage::Known(kind) => self.stage_finished(kind, out),
                    Stage::Other(word) => {
                        let message = format!("{} synchronization finished.", capitalized(&word));
                        self.write(&Step::stage(word, Status::Completed, message), out);
                    }
                }
            }
            Fact::Object { object: (object, word), scope, name, form, state, payload } => {
                let scope = self.on_node(object, &name, scope);
                // A part that failed is news also of an object that is known.
                let is_partly = matches!(state, ObjectState::Failed { partly: true, .. });
                if !self.count(object, &scope, &name, form, &state) && !is_partly {
                    self.dropped += 1;
                    return;
                }
                let payload = payload.filter(|_| self.options.payloads);
                self.object((object, word), &scope, name, state, payload, out);
            }
            Fact::Renamed { from, to } => {
                let message = format!("Name {from} is taken, using {to} instead");
                if self.renamed.len() < RENAMED {
                    self.renamed.insert(to.into_owned(), from.into_owned());
                }
                self.note(Object::VirtualMachine.as_str(), Cow::Owned(message), out);
            }
            Fact::Unnamed { object, count, error } => {
                self.tally.nameless_failed(object, Form::Frame, count.min(Number::MOST));
                self.unnamed(object, count, &error, out);
            }
            Fact::Discovered { stage, count, names, message } => {
                if let (Some(object), Some(count)) =
                    (stage.object().filter(|object| object.has_rows()), count)
                {
                    self.tally.announced(object, count, names);
                }
                self.note(stage.step(), message, out);
            }
            Fact::Summary { stage, figures, message } => {
                self.figures(&stage, figures);
                self.note(stage.step(), message, out);
            }
            Fact::Note { step, message } => self.note(&step, message, out),
            Fact::Trouble(failure) => self.trouble(failure, out),
            Fact::Aborted(failure) => {
                self.leg.aborted.get_or_insert(failure);
            }
            Fact::Complete { ok, message, detail, told } => {
                for (object, count) in &told.objects.0 {
                    self.tally.counted(*object, *count);
                }
                let kind = self.leg.stage.unwrap_or(self.kind);
                self.figures(&Stage::Known(kind), Figures::of(&told));
                for (stage, figures) in Figures::of_stages(&told) {
                    if kind == Kind::FullUpdate || kind == stage {
                        self.figures(&Stage::Known(stage), figures);
                    }
                }
                for (stage, names) in &told.names {
                    let of_stage = stage_of(stage).map(|kind| kind.row().object);
                    if let Some(object) = of_stage.filter(|object| object.has_rows()) {
                        let names = names.iter().map(|name| self.renamed.get(name).unwrap_or(name).clone());
                        let names = names.collect();
                        self.tally.recorded(object, names);
                    }
                }
                for (name, error) in told.failed.clone() {
                    self.take(failed_object(Object::Sdn, name, error), out);
                }
                self.tell(told);
                let word = LastWord { ok, message, detail };
                // Of two last words the worse one is believed.
                if self.leg.last_word.as_ref().is_none_or(|known| known.ok == Some(true)) {
                    self.leg.last_word = Some(word);
                }
            }
            Fact::Nothing => self.dropped += 1,
        }
    }

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

    fn figures(&mut self, stage: &Stage<'_>, figures: Figures) {
        if let Stage::Known(kind) = stage {
            let numbers = Counting::of(*kind, self.release).numbers(figures);
            self.tally.numbers(kind.row().object, numbers);
        }
    }

    /// Where an object is. Interfaces of nodes that failed do not say on which: nodes are worked on one after the other.
    fn on_node<'a>(&mut self, object: Object, name: &str, scope: Scope<'a>) -> Scope<'a> {
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
    fn unnamed(&mut self, object: Object, count: u64, error: &str, out: &mut Vec<Frame>) {
        let failed = FailedObject { object: unnamed(count, object.as_str()), error: error.to_owned() };
        let message = format!("Failed: {}", failed.object);
        let step = Step::stage(object.as_str(), Status::Failed, message);
        self.write(&Step { error: Some(error.into()), ..step }, out);
        self.failed(Failed { count, object: failed });
    }

    /// Counts an object. Says whether what is said of it is news.
    fn count(
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

    /// Keeps what a leg says of its result. What has a name of its own in a run of one leg needs that of
    /// its stage in a run of several.
    fn tell(&mut self, told: Told) {
        let Some(stage) = self.leg.stage else {
            self.told = told;
            return;
        };
        let name = format!("{}_count", stage.as_str().replace('-', "_"));
        if let Some((_, count)) = told.numbers.iter().find(|(name, _)| name == "count") {
            self.told.numbers.retain(|(known, _)| *known != name);
            self.told.numbers.push((name, *count));
        }
        self.told.warnings.extend(told.warnings);
        self.told.warnings.truncate(WARNINGS);
        self.told.degraded |= told.degraded;
    }

    /// Passes an event of the backend's own type on, if the client asked for such.
    pub fn extra(&mut self, name: &str, data: &str, out: &mut Vec<Frame>) {
        if !self.options.all_events {
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        if let Ok(raw) = serde_json::from_str::<&RawValue>(data) {
            out.extend(stream.extra(name, raw));
        }
    }

    /// Notes an event that could not be read.
    pub fn unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// Tells that the stage `kind` is done.
    pub fn stage_finished(&mut self, kind: Kind, out: &mut Vec<Frame>) {
        if self.finished.contains(&kind) || (kind == Kind::FullUpdate) {
            return;
        }
        self.finished.push(kind);
        let row = kind.row();
        let message = format!("{} synchronization finished.", capitalized(row.title));
        self.write(&Step::stage(row.step, Status::Completed, message), out);
    }

    /// Whether the backend has said its last word on this leg: an `error` is one, whatever follows (R9).
    pub fn has_last_word(&self) -> bool {
        self.leg.last_word.is_some() || self.leg.aborted.is_some()
    }

    /// Whether something failed on this leg that is no single object.
    pub fn has_trouble(&self) -> bool {
        self.leg.trouble.is_some()
    }

    /// Events that became no step: what no reader needs, and second accounts of the same thing.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Events that could not be read.
    pub fn unreadable_events(&self) -> u64 {
        self.unreadable
    }

    /// The first and the last objects of the run that failed.
    pub fn failed_objects(&self) -> Vec<FailedObject> {
        let remembered = self.remembered.first.iter().chain(&self.remembered.last);
        remembered.map(|failed| failed.object.clone()).collect()
    }

    /// The objects of the run as they stand.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn stage_started(&mut self, kind: Kind, out: &mut Vec<Frame>) {
        if !self.started.contains(&kind) {
            self.started.push(kind);
            self.write(&starting(kind), out);
        }
    }

    fn object(
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
                    name => format!("{word} {}", shortened(name, NAME)),
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

    fn note(&mut self, step: &str, message: Cow<'_, str>, out: &mut Vec<Frame>) {
        if message.is_empty() {
            self.dropped += 1;
            return;
        }
        let step = if step.is_empty() { self.kind.row().step } else { step };
        self.write(&Step::stage(step, Status::Progress, message), out);
    }

    fn trouble(&mut self, failure: Failure, out: &mut Vec<Frame>) {
        let step = if failure.step.is_empty() { self.kind.row().step } else { &failure.step };
        let error = plain(&failure.detail, SENTENCE);
        let message = format!("Failed: {}", failure.error);
        self.write(&Step { error: Some(error), ..Step::stage(step, Status::Failed, message) }, out);
        if self.troubles.len() < NAMED {
            self.troubles.push(failure.error.clone());
        }
        self.leg.trouble = Some(failure);
    }

    fn write(&mut self, step: &Step<'_>, out: &mut Vec<Frame>) {
        if let Some(stream) = &mut self.stream {
            out.push(stream.step(step));
        }
    }
}

fn starting(kind: Kind) -> Step<'static> {
    let row = kind.row();
    Step::stage(row.step, Status::Started, format!("Starting {} synchronization.", row.title))
}

/// That the object `name` has failed.
fn failed_object(object: Object, name: String, error: String) -> Fact<'static> {
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

fn capitalized(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
