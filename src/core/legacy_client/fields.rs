//! The events of a job's log, as far as a page can show them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::markup;
use crate::core::upstream::lenient::{LenientBool, LenientMap, LenientText};

/// The fields of `step`, `error` and `complete`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LogEvent<'a> {
    #[serde(borrow)]
    pub(super) step: LenientText<'a>,
    #[serde(borrow)]
    pub(super) status: LenientText<'a>,
    #[serde(borrow)]
    pub(super) message: LenientText<'a>,
    #[serde(borrow)]
    pub(super) rowid: LenientText<'a>,
    #[serde(borrow)]
    pub(super) error: LenientText<'a>,
    #[serde(borrow)]
    pub(super) detail: LenientText<'a>,
    pub(super) ok: LenientBool,
    #[serde(borrow)]
    pub(super) errors: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

impl<'a> LogEvent<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        serde_json::from_slice::<LenientMap<Self>>(data).ok()?.0
    }

    /// The error of the object. Never empty, because clients detect a failure by its text.
    pub(super) fn reason(&self) -> String {
        let reason = self.error.as_str().or(self.message.as_str()).unwrap_or("no reason given");
        markup::text(reason, markup::MAX_TEXT)
    }
}

/// The `data` of the legacy frame in a step's payload, by key. Empty if the step has none.
#[derive(Default)]
pub(super) struct LegacyFields<'a>(BTreeMap<String, &'a RawValue>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl<'a> LegacyFields<'a> {
    pub(super) fn from_payload(payload: Option<&'a RawValue>) -> Self {
        let data = payload
            .and_then(|raw| serde_json::from_str::<LenientMap<Payload<'a>>>(raw.get()).ok()?.0)
            .and_then(|payload| payload.data);
        Self(data.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default())
    }

    pub(super) fn raw(&self, key: &str) -> Option<&'a RawValue> {
        self.0.get(key).copied()
    }

    /// A text value without markup.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let text: LenientText<'_> = serde_json::from_str(self.raw(key)?.get()).ok()?;
        text.as_str().map(|text| markup::text(text, markup::MAX_TEXT))
    }

    /// The key and the name of the object's parent.
    pub(super) fn owner(&self) -> Option<(&'static str, String)> {
        ["vm", "device"].into_iter().find_map(|key| Some((key, self.text(key)?)))
    }

    /// Whether its status is about the sync of the object (`"status": "warning"`), not about the object.
    pub(super) fn is_remark(&self) -> bool {
        ["warning", "error"].into_iter().any(|key| self.text(key).is_some())
    }
}
