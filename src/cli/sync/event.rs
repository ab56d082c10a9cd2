//! The events of a sync, and their texts.

use serde::Deserialize;

use crate::client::JobEvent;
use crate::core::text::{plain, printable};

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
pub(super) fn text(name: &str, data: &EventData) -> Option<String> {
    let EventData { message, error, .. } = data;
    let error = error.as_deref().unwrap_or_default();
    match name {
        "step" if data.status == "failed" && !message.contains(error) => {
            Some(line(&format!("{message}: {error}")))
        }
        "step" | "complete" => Some(line(message)),
        "error" => Some(line(error)),
        _ => None,
    }
}

/// `text` as one line on a terminal.
fn line(text: &str) -> String {
    printable(&plain(text, MAX_LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_of_a_message_changes_the_direction_of_the_text() {
        let data =
            EventData { message: "Synced \u{202e}<b>pve1</b>\u{1b}[2J".to_owned(), ..EventData::default() };
        assert_eq!(text("step", &data).unwrap(), "Synced   pve1 [2J");
    }
}
