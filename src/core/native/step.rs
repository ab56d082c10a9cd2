//! `step`: flat, around a legacy frame, or around another step.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{note, reason_of, trouble};
use crate::core::detail::SENTENCE;
use crate::core::fact::{Fact, ObjectState, Stage};
use crate::core::kind::Kind;
use crate::core::legacy::{LegacyFrame, NAME, NamedRecord, named, object_fact, tidy};
use crate::core::lenient::{Map, Number, Text};
use crate::core::object::Object;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct StepEvent<'a> {
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
    pub(super) fn fact(self) -> Fact<'a> {
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
            "failed" => ObjectState::failed(reason_of(&self.error, &self.message)),
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
        // Its `completed` is a summary: the step of the stage itself says that the stage is done.
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
