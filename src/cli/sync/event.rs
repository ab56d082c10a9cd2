//! The events of a sync, and their texts.

use std::borrow::Cow;

use serde::Deserialize;

use crate::client::JobEvent;
use crate::core::text::plain;

/// The longest line, in characters. A backend may send anything.
const MAX_LINE: usize = 4000;

/// What is read of an event of the bridge.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct EventData {
    pub(super) step: String,
    pub(super) status: String,
    pub(super) message: String,
    pub(super) rowid: Option<String>,
    pub(super) error: Option<String>,
    pub(super) ok: bool,
}

/// Whether `event`, a `complete`, is that of a success.
pub(super) fn is_ok(event: &JobEvent) -> bool {
    serde_json::from_str::<EventData>(&event.data).is_ok_and(|data| data.ok)
}

/// The text of an event. `None` for one of the backend's own types.
pub(super) fn text<'a>(name: &str, data: &'a EventData) -> Option<Cow<'a, str>> {
    let EventData { message, error, .. } = data;
    let error = error.as_deref().unwrap_or_default();
    match name {
        "step" if data.status == "failed" && !message.contains(error) => {
            Some(plain(&format!("{message}: {error}"), MAX_LINE).into_owned().into())
        }
        "step" | "complete" => Some(plain(message, MAX_LINE)),
        "error" => Some(plain(error, MAX_LINE)),
        _ => None,
    }
}
