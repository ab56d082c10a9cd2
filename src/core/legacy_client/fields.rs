//! The fields of the legacy frame in a step's payload.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::markup;
use crate::core::upstream::lenient::{LenientMap, LenientText};

/// The `data` of the legacy frame in a step's payload, by key. Empty if the step has none.
#[derive(Default)]
pub(super) struct LegacyFields<'a>(BTreeMap<String, &'a RawValue>);

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Payload<'a> {
    data: Option<&'a RawValue>,
}

impl<'a> LegacyFields<'a> {
    pub(super) fn from_payload(payload: Option<&'a [u8]>) -> Self {
        let data = payload
            .and_then(|json| serde_json::from_slice::<LenientMap<Payload<'a>>>(json).ok()?.0)
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
