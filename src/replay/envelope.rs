//! Commands in an envelope, `{"command":C,"run_id":R}`: every answer to one has its `run_id`.

use serde::Deserialize;

use super::script::{Script, ScriptAction, ScriptStep};
use crate::recording::CommandEnvelope;

impl CommandEnvelope {
    /// Converts the answer to `recorded` to an answer to this envelope.
    pub(super) fn readdress(&self, recorded: &Self, script: Script) -> Script {
        let (old, new) = (format!("\"{}\"", recorded.run_id), format!("\"{}\"", self.run_id));
        script.map_texts(|text| text.replace(&old, &new))
    }

    /// Converts the answer to the bare command to an answer to this envelope.
    ///
    /// Backends that support envelopes keep the socket open when a command fails, and end a full update with an
    /// aggregate that the bare command lacks.
    pub(super) fn wrap(&self, script: Script) -> Script {
        let is_full = self.command.starts_with("Full Update");
        let mut ended: Vec<&'static str> = Vec::new();
        let mut wrapped = Script::default();
        for ScriptStep { after, act } in script.steps {
            let mut text = |text| wrapped.push(after, ScriptAction::Text(text));
            let act = match act {
                ScriptAction::Text(recorded) => {
                    ended.extend(stage_ended(&recorded));
                    ScriptAction::Text(self.wrap_text(&recorded))
                }
                ScriptAction::Returned if is_full => {
                    text(self.aggregate(&ended, "skipped"));
                    ScriptAction::Returned
                }
                ScriptAction::Close { .. } => {
                    text(self.failure(&ended));
                    if is_full {
                        text(self.aggregate(&ended, "failed"));
                    }
                    ScriptAction::Returned
                }
                other => other,
            };
            wrapped.push(after, act);
        }
        wrapped
    }

    /// `{"message":TEXT,"run_id":R}`, or the JSON object with `run_id` added as its last member. The other bytes of the
    /// object stay those of the recording.
    pub(super) fn wrap_text(&self, text: &str) -> String {
        let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            .is_ok_and(|object| !object.is_empty());
        match text.trim_end().strip_suffix('}') {
            Some(open) if is_object => format!("{open},\"run_id\":\"{}\"}}", self.run_id),
            _ => {
                let message = serde_json::Value::from(text);
                format!("{{\"message\":{message},\"run_id\":\"{}\"}}", self.run_id)
            }
        }
    }

    fn failure(&self, ended: &[&str]) -> String {
        let devices = self.command == "Sync Nodes"
            || self.command.starts_with("Full Update") && !ended.contains(&DEVICES);
        let phase = if devices { DEVICES } else { VIRTUAL_MACHINES };
        self.wrap_text(&format!(
            "{{\"event\":\"error_detail\",\"phase\":\"{phase}\",\"category\":\"internal\",\
             \"message\":\"{phase} synchronization failed.\"}}"
        ))
    }

    fn aggregate(&self, ended: &[&str], without_end: &str) -> String {
        let of = |stage| if ended.contains(&stage) { "completed" } else { without_end };
        let (devices, machines) = (of(DEVICES), of(VIRTUAL_MACHINES));
        let machines = if devices == "failed" { "skipped" } else { machines };
        let status = if without_end == "failed" { "failed" } else { "completed" };
        self.wrap_text(&format!(
            "{{\"object\":\"full-update\",\"end\":true,\"status\":\"{status}\",\
             \"stages\":{{\"{DEVICES}\":\"{devices}\",\"{VIRTUAL_MACHINES}\":\"{machines}\"}}}}"
        ))
    }
}

const DEVICES: &str = "devices";
const VIRTUAL_MACHINES: &str = "virtual-machines";

/// The stage that ends with this frame.
fn stage_ended(text: &str) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct End {
        object: String,
        end: bool,
    }
    match serde_json::from_str::<End>(text).ok()? {
        End { object, end: true } if object == "device" => Some(DEVICES),
        End { object, end: true } if object == "virtual_machine" => Some(VIRTUAL_MACHINES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(command: &str) -> CommandEnvelope {
        CommandEnvelope { command: command.to_owned(), run_id: "run-00000001".to_owned() }
    }

    #[test]
    fn a_wrapped_text_is_a_message_and_a_wrapped_object_keeps_its_bytes() {
        let envelope = envelope("Sync Nodes");
        assert_eq!(envelope.wrap_text("a \"b\""), r#"{"message":"a \"b\"","run_id":"run-00000001"}"#);
        assert_eq!(
            envelope.wrap_text(r#"{"z":{"é":1},"a":[]}"#),
            r#"{"z":{"é":1},"a":[],"run_id":"run-00000001"}"#
        );
    }

    #[test]
    fn a_failed_full_update_says_so_and_keeps_the_socket() {
        let mut script = Script::default();
        script.push(Default::default(), ScriptAction::Text(r#"{"object":"device","end":true}"#.to_owned()));
        script.push(Default::default(), ScriptAction::Close { code: Some(1000), reason: String::new() });
        let wrapped = envelope("Full Update Sync").wrap(script);
        let texts: Vec<_> = wrapped.texts().collect();
        assert_eq!(
            texts[1..],
            [
                r#"{"event":"error_detail","phase":"virtual-machines","category":"internal","message":"virtual-machines synchronization failed.","run_id":"run-00000001"}"#,
                r#"{"object":"full-update","end":true,"status":"failed","stages":{"devices":"completed","virtual-machines":"failed"},"run_id":"run-00000001"}"#,
            ]
        );
        assert_eq!(wrapped.steps.last().unwrap().act, ScriptAction::Returned);
    }
}
