//! Timed actions of a backend on a WebSocket.

use std::time::Duration;

use bytes::Bytes;

/// Actions, each with its time after the start of the script.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Script {
    pub(super) steps: Vec<ScriptStep>,
}

/// An action with its time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScriptStep {
    pub(super) after: Duration,
    pub(super) act: ScriptAction,
}

/// An action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ScriptAction {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    Close {
        code: Option<u16>,
        reason: String,
    },
    Cut,
    /// Start the next command.
    Returned,
}

impl Script {
    pub(super) fn push(&mut self, after: Duration, act: ScriptAction) {
        self.steps.push(ScriptStep { after, act });
    }

    /// A script that sends these texts at once and returns.
    pub(super) fn from_texts(texts: impl IntoIterator<Item = String>) -> Self {
        let acts = texts.into_iter().map(ScriptAction::Text).chain([ScriptAction::Returned]);
        Self { steps: acts.map(|act| ScriptStep { after: Duration::ZERO, act }).collect() }
    }

    /// The texts of the script.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.act {
            ScriptAction::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// This script with its texts replaced.
    pub(super) fn map_texts(mut self, change: impl Fn(&str) -> String) -> Self {
        for step in &mut self.steps {
            if let ScriptAction::Text(text) = &mut step.act {
                *text = change(text);
            }
        }
        self
    }

    /// This script, freeing the command loop after its last step at the latest.
    pub(super) fn returning(mut self) -> Self {
        if !self.has_end() {
            let after = self.steps.last().map_or(Duration::ZERO, |step| step.after);
            self.push(after, ScriptAction::Returned);
        }
        self
    }

    /// This script as a greeting: the command loop starts after its last text. Pings may follow.
    pub(super) fn returning_after_texts(mut self) -> Self {
        if !self.has_end() {
            let is_text = |step: &ScriptStep| matches!(step.act, ScriptAction::Text(_));
            let at = self.steps.iter().rposition(is_text).map_or(0, |last| last + 1);
            let after = self.steps[..at].last().map_or(Duration::ZERO, |step| step.after);
            self.steps.insert(at, ScriptStep { after, act: ScriptAction::Returned });
        }
        self
    }

    /// Whether the script frees the command loop or ends the connection.
    pub(super) fn has_end(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(step.act, ScriptAction::Returned | ScriptAction::Close { .. } | ScriptAction::Cut)
        })
    }
}
