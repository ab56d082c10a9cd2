//! From what happened to what readers are told.
//!
//! The normaliser holds the wire contract: it begins the stream, counts objects, drops what readers
//! trip over, judges the end and writes it once. It can be asked to write at any time; before the
//! beginning and after the end it writes nothing.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::detail::{SENTENCE, joined};
use super::event::{Failure, Status, Step, Told, Verdict};
use super::fact::{Fact, ObjectState, Stage};
use super::kind::Kind;
use super::object::Object;
use super::outcome::Cause;
use super::policy::ObjectFailures;
use super::sse::{Frame, Stream};
use super::tally::{Count, State, Tally};
use super::text::plain;

/// How many failed objects are named in the detail of a failed run.
const NAMED: usize = 5;
/// How much of an error stands in the final message, in characters.
const HEADLINE: usize = 200;
/// How many warnings of a run of several legs are kept.
const WARNINGS: usize = 5;

/// What the operator and the client want of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// When failed objects fail the run.
    pub object_failures: ObjectFailures,
    /// Pass the backend's own event types on.
    pub all_events: bool,
    /// Keep the backend's own account of an object in its step.
    pub payloads: bool,
}

/// An object that failed.
#[derive(Debug)]
struct FailedObject {
    /// Its sort and its name.
    object: String,
    error: String,
}

/// The backend's last word on a leg.
#[derive(Debug)]
struct LastWord {
    ok: Option<bool>,
    message: String,
    detail: Option<String>,
}

/// Turns facts into frames.
#[derive(Debug)]
pub struct Normalizer {
    kind: Kind,
    options: Options,
    /// There is a stream between its first step and its end.
    stream: Option<Stream>,
    tally: Tally,
    started: Vec<Kind>,
    finished: Vec<Kind>,
    skipped: Vec<Kind>,
    told: Told,
    /// The first objects of the leg that failed, and why.
    failed_objects: Vec<FailedObject>,
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
}

impl Normalizer {
    /// A normaliser for a run of `kind`.
    pub fn new(kind: Kind, options: Options) -> Self {
        Self {
            kind,
            options,
            stream: None,
            tally: Tally::default(),
            started: Vec::new(),
            finished: Vec::new(),
            skipped: Vec::new(),
            told: Told::default(),
            failed_objects: Vec::new(),
            troubles: Vec::new(),
            dropped: 0,
            unreadable: 0,
            leg: Leg::default(),
        }
    }

    /// The whole stream of a run of `kind` that an operator wants to end well although the backend cannot
    /// do it.
    pub fn skipped(kind: Kind) -> Vec<Bytes> {
        let mut normalizer = Self::new(kind, Options::default());
        let mut frames = Vec::new();
        normalizer.start(&mut frames);
        normalizer.skip(kind, &mut frames);
        normalizer.finish(None, &mut frames);
        frames.into_iter().map(|frame| frame.bytes).collect()
    }

    /// Begins the stream.
    pub fn start(&mut self, out: &mut Vec<Frame>) {
        if self.stream.is_some() || self.started.contains(&self.kind) {
            return;
        }
        self.started.push(self.kind);
        let (stream, frame) = Stream::start(&starting(self.kind));
        self.stream = Some(stream);
        out.push(frame);
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

    /// Tells that the backend cannot do the stage `kind`.
    pub fn skip(&mut self, kind: Kind, out: &mut Vec<Frame>) {
        self.skipped.push(kind);
        let row = kind.row();
        let title = capitalized(row.title);
        let message = format!("{title} synchronization skipped: this backend {}.", self.cannot("it"));
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
            Fact::StageFinished { stage, count } => {
                if let (Some(object), Some(count)) = (stage.object(), count) {
                    self.tally.handled(object, count);
                }
                match stage {
                    Stage::Known(kind) => self.stage_finished(kind, out),
                    Stage::Other(word) => {
                        let message = format!("{} synchronization finished.", capitalized(&word));
                        self.write(&Step::stage(word, Status::Completed, message), out);
                    }
                }
            }
            Fact::Object { object, scope, name, state, payload } => {
                let (told, partly) = match state {
                    ObjectState::Processing => (State::Processing, false),
                    ObjectState::Completed { .. } => (State::Completed, false),
                    ObjectState::Failed { partly, .. } => {
                        (if partly { State::Processing } else { State::Failed }, partly)
                    }
                };
                let news = self.tally.object(object.0, scope.as_deref(), &name, told);
                // A part that failed is news also of an object that is known.
                if !news && !partly {
                    self.dropped += 1;
                    return;
                }
                let payload = payload.filter(|_| self.options.payloads);
                self.object(object.1, name, state, payload, out);
            }
            Fact::Discovered { stage, count, message } => {
                if let (Some(object), Some(count)) = (stage.object(), count) {
                    self.tally.announced(object, count);
                }
                self.note(stage.step(), message, out);
            }
            Fact::Summary { stage, summary, message } => {
                if let Some(object) = stage.object() {
                    self.tally.summary(object, summary);
                }
                self.note(stage.step(), message, out);
            }
            Fact::Note { step, message } => self.note(&step, message, out),
            Fact::Trouble(failure) => self.trouble(failure, out),
            Fact::Aborted(failure) => {
                self.leg.aborted.get_or_insert(failure);
            }
            Fact::Complete { ok, message, detail, told } => {
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

    /// The objects of the run as they stand.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Why the leg has failed, by what the backend said and by the operator's policy. `ended` says
    /// what happened to a backend that said no last word, if it should have.
    pub fn leg_failure(&self, kind: Kind, ended: Option<Failure>) -> Option<Failure> {
        let step = kind.row().step;
        let known = |failure: &Failure| Failure {
            step: if failure.step.is_empty() { step.to_owned() } else { failure.step.clone() },
            ..failure.clone()
        };
        let trouble = self.leg.trouble.as_ref().map(known);
        if let Some(aborted) = &self.leg.aborted {
            let mut failure = known(aborted);
            let (message, detail) = match &self.leg.last_word {
                Some(word) => (Some(word.message.clone()), word.detail.clone()),
                None => (None, None),
            };
            if failure.error.is_empty() {
                failure.error = message.unwrap_or_default();
            }
            let more = [Some(failure.detail), detail, trouble.map(|trouble| trouble.detail)];
            failure.detail = joined(more.into_iter().flatten().collect());
            return Some(with_reason(failure));
        }
        if let Some(ended) = ended {
            let more = trouble.map(|trouble| trouble.detail);
            let detail = joined([Some(ended.detail.clone()), more].into_iter().flatten().collect());
            return Some(Failure { detail, ..ended });
        }
        match &self.leg.last_word {
            Some(LastWord { ok: Some(true), .. }) => self.objects_failed(kind),
            Some(LastWord { ok, message, detail }) => {
                let error = match ok {
                    Some(_) => message.clone(),
                    None => "The backend's final event does not say in a boolean whether the run is ok."
                        .to_owned(),
                };
                let detail = [detail.clone(), trouble.map(|trouble| trouble.detail)];
                let detail = joined(detail.into_iter().flatten().collect());
                Some(with_reason(Failure { step: step.to_owned(), error, detail }))
            }
            None => trouble.or_else(|| self.objects_failed(kind)),
        }
    }

    /// Why a leg that came to its own end has failed.
    pub fn cause_of_failure(&self) -> Cause {
        match &self.leg {
            Leg { aborted: Some(_), .. } | Leg { last_word: Some(LastWord { ok: Some(false), .. }), .. } => {
                Cause::BackendFailed
            }
            Leg { last_word: Some(LastWord { ok: None, .. }), .. } => Cause::BackendNonsense,
            Leg { trouble: Some(_), last_word: None, .. } => Cause::BackendFailed,
            _ => Cause::ObjectsFailed,
        }
    }

    fn objects_failed(&self, kind: Kind) -> Option<Failure> {
        let Count { seen, completed, failed, .. } = self.tally.counts().total().since(self.leg.before);
        let all_of = self.sort_that_failed();
        let is_failure = match self.options.object_failures {
            ObjectFailures::All => (failed > 0 && completed == 0) || all_of.is_some(),
            ObjectFailures::Any => failed > 0 || self.leg.trouble.is_some(),
            ObjectFailures::Never => false,
        };
        if let (true, 0, Some(trouble)) = (is_failure, failed, &self.leg.trouble) {
            return Some(with_reason(trouble.clone()));
        }
        is_failure.then(|| {
            let error = match all_of {
                Some((object, count)) => {
                    format!("{} of {} {object} objects failed, none completed.", count.failed, count.seen)
                }
                None if completed == 0 => format!("{failed} of {seen} objects failed, none completed."),
                None => format!("{failed} of {seen} objects failed, {completed} completed."),
            };
            let named: Vec<String> = self
                .failed_objects
                .iter()
                .map(|FailedObject { object, error }| format!("{object}: {error}"))
                .collect();
            let named = named.join("; ");
            let detail = if named.is_empty() { error.clone() } else { format!("{error} {named}") };
            Failure { step: kind.row().step.to_owned(), error, detail }
        })
    }

    /// A sort of objects of a documented kind that failed as far as it is known, in a run with more sorts.
    /// Three devices that completed do not make good twelve virtual machines that failed.
    fn sort_that_failed(&self) -> Option<(Object, Count)> {
        let documented = Kind::all().map(Kind::row).filter(|row| row.plugin_path.is_some());
        documented
            .filter(|row| row.counted)
            .map(|row| (row.object, self.tally.count(row.object)))
            .find(|(_, count)| count.failed > 0 && count.completed == 0)
    }

    /// What a backend cannot do, in the words for one run.
    fn cannot(&self, what: &str) -> String {
        match self.kind {
            Kind::FullUpdate => format!("cannot do {what} in a full update"),
            _ => format!("has no usable channel for {what}"),
        }
    }

    /// Ends the stream. Whatever came before, this is its last word.
    pub fn finish(&mut self, failure: Option<Failure>, out: &mut Vec<Frame>) {
        let Some(stream) = self.stream.take() else { return };
        let title = capitalized(self.kind.row().title);
        let counts = self.tally.counts();
        let mut message = match &failure {
            None if self.skipped.contains(&self.kind) => format!("{title} sync skipped."),
            None => format!("{title} sync completed."),
            // The whole of it stands in `error`; the counts behind it must not be cut off.
            Some(Failure { error, .. }) => {
                format!("{title} sync failed: {}", sentence(&plain(error, HEADLINE)))
            }
        };
        let Count { seen, completed, failed, unconfirmed } = counts.total();
        if seen > 0 {
            message.push_str(&format!(
                " {seen} object{}: {completed} completed, {failed} failed, {unconfirmed} unconfirmed.",
                if seen == 1 { "" } else { "s" }
            ));
        }
        if failure.is_none() && !self.troubles.is_empty() {
            message.push_str(&format!(
                " With trouble: {}",
                sentence(&plain(&self.troubles.join("; "), HEADLINE))
            ));
        }
        if !self.skipped.is_empty() {
            let names: Vec<&str> = self.skipped.iter().map(|kind| kind.row().title).collect();
            let cannot = self.cannot("them");
            message.push_str(&format!(" Skipped, because this backend {cannot}: {}.", names.join(", ")));
        }
        out.extend(stream.finish(&Verdict {
            message,
            counts,
            told: std::mem::take(&mut self.told),
            failure,
        }));
    }

    fn stage_started(&mut self, kind: Kind, out: &mut Vec<Frame>) {
        if !self.started.contains(&kind) {
            self.started.push(kind);
            self.write(&starting(kind), out);
        }
    }

    fn object(
        &mut self,
        word: Cow<'_, str>,
        name: Cow<'_, str>,
        state: ObjectState<'_>,
        payload: Option<&RawValue>,
        out: &mut Vec<Frame>,
    ) {
        if matches!(state, ObjectState::Completed { .. }) && !self.failed_objects.is_empty() {
            let object = format!("{word} {name}");
            self.failed_objects.retain(|failed| failed.object != object);
        }
        let (status, message, error) = match state {
            ObjectState::Processing => (Status::Progress, format!("Processing {word} {name}"), None),
            ObjectState::Completed { warning: None } => {
                (Status::Completed, format!("Synced {word} {name}"), None)
            }
            ObjectState::Completed { warning: Some(warning) } => {
                (Status::Completed, format!("Synced {word} {name} (warning: {warning})"), None)
            }
            ObjectState::Failed { error, partly } => {
                if !partly && self.failed_objects.len() < NAMED {
                    let object = format!("{word} {name}");
                    self.failed_objects.push(FailedObject { object, error: error.clone().into_owned() });
                }
                (Status::Failed, format!("Failed {word} {name}: {error}"), Some(error))
            }
        };
        let step =
            Step { step: word, status, message: Cow::Owned(message), rowid: Some(name), error, payload };
        self.write(&step, out);
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
        let step = Step { error: Some(error), ..Step::stage(step, Status::Failed, message) };
        if let Some(stream) = &mut self.stream {
            out.push(stream.step(&step));
        }
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

fn with_reason(mut failure: Failure) -> Failure {
    if failure.error.is_empty() {
        failure.error = "The backend reported a failure without a reason.".to_owned();
    }
    if failure.detail.is_empty() {
        failure.detail.clone_from(&failure.error);
    }
    failure
}

fn capitalized(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}
