//! The `run_id` that a client wants to see in every frame.

use super::markup;

/// Texts and frames as one client is given them.
#[derive(Debug)]
pub(super) struct ClientEnvelope {
    /// The end of every JSON frame of a client that correlates: its `run_id`.
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

    /// A text: bare, or inside of a frame for a client that correlates.
    pub(super) fn message(&self, text: &str) -> String {
        match &self.run_id_suffix {
            None => text.to_owned(),
            Some(mark) => format!("{{\"message\":{}{mark}", markup::json(text)),
        }
    }

    /// Ends a JSON object that has fields and no closing brace.
    pub(super) fn close_object(&self, mut frame: String) -> String {
        frame.push_str(self.run_id_suffix.as_deref().unwrap_or("}"));
        frame
    }
}
