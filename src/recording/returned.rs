//! Where commands on `/ws` returned.
//!
//! A backend reads the next command when the previous one has returned, which is not visible on the wire. A bridge sends
//! the next command at once. Without marks, all answers would belong to that one.

use serde_json::Value;

use super::{CommandEnvelope, Direction, RecordedEvent, RecordedFrame, Recording, key_in};
use crate::core::domain::release::Release;

/// The first release that has a full update of its own. Earlier ones run it, and then reject it as unknown.
const FIRST_WITH_FULL_UPDATE: Release = Release::new(0, 0, 3);
/// The first release with envelopes.
const FIRST_WITH_ENVELOPE: Release = Release::new(0, 0, 27).post(3);

impl Recording {
    /// Adds a [`RecordedEvent::Returned`] after the last frame of every command that ended on `/ws`. A recording that
    /// has such marks stays as it is.
    pub fn mark_returned(&mut self) {
        let is_marked = self.frames.iter().any(|frame| frame.event == RecordedEvent::Returned);
        let is_socket = self.request().is_some_and(|(_, target)| target.split('?').next() == Some("/ws"));
        if is_marked || !is_socket {
            return;
        }
        let release = self.header.backend.parse().ok();
        let commands =
            self.frames.iter().enumerate().filter_map(|(at, frame)| Some((at, frame.sent_text()?)));
        let is_key = |(_, text): &(usize, &str)| key_in(text).is_some();
        let (mut marks, mut free_from) = (Vec::new(), 0);
        for (at, command) in commands.skip_while(is_key) {
            // A command that was sent during another one is read after the end of that one.
            let start = free_from.max(at + 1);
            let Some(end) = Run::new(command, release).last_frame(&self.frames[start..]) else { break };
            marks.push(start + end);
            free_from = start + end + 1;
        }
        for end in marks.into_iter().rev() {
            let t_ms = self.frames[end].t_ms;
            let mark = RecordedFrame { t_ms, direction: Direction::Ctl, event: RecordedEvent::Returned };
            self.frames.insert(end + 1, mark);
        }
    }
}

impl RecordedFrame {
    /// The text that the client sent, if it did.
    pub(crate) fn sent_text(&self) -> Option<&str> {
        match &self.event {
            RecordedEvent::Text(text) if self.direction == Direction::Out => Some(text),
            _ => None,
        }
    }
}

/// The run of a command.
struct Run {
    run_id: Option<String>,
    is_full_update: bool,
    /// The objects of the frame that ends it. A command without such a frame ends with the list of valid commands.
    ends: &'static [&'static str],
}

impl Run {
    fn new(command: &str, release: Option<Release>) -> Self {
        let has_envelopes = release.is_none_or(|release| release >= FIRST_WITH_ENVELOPE);
        let envelope = CommandEnvelope::parse(command).filter(|_| has_envelopes);
        let run_id = envelope.as_ref().map(|envelope| envelope.run_id.clone());
        let command = envelope.as_ref().map_or(command, |envelope| &envelope.command);
        let is_full_update = matches!(command, "Full Update Sync" | "Full Update");
        let ends: &[&str] = match command {
            _ if is_full_update && release.is_some_and(|release| release < FIRST_WITH_FULL_UPDATE) => &[],
            "Sync Nodes" => &["device", "devices"],
            "Sync Virtual Machines" => &["virtual_machine", "virtual-machines"],
            _ if is_full_update && run_id.is_some() => &["full-update"],
            _ if is_full_update => &["virtual_machine", "virtual-machines"],
            _ => &[],
        };
        Self { run_id, is_full_update, ends }
    }

    /// The last frame of the run in `frames`, which follow its command. `None` if it did not end.
    fn last_frame(&self, frames: &[RecordedFrame]) -> Option<usize> {
        let (mut last, mut devices_end) = (None, None);
        let mut ended: Vec<String> = Vec::new();
        let mut is_next_sent = false;
        for (index, frame) in frames.iter().enumerate() {
            let RecordedEvent::Text(text) = &frame.event else { continue };
            if frame.direction == Direction::Out {
                is_next_sent = true;
                continue;
            }
            let message: Value = serde_json::from_str(text).unwrap_or_default();
            let field = |name: &str| message.get(name).and_then(Value::as_str);
            let plain = if message.is_object() { field("message").unwrap_or_default() } else { text };
            if self.ends.is_empty() {
                if plain.starts_with("Valid commands:") {
                    return Some(index);
                }
                continue;
            }
            let ended_object = field("object").filter(|_| message["end"] == true);
            let is_own =
                |object: &str| self.ends.contains(&object) && !ended.iter().any(|ended| ended == object);
            let is_failure = !self.is_full_update
                && self.run_id.is_some()
                && field("run_id") == self.run_id.as_deref()
                && field("event") == Some("error_detail");
            match ended_object {
                Some(object) if is_own(object) => {
                    last = Some(index);
                    ended.push(object.to_owned());
                }
                _ if is_failure => last = Some(index),
                _ if last.is_some() => return last,
                Some(object) if self.is_full_update && object.starts_with("device") => {
                    devices_end = Some(index);
                }
                // Only the answer to a later command shows that a full update without devices has ended.
                _ if is_next_sent && plain.starts_with("Invalid ") => return devices_end,
                _ => {}
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Protocol, RecordedKey};

    /// The texts of a recording of `backend` with its marks; those of the client begin with `>`.
    fn marks(backend: &str, texts: &[&str]) -> Vec<String> {
        let mut recording = Recording::new(backend, Protocol::Websocket, RecordedKey::None);
        recording.push(0.0, Direction::Out, RecordedEvent::get("/ws"));
        for text in texts {
            match text.strip_prefix('>') {
                Some(text) => recording.push(0.0, Direction::Out, RecordedEvent::text(text)),
                None => recording.push(0.0, Direction::In, RecordedEvent::text(*text)),
            }
        }
        let shown = |frame: &RecordedFrame| match &frame.event {
            RecordedEvent::Text(text) => Some(text.clone()),
            RecordedEvent::Returned => Some("returned".to_owned()),
            _ => None,
        };
        recording.mark_returned();
        recording.frames.iter().filter_map(shown).collect()
    }

    const DEVICES: &str = r#"{"object":"device","end":true}"#;
    const MACHINES: &str = r#"{"object":"virtual_machine","end":true}"#;
    const KEY: &str = r#">{"api_key":"<api-key>"}"#;

    #[test]
    fn a_command_returns_after_its_end_and_an_unknown_one_after_the_list_of_commands() {
        let recorded = [
            KEY, "Connected!", ">Sync Nodes", ">barrier", "a", DEVICES, "Invalid command: barrier",
            "Valid commands: x",
        ];
        let mut expected: Vec<_> =
            recorded.iter().map(|text| text.trim_start_matches('>').to_owned()).collect();
        expected.insert(6, "returned".to_owned());
        expected.push("returned".to_owned());
        assert_eq!(marks("0.0.11.post2", &recorded), expected);
    }

    #[test]
    fn both_ends_of_a_stage_belong_to_its_command() {
        let twice = r#"{"object":"devices","end":true}"#;
        let marked = marks("0.0.3", &[">Sync Nodes", DEVICES, twice, "late"]);
        assert_eq!(marked[2..], [twice, "returned", "late"].map(str::to_owned));
    }

    #[test]
    fn a_full_update_ends_with_its_machines_or_as_its_release_ends_it() {
        let commands = "Valid commands: x";
        for (backend, sent, end) in [
            ("0.0.11.post2", ">Full Update Sync", MACHINES),
            ("0.0.2.post1", ">Full Update Sync", commands),
            (
                "0.0.30.post2",
                r#">{"command":"Full Update Sync","run_id":"12345678"}"#,
                r#"{"object":"full-update","end":true,"run_id":"12345678"}"#,
            ),
        ] {
            let marked = marks(backend, &[sent, DEVICES, end, "late"]);
            assert_eq!(marked[2..], [end, "returned", "late"].map(str::to_owned), "{backend}");
        }
        let marked =
            marks("0.0.11.post2", &[">Full Update Sync", ">x", DEVICES, "Invalid command: x", commands]);
        assert_eq!(
            marked[2..],
            [DEVICES, "returned", "Invalid command: x", commands, "returned"].map(str::to_owned)
        );
    }

    #[test]
    fn a_command_that_did_not_end_has_no_mark_and_neither_has_the_next_one() {
        let texts = [">Sync Nodes", "a", ">Sync Virtual Machines", "b"];
        assert_eq!(marks("0.0.11.post2", &texts).len(), texts.len());
    }
}
