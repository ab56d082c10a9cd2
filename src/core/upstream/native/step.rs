//! `step`: flat, around a legacy frame, or around another step.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{note, reason_of, trouble};
use crate::core::domain::figures::Figures;
use crate::core::domain::kind::Kind;
use crate::core::domain::object::Object;
use crate::core::run::tally::{Form, Scope};
use crate::core::text::detail::SENTENCE;
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::upstream::legacy::{LegacyFrame, NamedRecord, WORD, fields_of, named, object_fact, tidy};
use crate::core::upstream::lenient::{Map, Text};

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
    result: Map<Figures>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
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
                Fact::Object { object, scope, name, form, state: ObjectState::Processing, payload }
                    if self.status.or_empty() == "failed" =>
                {
                    return Fact::Object { object, scope, name, form, state: self.state(), payload };
                }
                fact => return fact,
            }
            nameless = true;
        }
        if let (true, Some(name)) = (is_object, named(self.rowid.clone())) {
            let state = self.state();
            return object_fact(word, Scope::default(), name, (Form::Frame, state), self.payload);
        }
        if let (Some(object), "failed") = (Object::named(&word), self.status.or_empty())
            && let Some(count) = unnamed(self.message.or_empty())
        {
            return Fact::Unnamed { object, count, error: reason_of(&self.error, &self.message) };
        }
        let is_of_stage = Kind::of_stage(&word).is_none_or(|kind| kind.row().step == word);
        match self.status.or_empty() {
            // About an object whose name is missing, not about its stage.
            "failed" if nameless || !is_of_stage => {
                let said = (Form::Frame, self.state());
                object_fact(word, Scope::default(), Cow::Borrowed(""), said, self.payload)
            }
            "completed" if nameless => note(word, self.message.0.unwrap_or_default()),
            status => {
                let figures = self.result.0.unwrap_or_default();
                stage_fact(word, status, self.message.0.unwrap_or_default(), figures)
            }
        }
    }

    fn state(&self) -> ObjectState<'a> {
        match self.status.or_empty() {
            "completed" => ObjectState::Completed { warning: None, id: None },
            "failed" => ObjectState::failed(reason_of(&self.error, &self.message)),
            _ => ObjectState::Processing,
        }
    }
}

/// How many objects a bridge before this one could not name: `Failed: 2 storage, not named by the backend`.
fn unnamed(message: &str) -> Option<u64> {
    let named = message.strip_prefix("Failed: ")?.strip_suffix(", not named by the backend")?;
    named.split(' ').next()?.parse().ok()
}

/// The truth inside a step that says nothing but `"step": "sync"`.
fn unwrapped<'a>(payload: LegacyFrame<'a>, raw: Option<&'a RawValue>) -> Fact<'a> {
    let message = payload.message.0.unwrap_or_default();
    let Some(word) = payload.step.0 else {
        return Fact::Note { step: Cow::Borrowed("sync"), message: tidy(message, SENTENCE) };
    };
    let stage = Stage::named(word.clone());
    let record: NamedRecord<'a> = fields_of(payload.result).unwrap_or_default();
    match payload.status.or_empty() {
        "started" => Fact::StageStarted(stage),
        "discovered" => {
            let message = tidy(message, SENTENCE);
            Fact::Discovered { stage, count: payload.count.0, names: Vec::new(), message }
        }
        "synced" => match (synced_name(&message, record.name), &stage) {
            (Some(name), Stage::Known(kind)) => {
                let word = Cow::Borrowed(kind.row().object.as_str());
                let id = record.id.0;
                let said = (Form::Frame, ObjectState::Completed { warning: None, id });
                object_fact(word, Scope::default(), name, said, raw)
            }
            _ => note(word, message),
        },
        "completed" => {
            let figures = fields_of(payload.result).unwrap_or_default();
            Fact::Summary { stage, figures, message: tidy(message, SENTENCE) }
        }
        "failed" => Fact::Trouble(trouble(word, message)),
        // Its `completed` is a summary: the step of the stage itself says that the stage is done.
        _ => note(word, message),
    }
}

/// The name in `Synced storage <cluster>/<name>`, which tells storages of two clusters apart; else the
/// name of the record.
fn synced_name<'a>(message: &Cow<'a, str>, name: Text<'a>) -> Option<Cow<'a, str>> {
    let in_message =
        message.strip_prefix("Synced ").and_then(|rest| rest.split_once(' ')).map(|(_, name)| name);
    match in_message {
        Some(name) => named(Text(Some(Cow::Owned(name.to_owned())))),
        None => named(name),
    }
}

fn stage_fact<'a>(word: Cow<'a, str>, status: &str, message: Cow<'a, str>, figures: Figures) -> Fact<'a> {
    match status {
        "started" => Fact::StageStarted(Stage::named(tidy(word, WORD))),
        "completed" => Fact::StageFinished { stage: Stage::named(tidy(word, WORD)), figures },
        "failed" => Fact::Trouble(trouble(word, message)),
        _ => note(word, message),
    }
}
