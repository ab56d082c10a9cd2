//! The event types introduced in 0.0.7 and later.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{error_text, note};
use crate::core::domain::event::Failure;
use crate::core::domain::figures::Figures;
use crate::core::domain::kind::Kind;
use crate::core::run::tally::{EventForm, Scope};
use crate::core::text::detail::{self, SENTENCE};
use crate::core::text::plain;
use crate::core::upstream::event_json::read_fields;
use crate::core::upstream::fact::{Fact, ObjectState, Stage};
use crate::core::upstream::legacy::{
    NamedRecord, fields_of, non_empty, object_fact, scope_name, sentence, tidy,
};
use crate::core::upstream::lenient::{LenientBool, LenientCount, LenientMap, LenientText};

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Item<'a> {
    name: LenientText<'a>,
    vm: LenientText<'a>,
    device: LenientText<'a>,
    cluster: LenientText<'a>,
    netbox_id: LenientCount,
}

read_fields!(Item { name, vm, device, cluster, netbox_id });

impl<'a> Item<'a> {
    /// Its scope, and its name if present.
    fn read(self) -> (Scope<'a>, Option<Cow<'a, str>>) {
        let owner = scope_name(self.vm).or_else(|| scope_name(self.device));
        (Scope { cluster: scope_name(self.cluster), owner }, non_empty(self.name))
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct ItemProgress<'a> {
    phase: LenientText<'a>,
    status: LenientText<'a>,
    message: LenientText<'a>,
    item: LenientMap<Item<'a>>,
    operation: LenientText<'a>,
    error: LenientText<'a>,
    warning: LenientText<'a>,
}

read_fields!(ItemProgress { phase, status, message, item, operation, error, warning });

impl<'a> ItemProgress<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        let phase = self.phase.0.unwrap_or_default();
        let (status, operation) = (self.status.or_empty(), self.operation.or_empty());
        let has_failed = status == "failed" || operation == "failed";
        let id = self.item.0.as_ref().and_then(|item| item.netbox_id.0);
        let state = match status {
            _ if has_failed => Some(ObjectState::failed(error_text(&self.error, &self.message))),
            // It was processed, but nothing was synced.
            _ if matches!(operation, "skipped" | "deleted" | "would_delete") => None,
            "completed" => Some(ObjectState::Completed { warning: self.warning.as_str().map(sentence), id }),
            // A part of it failed, and the object is in NetBox anyway.
            "warning" => {
                Some(ObjectState::Completed { warning: Some(error_text(&self.warning, &self.message)), id })
            }
            _ => Some(ObjectState::Processing),
        };
        let (scope, name) = self.item.0.unwrap_or_default().read();
        match (name.or(has_failed.then_some(Cow::Borrowed(""))), state) {
            // `hardware_discovery` is data read over SSH from a node that is already in NetBox.
            (Some(name), Some(state)) if phase != "hardware_discovery" => {
                object_fact(object_of(phase), scope, name, (EventForm::Item, state), None)
            }
            _ => note(phase, self.message.0.unwrap_or_default()),
        }
    }
}

/// The name of the objects in the backend's phase `phase`.
fn object_of(phase: Cow<'_, str>) -> Cow<'_, str> {
    Kind::from_stage(&phase).map_or(phase, |kind| Cow::Borrowed(kind.row().object.as_str()))
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Discovery<'a> {
    phase: LenientText<'a>,
    count: LenientCount,
    items: Option<&'a RawValue>,
    message: LenientText<'a>,
}

impl<'a> Discovery<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        let items = self
            .items
            .and_then(|raw| serde_json::from_str::<Vec<LenientMap<NamedRecord<'_>>>>(raw.get()).ok());
        let names =
            items.unwrap_or_default().into_iter().map(|item| non_empty(item.0?.name).map(Cow::into_owned));
        let names: Vec<String> = names.collect::<Option<_>>().unwrap_or_default();
        Fact::Discovered {
            stage: Stage::from_name(self.phase.0.unwrap_or_default()),
            count: self.count.0,
            // A truncated list is of no use.
            names: if self.count.0 == Some(names.len() as u64) { names } else { Vec::new() },
            message: tidy(self.message.0.unwrap_or_default(), SENTENCE),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct PhaseSummary<'a> {
    phase: LenientText<'a>,
    message: LenientText<'a>,
    result: LenientMap<Figures>,
}

impl<'a> PhaseSummary<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        Fact::Summary {
            stage: Stage::from_name(self.phase.0.unwrap_or_default()),
            figures: self.result.0.unwrap_or_default(),
            message: tidy(self.message.0.unwrap_or_default(), SENTENCE),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct ErrorDetail<'a> {
    phase: LenientText<'a>,
    item: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
    detail: Option<&'a RawValue>,
    suggestion: Option<&'a RawValue>,
}

impl<'a> ErrorDetail<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        let phase = self.phase.0.unwrap_or_default();
        let message = detail::text_of_field(self.message);
        let detail = detail::join_distinct(
            [message.clone(), detail::text_of_field(self.detail), detail::text_of_field(self.suggestion)]
                .into_iter()
                .flatten()
                .collect(),
        );
        match self.item.and_then(item_name) {
            Some((scope, name)) => {
                let report = (EventForm::Item, ObjectState::failed(sentence(&detail)));
                object_fact(object_of(phase), scope, name, report, None)
            }
            None => Fact::StageError(Failure {
                step: phase.into_owned(),
                error: plain(&message.unwrap_or_else(|| detail.clone()), SENTENCE).into_owned(),
                detail,
            }),
        }
    }
}

/// The scope and name of an item. The name may be missing, and an item may be only a name.
fn item_name(raw: &RawValue) -> Option<(Scope<'_>, Cow<'_, str>)> {
    if let Some(item) = fields_of::<Item<'_>>(Some(raw)).filter(|_| raw.get() != "{}") {
        let (scope, name) = item.read();
        return Some((scope, name.unwrap_or_default()));
    }
    let name = serde_json::from_str::<LenientText<'_>>(raw.get()).ok().and_then(non_empty)?;
    Some((Scope::default(), name))
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Substep<'a> {
    phase: LenientText<'a>,
    status: LenientText<'a>,
    message: LenientText<'a>,
}

read_fields!(Substep { phase, status, message });

impl<'a> Substep<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        // A part of an object failed. The object itself may still complete.
        if self.status.or_empty() == "failed" {
            note(self.phase.0.unwrap_or_default(), self.message.0.unwrap_or_default())
        } else {
            Fact::Nothing
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Bootstrap<'a> {
    ok: LenientBool,
    reason: Option<&'a RawValue>,
    warnings: Option<&'a RawValue>,
}

impl<'a> Bootstrap<'a> {
    /// A bootstrap that is not `ok` is not a failure: the run may still succeed.
    pub(super) fn fact(&self) -> Fact<'a> {
        if self.ok.0 == Some(true) {
            return Fact::Nothing;
        }
        let reasons = [self.reason, self.warnings].into_iter().filter_map(detail::text_of_field).collect();
        let message = match detail::join_distinct(reasons) {
            reasons if reasons.is_empty() => "NetBox bootstrap was not complete.".to_owned(),
            reasons => format!("NetBox bootstrap was not complete: {}", plain(&reasons, SENTENCE)),
        };
        Fact::Note { step: Cow::Borrowed("bootstrap"), message: Cow::Owned(message) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct DuplicateName<'a> {
    original_name: LenientText<'a>,
    resolved_name: LenientText<'a>,
}

impl<'a> DuplicateName<'a> {
    pub(super) fn fact(self) -> Fact<'a> {
        match (non_empty(self.original_name), non_empty(self.resolved_name)) {
            (Some(from), Some(to)) => Fact::Renamed { from, to },
            _ => Fact::Nothing,
        }
    }
}
