//! The event types that came with 0.0.7 and later: what of them a person needs.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{note, reason_of};
use crate::core::detail::{self, SENTENCE};
use crate::core::event::Failure;
use crate::core::fact::{Fact, ObjectState, Stage};
use crate::core::kind::Kind;
use crate::core::legacy::{named, object_fact, sentence, tidy};
use crate::core::lenient::{Flag, Map, Number, Text};
use crate::core::object::Object;
use crate::core::tally::Summary;
use crate::core::text::plain;

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
pub(super) struct ItemProgress<'a> {
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
    pub(super) fn fact(self) -> Fact<'a> {
        let phase = self.phase.0.clone().unwrap_or_default();
        let item = self.item.0.unwrap_or_default();
        let Some(name) = named(item.name) else {
            return note(phase, self.message.0.unwrap_or_default());
        };
        let state = if self.status.or_empty() == "failed" || self.operation.or_empty() == "failed" {
            ObjectState::failed(reason_of(&self.error, &self.message))
        } else if matches!(self.operation.or_empty(), "skipped" | "deleted" | "would_delete") {
            // Handled, but nothing of it is synced.
            return note(phase, self.message.0.unwrap_or_default());
        } else if self.status.or_empty() == "completed" {
            ObjectState::Completed { warning: self.warning.said().map(sentence) }
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
pub(super) struct Discovery<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    count: Number,
    #[serde(borrow)]
    message: Text<'a>,
}

impl<'a> Discovery<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        Fact::Discovered {
            stage: Stage::named(self.phase.0.unwrap_or_default()),
            count: self.count.0,
            message: tidy(self.message.0.unwrap_or_default(), SENTENCE),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PhaseSummary<'a> {
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
    pub(super) fn fact(self) -> Fact<'a> {
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
pub(super) struct ErrorDetail<'a> {
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
    pub(super) fn fact(self) -> Fact<'a> {
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
                object_fact(object_of(phase), scope, name, ObjectState::failed(sentence(&detail)), None)
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
pub(super) struct Substep<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
}

impl<'a> Substep<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
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
pub(super) struct Bootstrap<'a> {
    ok: Flag,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
    #[serde(borrow)]
    warnings: Option<&'a RawValue>,
}

impl<'a> Bootstrap<'a> {
    /// A bootstrap that is not `ok` is no failure: the run behind it may be fine.
    pub(super) fn fact(&self) -> Fact<'a> {
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
pub(super) struct DuplicateName<'a> {
    #[serde(borrow)]
    original_name: Text<'a>,
    #[serde(borrow)]
    resolved_name: Text<'a>,
}

impl<'a> DuplicateName<'a> {
    pub(super) fn fact(&self) -> Fact<'a> {
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
