//! The backend's own events, of every release that has them: what each says happened.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::detail::{self, SENTENCE};
use super::event::Failure;
use super::fact::{Fact, ObjectState, Stage};
use super::kind::Kind;
use super::legacy::{LegacyFrame, NAME, NamedRecord, named, object_fact, tidy};
use super::lenient::{Flag, Map, Number, Text};
use super::object::Object;
use super::tally::Summary;
use super::text::plain;

/// An event whose data could not be read: it is not JSON, or not an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What the event `name` with `data` says.
///
/// # Errors
///
/// [`Unreadable`] where the data is no JSON object. An unreadable `error` or `complete` is still one:
/// the run has failed, or nobody can say that it has not.
pub fn read<'a>(name: &str, data: &'a str) -> Result<Fact<'a>, Unreadable> {
    match name {
        "step" => parse::<StepEvent<'_>>(data).map(StepEvent::fact),
        "complete" => {
            Ok(parse::<CompleteEvent<'_>>(data).map_or_else(|_| unreadable_end(data), CompleteEvent::fact))
        }
        "error" => Ok(Fact::Aborted(
            parse::<ErrorEvent<'_>>(data).map_or_else(|_| unreadable_error(data), ErrorEvent::failure),
        )),
        "item_progress" => parse::<ItemProgress<'_>>(data).map(ItemProgress::fact),
        "discovery" => parse::<Discovery<'_>>(data).map(Discovery::fact),
        "phase_summary" => parse::<PhaseSummary<'_>>(data).map(PhaseSummary::fact),
        "error_detail" => parse::<ErrorDetail<'_>>(data).map(ErrorDetail::fact),
        "substep" => parse::<Substep<'_>>(data).map(Substep::fact),
        "bootstrap_done" => parse::<Bootstrap<'_>>(data).map(|event| event.fact()),
        "duplicate_name_resolved" => parse::<DuplicateName<'_>>(data).map(|event| event.fact()),
        // `hardware_discovery`, and whatever comes after this was written.
        _ => Ok(Fact::Nothing),
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, Unreadable> {
    // A list would be read as the fields of `T` in their order.
    serde_json::from_str::<Map<T>>(data).ok().and_then(|map| map.0).ok_or(Unreadable)
}

/// What the beginning of a `complete` that is too large to be read says of its `ok`. Backends write it
/// first, and megabytes of records behind it.
pub fn verdict_in(head: &[u8]) -> Option<bool> {
    let compact: Vec<u8> = head.iter().take(64).filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let value = compact.strip_prefix(b"{\"ok\":")?;
    if value.starts_with(b"true,") { Some(true) } else { value.starts_with(b"false,").then_some(false) }
}

fn unreadable_end(data: &str) -> Fact<'_> {
    Fact::Complete {
        ok: None,
        message: String::new(),
        detail: Some(format!("the final event is not a JSON object: {}", plain(data, SENTENCE))),
        told: detail::told(None),
    }
}

fn unreadable_error(data: &str) -> Failure {
    let text = plain(data, SENTENCE).into_owned();
    Failure { step: String::new(), error: text.clone(), detail: text }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StepEvent<'a> {
    #[serde(borrow)]
    step: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    rowid: Text<'a>,
    #[serde(borrow)]
    error: Text<'a>,
    result: Map<Counted>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counted {
    count: Number,
    created: Number,
    updated: Number,
}

impl Counted {
    fn count(&self) -> Option<u64> {
        let changed = [self.created.0, self.updated.0].into_iter().flatten().reduce(u64::saturating_add);
        self.count.0.or(changed)
    }
}

impl<'a> StepEvent<'a> {
    fn fact(self) -> Fact<'a> {
        let payload: LegacyFrame<'a> =
            self.payload.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let word = self.step.0.clone().unwrap_or_default();
        if word == "sync" {
            return match (payload.step.said(), self.status.or_empty()) {
                (None, "failed") => Fact::Trouble(trouble(word, self.message.0.unwrap_or_default())),
                _ => unwrapped(payload, self.payload),
            };
        }
        if payload.end.0 == Some(true) {
            return Fact::Nothing;
        }
        let is_object = Object::named(&word).is_some() || Kind::of_stage(&word).is_none();
        let mut nameless = is_object && self.rowid.said().is_some();
        if let (true, Some(data)) = (is_object, payload.data.0) {
            match data.fact(word.clone(), self.payload) {
                Fact::Nothing => {}
                Fact::Object { object, scope, name, state: ObjectState::Processing, payload }
                    if self.status.or_empty() == "failed" =>
                {
                    return Fact::Object { object, scope, name, state: self.state(), payload };
                }
                fact => return fact,
            }
            nameless = true;
        }
        if let (true, Some(name)) = (is_object, named(self.rowid.clone())) {
            let state = self.state();
            return object_fact(word, None, name, state, self.payload);
        }
        if nameless && self.status.or_empty() == "completed" {
            // About an object whose name is missing, not about its stage.
            return note(word, self.message.0.unwrap_or_default());
        }
        let count = self.result.0.and_then(|result| result.count());
        stage_fact(word, self.status.or_empty(), self.message.0.unwrap_or_default(), count)
    }

    fn state(&self) -> ObjectState<'a> {
        match self.status.or_empty() {
            "completed" => ObjectState::Completed { warning: None },
            "failed" => {
                let text = self.error.said().or(self.message.said()).unwrap_or("no reason given");
                ObjectState::failed(Cow::Owned(plain(text, SENTENCE).into_owned()))
            }
            _ => ObjectState::Processing,
        }
    }
}

/// The truth inside a step that says nothing but `"step": "sync"`.
fn unwrapped<'a>(payload: LegacyFrame<'a>, raw: Option<&'a RawValue>) -> Fact<'a> {
    let message = payload.message.0.unwrap_or_default();
    let Some(word) = payload.step.0 else {
        return Fact::Note { step: Cow::Borrowed("sync"), message: tidy(message, SENTENCE) };
    };
    let stage = Stage::named(word.clone());
    match payload.status.or_empty() {
        "started" => Fact::StageStarted(stage),
        "discovered" => Fact::Discovered { stage, count: payload.count.0, message: tidy(message, SENTENCE) },
        "synced" => match (synced_name(&message, payload.result.0), &stage) {
            (Some(name), Stage::Known(kind)) => {
                let word = Cow::Borrowed(kind.row().object.as_str());
                object_fact(word, None, name, ObjectState::Completed { warning: None }, raw)
            }
            _ => note(word, message),
        },
        "failed" => Fact::Trouble(trouble(word, message)),
        // Its `completed` is a summary: the step of the stage itself says that the stage is done. What it
        // has `discovered` is not what it makes: a backup on shared storage is found on every node.
        _ => note(word, message),
    }
}

/// The name in `Synced storage <cluster>/<name>`, which tells storages of two clusters apart; else the
/// name of the record.
fn synced_name<'a>(message: &Cow<'a, str>, record: Option<NamedRecord<'a>>) -> Option<Cow<'a, str>> {
    let in_message =
        message.strip_prefix("Synced ").and_then(|rest| rest.split_once(' ')).map(|(_, name)| name);
    match in_message {
        Some(name) => named(Text(Some(Cow::Owned(name.to_owned())))),
        None => record.and_then(|record| named(record.name)),
    }
}

fn stage_fact<'a>(word: Cow<'a, str>, status: &str, message: Cow<'a, str>, count: Option<u64>) -> Fact<'a> {
    match status {
        "started" => Fact::StageStarted(Stage::named(tidy(word, NAME))),
        "completed" => Fact::StageFinished { stage: Stage::named(tidy(word, NAME)), count },
        "failed" => Fact::Trouble(trouble(word, message)),
        _ => note(word, message),
    }
}

fn note<'a>(step: Cow<'a, str>, message: Cow<'a, str>) -> Fact<'a> {
    match tidy(message, SENTENCE) {
        message if message.is_empty() => Fact::Nothing,
        message => Fact::Note { step: tidy(step, NAME), message },
    }
}

fn trouble(step: Cow<'_, str>, message: Cow<'_, str>) -> Failure {
    let error = tidy(message, SENTENCE).into_owned();
    Failure { step: step.into_owned(), detail: error.clone(), error }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompleteEvent<'a> {
    ok: Flag,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    errors: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

impl<'a> CompleteEvent<'a> {
    fn fact(self) -> Fact<'a> {
        let detail =
            [self.errors, self.error, self.detail].into_iter().filter_map(|raw| detail::readable(raw));
        Fact::Complete {
            ok: self.ok.0,
            message: plain(self.message.or_empty(), SENTENCE).into_owned(),
            detail: Some(detail::joined(detail.collect())).filter(|text| !text.is_empty()),
            told: detail::told(self.result),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorEvent<'a> {
    #[serde(borrow)]
    step: Text<'a>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl ErrorEvent<'_> {
    fn failure(self) -> Failure {
        let error = detail::readable(self.error).or_else(|| detail::readable(self.message));
        let detail = detail::readable(self.detail);
        let known = error.clone().or_else(|| detail.clone()).unwrap_or_default();
        Failure {
            step: self.step.or_empty().to_owned(),
            error: plain(&known, SENTENCE).into_owned(),
            detail: detail::joined([error, detail].into_iter().flatten().collect()),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    vm: Text<'a>,
    #[serde(borrow)]
    device: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ItemProgress<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    item: Map<Item<'a>>,
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow)]
    error: Text<'a>,
    #[serde(borrow)]
    warning: Text<'a>,
}

impl<'a> ItemProgress<'a> {
    fn fact(self) -> Fact<'a> {
        let phase = self.phase.0.clone().unwrap_or_default();
        let item = self.item.0.unwrap_or_default();
        let Some(name) = named(item.name) else {
            return note(phase, self.message.0.unwrap_or_default());
        };
        let state = if self.status.or_empty() == "failed" || self.operation.or_empty() == "failed" {
            let text = self.error.said().or(self.message.said()).unwrap_or("no reason given");
            ObjectState::failed(Cow::Owned(plain(text, SENTENCE).into_owned()))
        } else if matches!(self.operation.or_empty(), "skipped" | "deleted" | "would_delete") {
            // Handled, but nothing of it is synced.
            return note(phase, self.message.0.unwrap_or_default());
        } else if self.status.or_empty() == "completed" {
            let warning = self.warning.said().map(|text| Cow::Owned(plain(text, SENTENCE).into_owned()));
            ObjectState::Completed { warning }
        } else {
            ObjectState::Processing
        };
        object_fact(object_of(phase), item.vm.0.or(item.device.0), name, state, None)
    }
}

/// The word for the objects of the phase that a backend calls `phase`.
fn object_of(phase: Cow<'_, str>) -> Cow<'_, str> {
    Kind::of_stage(&phase).map_or(phase, |kind| Cow::Borrowed(kind.row().object.as_str()))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Discovery<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    count: Number,
    #[serde(borrow)]
    message: Text<'a>,
}

impl<'a> Discovery<'a> {
    fn fact(self) -> Fact<'a> {
        Fact::Discovered {
            stage: Stage::named(self.phase.0.unwrap_or_default()),
            count: self.count.0,
            message: tidy(self.message.0.unwrap_or_default(), SENTENCE),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PhaseSummary<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    result: Map<SummaryNumbers>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SummaryNumbers {
    created: Number,
    updated: Number,
    failed: Number,
    total: Number,
}

impl<'a> PhaseSummary<'a> {
    fn fact(self) -> Fact<'a> {
        let numbers = self.result.0.unwrap_or_default();
        let number = |number: Number| number.0.unwrap_or(0);
        // What was skipped was not synced.
        let completed = number(numbers.created).saturating_add(number(numbers.updated));
        Fact::Summary {
            stage: Stage::named(self.phase.0.unwrap_or_default()),
            summary: Summary { completed, failed: number(numbers.failed), total: number(numbers.total) },
            message: tidy(self.message.0.unwrap_or_default(), SENTENCE),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDetail<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(borrow)]
    suggestion: Option<&'a RawValue>,
}

impl<'a> ErrorDetail<'a> {
    fn fact(self) -> Fact<'a> {
        let phase = self.phase.0.unwrap_or_default();
        let message = detail::readable(self.message);
        let detail = detail::joined(
            [message.clone(), detail::readable(self.detail), detail::readable(self.suggestion)]
                .into_iter()
                .flatten()
                .collect(),
        );
        match self.item.and_then(item_name) {
            Some((name, scope)) => {
                let error = Cow::Owned(plain(&detail, SENTENCE).into_owned());
                object_fact(object_of(phase), scope, name, ObjectState::failed(error), None)
            }
            None => Fact::Trouble(Failure {
                step: phase.into_owned(),
                error: plain(&message.unwrap_or_else(|| detail.clone()), SENTENCE).into_owned(),
                detail,
            }),
        }
    }
}

/// The name of an item, and what it belongs to; an item may also be a name and nothing else.
fn item_name(raw: &RawValue) -> Option<(Cow<'_, str>, Option<Cow<'_, str>>)> {
    let by_field = serde_json::from_str::<Map<Item<'_>>>(raw.get()).ok().and_then(|item| item.0);
    match by_field {
        Some(item) => Some((named(item.name)?, item.vm.0.or(item.device.0))),
        None => Some((serde_json::from_str::<Text<'_>>(raw.get()).ok().and_then(named)?, None)),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Substep<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
}

impl<'a> Substep<'a> {
    fn fact(self) -> Fact<'a> {
        // The part of an object that failed; the object itself may still come to a good end.
        if self.status.or_empty() == "failed" {
            note(self.phase.0.unwrap_or_default(), self.message.0.unwrap_or_default())
        } else {
            Fact::Nothing
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bootstrap<'a> {
    ok: Flag,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
    #[serde(borrow)]
    warnings: Option<&'a RawValue>,
}

impl<'a> Bootstrap<'a> {
    /// A bootstrap that is not `ok` is no failure: the run behind it may be fine.
    fn fact(&self) -> Fact<'a> {
        if self.ok.0 == Some(true) {
            return Fact::Nothing;
        }
        let said = [self.reason, self.warnings].into_iter().filter_map(detail::readable).collect();
        let message = match detail::joined(said) {
            said if said.is_empty() => "NetBox bootstrap was not complete.".to_owned(),
            said => format!("NetBox bootstrap was not complete: {}", plain(&said, SENTENCE)),
        };
        Fact::Note { step: Cow::Borrowed("bootstrap"), message: Cow::Owned(message) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DuplicateName<'a> {
    #[serde(borrow)]
    original_name: Text<'a>,
    #[serde(borrow)]
    resolved_name: Text<'a>,
}

impl<'a> DuplicateName<'a> {
    fn fact(&self) -> Fact<'a> {
        let name = |text: &Text<'a>| plain(text.or_empty(), SENTENCE).into_owned();
        Fact::Note {
            step: Cow::Borrowed(Object::VirtualMachine.as_str()),
            message: Cow::Owned(format!(
                "Name {} is taken, using {} instead",
                name(&self.original_name),
                name(&self.resolved_name)
            )),
        }
    }
}
