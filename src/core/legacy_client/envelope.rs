//! Adds the client's `run_id` to every frame.

use super::markup;

/// The framing of texts and JSON for one client.
#[derive(Debug)]
pub(super) struct ClientEnvelope {
    /// The end of every JSON frame with the `run_id`, if the client correlates.
    run_id_suffix: Option<String>,
}

impl ClientEnvelope {
    pub(super) fn new(run_id: Option<&str>) -> Self {
        let mark =
            |run_id| format!(",\"run_id\":{}}}", markup::json(&markup::text(run_id, markup::MAX_TEXT)));
        Self { run_id_suffix: run_id.map(mark) }
    }

    pub(super) fn is_correlated(&self) -> bool {
        self.run_id_suffix.is_some()
    }

    /// A text: bare, or in a frame if the client correlates.
    pub(super) fn message(&self, text: &str) -> String {
        match &self.run_id_suffix {
            None => text.to_owned(),
            Some(mark) => format!("{{\"message\":{}{mark}", markup::json(text)),
        }
    }

    /// Closes a JSON object that has at least one field.
    pub(super) fn close_object(&self, mut frame: String) -> String {
        frame.push_str(self.run_id_suffix.as_deref().unwrap_or("}"));
        frame
    }
}
