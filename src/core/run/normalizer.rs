//! Turns facts into the frames that watchers read.
//!
//! The normaliser enforces the wire contract. It begins the stream, counts objects, drops events that break clients,
//! decides the outcome and writes it exactly once. Its methods may be called at any time; before the stream begins and
//! after it ends they write nothing.

mod objects;
mod verdict;

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::policy::FailurePolicies;
use super::tally::{EventForm, Tally};
use crate::core::domain::counting::COUNTS_OBJECTS;
use crate::core::domain::counts::Count;
use crate::core::domain::event::{Failure, Step, StepStatus};
use crate::core::domain::figures::{Figures, ResultSummary};
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::domain::outcome::ObjectFailure;
use crate::core::domain::release::Release;
use crate::core::text::detail::SENTENCE;
use crate::core::text::plain;
use crate::core::text::redact::Redactor;
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::upstream::lenient::LenientCount;
use crate::core::wire::sse::encoder::SseEncoder;
use crate::core::wire::sse::frame::Frame;
use objects::{FailedGroup, FailureSample, MAX_NAMED, SeenFailures, failed_object};

/// The maximum number of renamed virtual machines, and the maximum length of each name in bytes.
const MAX_RENAMED: usize = 4096;
const MAX_RENAMED_BYTES: usize = 512;
/// The maximum length, in characters, of the failed objects and other failures in the final message of a run that did
/// not fail.
const HEADLINE: usize = 200;
/// The maximum length, in characters of JSON, of the error in the final message of a failed run. The full error stands
/// in `error`.
const FAILED_HEADLINE: usize = 120;
/// The maximum number of warnings kept for a run of several legs.
const MAX_WARNINGS: usize = 5;

/// What the operator and the client configure for the stream.
#[derive(Clone, Debug, Default)]
pub struct NormalizerOptions {
    /// Which failed objects fail the run.
    pub object_failures: FailurePolicies,
    /// Pass on the backend's own event types.
    pub all_events: bool,
    /// Keep the backend's own payload for an object in its step.
    pub payloads: bool,
    /// Removes secrets from every frame.
    pub redactor: Redactor,
}

/// The terminal event of a leg.
#[derive(Debug)]
struct TerminalEvent {
    ok: Option<bool>,
    message: String,
    detail: Option<String>,
}

/// Turns facts into frames.
#[derive(Debug)]
pub struct Normalizer {
    kind: Kind,
    options: NormalizerOptions,
    /// The backend's release, if known.
    pub(super) release: Option<Release>,
    /// The encoder of the stream. Present between the first step and the end.
    stream: Option<SseEncoder>,
    /// The counts of the run's objects.
    pub(super) tally: Tally,
    started: Vec<Kind>,
    finished: Vec<Kind>,
    skipped: Vec<Kind>,
    /// Why the run was skipped, unless the backend lacks the sync.
    why_skipped: Option<String>,
    summary: ResultSummary,
    /// The first and the last failed objects of the run.
    failure_sample: FailureSample,
    /// The failures that the session has not taken yet.
    pub(super) new_failures: Vec<ObjectFailure>,
    /// The node whose interfaces were reported last.
    node: Option<String>,
    /// The Proxmox names of virtual machines that are renamed in NetBox, keyed by their NetBox name.
    renamed: HashMap<String, String>,
    /// The first failures that concern no single object.
    stage_errors: Vec<String>,
    /// The number of failures that concern no single object.
    stage_error_count: u64,
    /// The number of events that produced no step: those of no use to clients, and duplicates.
    dropped: u64,
    /// The number of events that could not be parsed.
    pub(super) unreadable: u64,
    leg: LegState,
}

/// The state of the current leg.
#[derive(Debug, Default)]
struct LegState {
    /// The stage of this leg, in a run of several legs.
    stage: Option<Kind>,
    before: Count,
    /// The first failed objects, with their errors.
    failed_objects: Vec<FailedGroup>,
    /// The failures that were already written.
    seen_failures: SeenFailures,
    aborted: Option<Failure>,
    stage_error: Option<Failure>,
    terminal: Option<TerminalEvent>,
    /// A frame about an object arrived after the end of its stage.
    has_stragglers: bool,
    /// Why unreported objects failed, if the order of events shows it: for a named object, and for several.
    unreported_reason: Option<(&'static str, &'static str)>,
}

impl Normalizer {
    /// Creates a normaliser for a run of `kind`.
    pub fn new(kind: Kind, options: NormalizerOptions) -> Self {
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
            summary: ResultSummary::default(),
            failure_sample: FailureSample::default(),
            new_failures: Vec::new(),
            node: None,
            renamed: HashMap::new(),
            stage_errors: Vec::new(),
            stage_error_count: 0,
            dropped: 0,
            unreadable: 0,
            leg: LegState::default(),
        }
    }

    /// Records that the backend sends events of the type `name`. The type dates a backend of unknown release.
    pub fn note_event_type(&mut self, name: &str) {
        if self.release.is_none() && matches!(name, "discovery" | "item_progress" | "phase_summary") {
            self.release = Some(COUNTS_OBJECTS);
        }
    }

    /// Writes what the run is waiting for, before it begins.
    pub fn begin_waiting(&mut self, message: &str, out: &mut Vec<Frame>) {
        let step = Step::stage(self.kind.row().step, StepStatus::Started, message);
        self.begin(&step, out);
    }

    /// Begins the run.
    pub fn start(&mut self, out: &mut Vec<Frame>) {
        if !self.started.contains(&self.kind) {
            self.started.push(self.kind);
            self.begin(&started_step(self.kind), out);
        }
    }

    /// Writes `step`, and begins the stream if needed.
    fn begin(&mut self, step: &Step<'_>, out: &mut Vec<Frame>) {
        match &mut self.stream {
            Some(stream) => out.push(stream.step(step)),
            None => {
                let (stream, frame) = SseEncoder::start_redacted(step, self.options.redactor.clone());
                self.stream = Some(stream);
                out.push(frame);
            }
        }
    }

    /// Writes that the stages `kinds` begin.
    pub fn begin_leg(&mut self, kinds: &[Kind], out: &mut Vec<Frame>) {
        let stage = kinds.first().copied().filter(|kind| *kind != self.kind);
        self.leg = LegState { stage, before: self.tally.counts().total(), ..LegState::default() };
        if let Some(kind) = kinds.first() {
            self.stage_started(*kind, out);
        }
    }

    /// Writes a notice that is not part of the run's work.
    pub fn notice(&mut self, notice: &str, out: &mut Vec<Frame>) {
        self.write(&Step::stage(self.kind.row().step, StepStatus::Progress, notice), out);
    }

    /// Writes that the stage `kind` is skipped, for the reason `why`, or because the backend does not support it.
    pub fn skip(&mut self, kind: Kind, why: Option<String>, out: &mut Vec<Frame>) {
        self.skipped.push(kind);
        let row = kind.row();
        let title = capitalized(row.title);
        let unsupported = || format!("this backend {}.", self.unsupported_text("it"));
        let reason = why.clone().unwrap_or_else(unsupported);
        let message = format!("{title} synchronization skipped: {reason}");
        self.why_skipped = why;
        self.write(&Step::stage(row.step, StepStatus::Progress, message), out);
    }

    /// Applies a fact.
    pub fn apply(&mut self, fact: Fact<'_>, out: &mut Vec<Frame>) {
        match fact {
            Fact::StageStarted(Stage::Known(kind)) => self.stage_started(kind, out),
            Fact::StageStarted(Stage::Other(word)) => {
                let message = format!("Starting {word} synchronization.");
                self.write(&Step::stage(word, StepStatus::Started, message), out);
            }
            Fact::StageFinished { stage, figures } => {
                self.apply_figures(&stage, figures);
                match stage {
                    Stage::Known(kind) => self.stage_finished(kind, out),
                    Stage::Other(word) => {
                        let message = format!("{} synchronization finished.", capitalized(&word));
                        self.write(&Step::stage(word, StepStatus::Completed, message), out);
                    }
                }
            }
            Fact::Object { object: (object, word), scope, name, form, state, payload } => {
                let scope = self.on_node(object, &name, scope);
                let is_news = match &state {
                    ObjectState::Failed { is_part: false, .. } if name.is_empty() => {
                        self.tally.add_unnamed_failures(object, form, 1)
                    }
                    state => {
                        let report = self.report(object, form, state);
                        let renamed = self.renamed.get(&*name).filter(|_| object == Object::VirtualMachine);
                        self.tally.record(object, &scope, renamed.map_or(&name, String::as_str), report)
                    }
                };
                // The failure of a part is new even for a known object, but only once.
                let is_new_part = match &state {
                    ObjectState::Failed { is_part: true, error } => self.leg.seen_failures.is_first(&(
                        object,
                        scope.cluster.as_deref(),
                        scope.owner.as_deref(),
                        name.as_ref(),
                        error.as_ref(),
                    )),
                    _ => false,
                };
                if !is_news && !is_new_part {
                    self.dropped += 1;
                    return;
                }
                let payload = payload.filter(|_| self.options.payloads);
                let step = self.object_step((object, word), &scope, name, state);
                self.write(&Step { payload, ..step }, out);
            }
            Fact::Renamed { from, to } => {
                let message = format!("Name {from} is taken, using {to} instead");
                if self.renamed.len() < MAX_RENAMED && from.len().max(to.len()) <= MAX_RENAMED_BYTES {
                    self.renamed.insert(to.into_owned(), from.into_owned());
                }
                self.write_note(Object::VirtualMachine.as_str(), Cow::Owned(message), out);
            }
            Fact::Unnamed { object, count, error } => {
                self.tally.add_unnamed_failures(object, EventForm::Frame, count.min(LenientCount::MAX));
                self.apply_unnamed(object, count, &error, out);
            }
            Fact::Discovered { stage, count, names, message } => {
                if let (Some(object), Some(count)) =
                    (stage.object().filter(|object| object.has_rows()), count)
                {
                    self.tally.add_announced(object, count, names);
                }
                self.write_note(stage.step(), message, out);
            }
            Fact::Summary { stage, figures, message } => {
                self.apply_figures(&stage, figures);
                self.write_note(stage.step(), message, out);
            }
            Fact::Note { step, message } => self.write_note(&step, message, out),
            Fact::StageError(failure) => self.stage_error(failure, out),
            Fact::Aborted(failure) => {
                self.leg.aborted.get_or_insert(failure);
            }
            Fact::Complete { ok, message, detail, summary } => {
                for (object, count) in &summary.objects.0 {
                    self.tally.set_counted(*object, *count);
                }
                let kind = self.leg.stage.unwrap_or(self.kind);
                self.apply_figures(&Stage::Known(kind), Figures::from_summary(&summary));
                for (stage, figures) in Figures::by_stage(&summary) {
                    if kind == Kind::FullUpdate || kind == stage {
                        self.apply_figures(&Stage::Known(stage), figures);
                    }
                }
                for (stage, names) in &summary.names {
                    let of_stage = Kind::of_field(stage).map(|kind| kind.row().object);
                    if let Some(object) = of_stage.filter(|object| object.has_rows()) {
                        let names = names.iter().map(|name| self.renamed.get(name).unwrap_or(name).clone());
                        let names = names.collect();
                        self.tally.add_recorded(object, names);
                    }
                }
                for (name, error) in summary.failed.clone() {
                    self.apply(failed_object(Object::Sdn, name, error), out);
                }
                self.merge_summary(summary);
                let terminal = TerminalEvent { ok, message, detail };
                // If there are two terminal events, the worse one counts.
                if self.leg.terminal.as_ref().is_none_or(|previous| previous.ok == Some(true)) {
                    self.leg.terminal = Some(terminal);
                }
            }
            Fact::Nothing => self.dropped += 1,
        }
    }

    /// Merges the result summary of a leg. In a run of several legs, `count` is kept under the name of the stage, such
    /// as `devices_count`.
    fn merge_summary(&mut self, summary: ResultSummary) {
        let Some(stage) = self.leg.stage else {
            self.summary = summary;
            return;
        };
        let name = format!("{}_count", stage.as_str().replace('-', "_"));
        if let Some((_, count)) = summary.numbers.iter().find(|(name, _)| name == "count") {
            self.summary.numbers.retain(|(known, _)| *known != name);
            self.summary.numbers.push((name, *count));
        }
        self.summary.warnings.extend(summary.warnings);
        self.summary.warnings.truncate(MAX_WARNINGS);
        self.summary.degraded |= summary.degraded;
    }

    /// Whether the backend's own payload for an object is kept.
    pub fn keeps_payloads(&self) -> bool {
        self.options.payloads
    }

    /// Passes on an event of the backend's own type, if the client requested these.
    pub fn pass_through(&mut self, name: &str, data: &str, out: &mut Vec<Frame>) {
        if !self.options.all_events {
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        if let Ok(raw) = serde_json::from_str::<&RawValue>(data) {
            out.extend(stream.extra(name, raw));
        }
    }

    /// Writes that the stage `kind` is done.
    pub fn stage_finished(&mut self, kind: Kind, out: &mut Vec<Frame>) {
        if self.finished.contains(&kind) || (kind == Kind::FullUpdate) {
            return;
        }
        self.finished.push(kind);
        let row = kind.row();
        let message = format!("{} synchronization finished.", capitalized(row.title));
        self.write(&Step::stage(row.step, StepStatus::Completed, message), out);
    }

    /// Whether this leg has had its terminal event. An `error` is one, whatever follows (R9).
    pub fn has_terminal(&self) -> bool {
        self.leg.terminal.is_some() || self.leg.aborted.is_some()
    }

    /// Whether this leg has had a failure that concerns no single object.
    pub fn has_stage_error(&self) -> bool {
        self.leg.stage_error.is_some()
    }

    fn stage_started(&mut self, kind: Kind, out: &mut Vec<Frame>) {
        if !self.started.contains(&kind) {
            self.started.push(kind);
            self.write(&started_step(kind), out);
        }
    }

    fn write_note(&mut self, step: &str, message: Cow<'_, str>, out: &mut Vec<Frame>) {
        if message.is_empty() {
            self.dropped += 1;
            return;
        }
        let step = if step.is_empty() { self.kind.row().step } else { step };
        self.write(&Step::stage(step, StepStatus::Progress, message), out);
    }

    fn stage_error(&mut self, failure: Failure, out: &mut Vec<Frame>) {
        let is_first = self.leg.seen_failures.is_first(&(&failure.step, &failure.error, &failure.detail));
        self.stage_error_count += 1;
        if is_first {
            let step = if failure.step.is_empty() { self.kind.row().step } else { &failure.step };
            let error = plain(&failure.detail, SENTENCE);
            let message = format!("Failed: {}", failure.error);
            self.write(&Step { error: Some(error), ..Step::stage(step, StepStatus::Failed, message) }, out);
            if self.stage_errors.len() < MAX_NAMED {
                self.stage_errors.push(failure.error.clone());
            }
        } else {
            self.dropped += 1;
        }
        self.leg.stage_error = Some(failure);
    }

    fn write(&mut self, step: &Step<'_>, out: &mut Vec<Frame>) {
        if let Some(stream) = &mut self.stream {
            out.push(stream.step(step));
        }
    }
}

fn started_step(kind: Kind) -> Step<'static> {
    let row = kind.row();
    Step::stage(row.step, StepStatus::Started, format!("Starting {} synchronization.", row.title))
}

fn capitalized(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
