//! Commands in an envelope, and the frame that carries the key.

use serde::Deserialize;

/// A command in its envelope, `{"command":C,"run_id":R}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct CommandEnvelope {
    pub(crate) command: String,
    pub(crate) run_id: String,
}

impl CommandEnvelope {
    /// Parses an envelope. `None` if its `run_id` is not `[A-Za-z0-9_-]{8,64}`: backends treat that as an unknown
    /// command.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let envelope: Self = serde_json::from_str(text).ok()?;
        let id = envelope.run_id.as_bytes();
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        ((8..=64).contains(&id.len()) && id.iter().all(allowed)).then_some(envelope)
    }
}

/// The key in the first text of a WebSocket, if that is a key message.
pub(crate) fn key_in(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct KeyFrame {
        api_key: String,
    }
    serde_json::from_str::<KeyFrame>(text).ok().map(|frame| frame.api_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_needs_a_run_id_of_eight_plain_characters() {
        assert!(CommandEnvelope::parse(r#"{"command":"Sync Nodes","run_id":"run-00000001"}"#).is_some());
        for text in [
            "Sync Nodes",
            r#"{"command":"Sync Nodes"}"#,
            r#"{"command":"Sync Nodes","run_id":"x"}"#,
            r#"{"command":"Sync Nodes","run_id":"not plain!"}"#,
        ] {
            assert_eq!(CommandEnvelope::parse(text), None, "{text}");
        }
    }
}
