//! The event types that came with 0.0.7 and later: what of them a person needs.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{note, reason_of};
use crate::core::domain::event::Failure;
use crate::core::domain::figures::Figures;
use crate::core::domain::kind::Kind;
use crate::core::run::tally::{Form, Scope};
use crate::core::text::detail::{self, SENTENCE};
use crate::core::text::plain;
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::upstream::legacy::{NamedRecord, fields_of, named, object_fact, place, sentence, tidy};
use crate::core::upstream::lenient::{Flag, Map, Number, Text};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    vm: Text<'a>,
    #[serde(borrow)]
    device: Text<'a>,
    #[serde(borrow)]
    cluster: Text<'a>,
    netbox_id: Number,
}

impl<'a> Item<'a> {
    /// Where it belongs, and its name, if it has one.
    fn read(self) -> (Scope<'a>, Option<Cow<'a, str>>) {
        let owner = place(self.vm).or_else(|| place(self.device));
        (Scope { cluster: place(self.cluster), owner }, named(self.name))
    }
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
        if phase == "hardware_discovery" {
            // What is read over SSH of a node that is in NetBox already.
            return note(phase, self.message.0.unwrap_or_default());
        }
        let id = self.item.0.as_ref().and_then(|item| item.netbox_id.0);
        let (scope, name) = self.item.0.unwrap_or_default().read();
        let has_failed = self.status.or_empty() == "failed" || self.operation.or_empty() == "failed";
        let name = match name {
            Some(name) => name,
            None if has_failed => Cow::Borrowed(""),
            None => return note(phase, self.message.0.unwrap_or_default()),
        };
        let state = if has_failed {
            ObjectState::failed(reason_of(&self.error, &self.message))
        } else if matches!(self.operation.or_empty(), "skipped" | "deleted" | "would_delete") {
            // Handled, but nothing of it is synced.
            return note(phase, self.message.0.unwrap_or_default());
        } else if self.status.or_empty() == "completed" {
            ObjectState::Completed { warning: self.warning.said().map(sentence), id }
        } else if self.status.or_empty() == "warning" {
            // Something of it failed, and it is in NetBox all the same.
            ObjectState::Completed { warning: Some(reason_of(&self.warning, &self.message)), id }
        } else {
            ObjectState::Processing
        };
        object_fact(object_of(phase), scope, name, (Form::Item, state), None)
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
    items: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Text<'a>,
}

impl<'a> Discovery<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        let items =
            self.items.and_then(|raw| serde_json::from_str::<Vec<Map<NamedRecord<'_>>>>(raw.get()).ok());
        let names =
            items.unwrap_or_default().into_iter().map(|item| named(item.0?.name).map(Cow::into_owned));
        let names: Vec<String> = names.collect::<Option<_>>().unwrap_or_default();
        Fact::Discovered {
            stage: Stage::named(self.phase.0.unwrap_or_default()),
            count: self.count.0,
            // A list that was cut is of no use.
            names: if self.count.0 == Some(names.len() as u64) { names } else { Vec::new() },
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
    result: Map<Figures>,
}

impl<'a> PhaseSummary<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        Fact::Summary {
            stage: Stage::named(self.phase.0.unwrap_or_default()),
            figures: self.result.0.unwrap_or_default(),
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
            Some((scope, name)) => {
                let said = (Form::Item, ObjectState::failed(sentence(&detail)));
                object_fact(object_of(phase), scope, name, said, None)
            }
            None => Fact::Trouble(Failure {
                step: phase.into_owned(),
                error: plain(&message.unwrap_or_else(|| detail.clone()), SENTENCE).into_owned(),
                detail,
            }),
        }
    }
}

/// Where an item belongs, and its name, which may be missing; an item may also be a name and nothing else.
fn item_name(raw: &RawValue) -> Option<(Scope<'_>, Cow<'_, str>)> {
    if let Some(item) = fields_of::<Item<'_>>(Some(raw)).filter(|_| raw.get() != "{}") {
        let (scope, name) = item.read();
        return Some((scope, name.unwrap_or_default()));
    }
    let name = serde_json::from_str::<Text<'_>>(raw.get()).ok().and_then(named)?;
    Some((Scope::default(), name))
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
    pub(super) fn fact(self) -> Fact<'a> {
        match (named(self.original_name), named(self.resolved_name)) {
            (Some(from), Some(to)) => Fact::Renamed { from, to },
            _ => Fact::Nothing,
        }
    }
}
