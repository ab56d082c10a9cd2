//! The `step` event: flat, around a legacy frame, or around another step.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{error_text, note, stage_error};
use crate::core::domain::figures::Figures;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::run::tally::{EventForm, Scope};
use crate::core::text::detail::SENTENCE;
use crate::core::upstream::event_json::read_fields;
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::upstream::legacy::{
    LegacyFrame, MAX_NAME, NamedRecord, fields_of, non_empty, object_fact, tidy,
};
use crate::core::upstream::lenient::{LenientMap, LenientText};

/// A step, with its payload as `P`.
#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a, P: Default + Deserialize<'de>"))]
pub(super) struct StepEvent<'a, P> {
    step: LenientText<'a>,
    status: LenientText<'a>,
    message: LenientText<'a>,
    rowid: LenientText<'a>,
    error: LenientText<'a>,
    result: LenientMap<Box<Figures>>,
    payload: P,
}

read_fields!(StepEvent, P { step, status, message, rowid, error, result, payload });

/// The payload of a step, parsed, and as JSON if it is kept.
pub(super) struct StepPayload<'a>(Box<LegacyFrame<'a>>, Option<&'a RawValue>);

/// A payload that is not kept as JSON. Most steps have one, and a step is moved several times.
pub(super) type ParsedPayload<'a> = LenientMap<Box<LegacyFrame<'a>>>;

impl<'a> From<ParsedPayload<'a>> for StepPayload<'a> {
    fn from(parsed: ParsedPayload<'a>) -> Self {
        Self(parsed.0.unwrap_or_default(), None)
    }
}

impl<'a> From<Option<&'a RawValue>> for StepPayload<'a> {
    fn from(raw: Option<&'a RawValue>) -> Self {
        Self(fields_of(raw).unwrap_or_default(), raw)
    }
}

impl<'a, P: Default + Into<StepPayload<'a>>> StepEvent<'a, P> {
    pub(super) fn fact(mut self) -> Fact<'a> {
        let StepPayload(payload, raw) = std::mem::take(&mut self.payload).into();
        let object_name = self.step.0.clone().unwrap_or_default();
        if object_name == "sync" {
            return match (payload.step.as_str(), self.status.or_empty()) {
                (None, "failed") => {
                    Fact::StageError(stage_error(object_name, self.message.0.unwrap_or_default()))
                }
                _ => legacy_fact(*payload, raw),
            };
        }
        if payload.end.0 == Some(true) {
            return Fact::Nothing;
        }
        let is_object = Object::from_step(&object_name).is_some() || Kind::from_stage(&object_name).is_none();
        let mut nameless = is_object && self.rowid.as_str().is_some();
        if let (true, Some(data)) = (is_object, payload.data.0) {
            match data.fact(object_name.clone(), raw) {
                Fact::Nothing => {}
                Fact::Object { object, scope, name, form, state: ObjectState::Processing, payload }
                    if self.status.or_empty() == "failed" =>
                {
                    return Fact::Object { object, scope, name, form, state: self.state(), payload };
                }
                fact => return fact,
            }
            nameless = true;
        }
        if let (true, Some(name)) = (is_object, non_empty(self.rowid.clone())) {
            let state = self.state();
            return object_fact(object_name, Scope::default(), name, (EventForm::Frame, state), raw);
        }
        if let (Some(object), "failed") = (Object::from_step(&object_name), self.status.or_empty())
            && let Some(count) = unnamed(self.message.or_empty())
        {
            return Fact::Unnamed { object, count, error: error_text(&self.error, &self.message) };
        }
        let is_of_stage = Kind::from_stage(&object_name).is_none_or(|kind| kind.row().step == object_name);
        match self.status.or_empty() {
            // It is about an object without a name, not about its stage.
            "failed" if nameless || !is_of_stage => {
                let report = (EventForm::Frame, self.state());
                object_fact(object_name, Scope::default(), Cow::Borrowed(""), report, raw)
            }
            "completed" if nameless => note(object_name, self.message.0.unwrap_or_default()),
            status => {
                let figures = *self.result.0.unwrap_or_default();
                stage_fact(object_name, status, self.message.0.unwrap_or_default(), figures)
            }
        }
    }

    fn state(&self) -> ObjectState<'a> {
        match self.status.or_empty() {
            "completed" => ObjectState::Completed { warning: None, id: None },
            "failed" => ObjectState::failed(error_text(&self.error, &self.message)),
            _ => ObjectState::Processing,
        }
    }
}

/// The number of failed objects that another bridge could not name: `Failed: 2 storage, not named by the backend`.
fn unnamed(message: &str) -> Option<u64> {
    let count = message.strip_prefix("Failed: ")?.strip_suffix(", not named by the backend")?;
    count.split(' ').next()?.parse().ok()
}

/// The fact in the payload of a generic `"step": "sync"`.
fn legacy_fact<'a>(payload: LegacyFrame<'a>, raw: Option<&'a RawValue>) -> Fact<'a> {
    let message = payload.message.0.unwrap_or_default();
    let Some(object_name) = payload.step.0 else {
        return Fact::Note { step: Cow::Borrowed("sync"), message: tidy(message, SENTENCE) };
    };
    let stage = Stage::from_name(object_name.clone());
    let record: NamedRecord<'a> = fields_of(payload.result).unwrap_or_default();
    match payload.status.or_empty() {
        "started" => Fact::StageStarted(stage),
        "discovered" => {
            let message = tidy(message, SENTENCE);
            Fact::Discovered { stage, count: payload.count.0, names: Vec::new(), message }
        }
        "synced" => match (synced_name(&message, record.name), &stage) {
            (Some(name), Stage::Known(kind)) => {
                let object_name = Cow::Borrowed(kind.row().object.as_str());
                let id = record.id.0;
                let report = (EventForm::Frame, ObjectState::Completed { warning: None, id });
                object_fact(object_name, Scope::default(), name, report, raw)
            }
            _ => note(object_name, message),
        },
        "completed" => {
            let figures = fields_of(payload.result).unwrap_or_default();
            Fact::Summary { stage, figures, message: tidy(message, SENTENCE) }
        }
        "failed" => Fact::StageError(stage_error(object_name, message)),
        // The `completed` of this frame is a summary. The step of the stage itself marks its end.
        _ => note(object_name, message),
    }
}

/// The name in `Synced storage <cluster>/<name>`, which distinguishes the storages of two clusters. Otherwise the name
/// of the record.
fn synced_name<'a>(message: &Cow<'a, str>, name: LenientText<'a>) -> Option<Cow<'a, str>> {
    let in_message =
        message.strip_prefix("Synced ").and_then(|rest| rest.split_once(' ')).map(|(_, name)| name);
    match in_message {
        Some(name) => non_empty(LenientText(Some(Cow::Owned(name.to_owned())))),
        None => non_empty(name),
    }
}

fn stage_fact<'a>(stage: Cow<'a, str>, status: &str, message: Cow<'a, str>, figures: Figures) -> Fact<'a> {
    match status {
        "started" => Fact::StageStarted(Stage::from_name(tidy(stage, MAX_NAME))),
        "completed" => Fact::StageFinished { stage: Stage::from_name(tidy(stage, MAX_NAME)), figures },
        "failed" => Fact::StageError(stage_error(stage, message)),
        _ => note(stage, message),
    }
}
