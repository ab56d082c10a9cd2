//! Parses a client's text frames on `/ws`, and answers unknown commands.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::markup::{self, ClientEnvelope};
use crate::core::domain::kind::WsCommand;

/// The maximum length of a repeated unknown command, in characters.
const MAX_REPEATED: usize = 200;
const VALID: &str =
    "Valid commands: 'Sync Nodes', 'Sync Virtual Machines', 'Full Update Sync', 'Full Update'";

/// A parsed text frame of a client. `Debug` does not show a key.
#[derive(Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// Run a command.
    Sync {
        /// The command.
        command: WsCommand,
        /// The `run_id` that every frame of the run carries.
        run_id: Option<String>,
    },
    /// Authenticate with this key.
    Key(String),
    /// An unknown command.
    Unknown {
        /// The first 200 characters of the text.
        text: String,
        /// The `run_id` that the answer carries.
        run_id: Option<String>,
    },
}

impl fmt::Debug for ClientCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync { command, run_id } => {
                f.debug_struct("Run").field("command", command).field("run_id", run_id).finish()
            }
            Self::Key(_) => f.write_str("Key(<api-key>)"),
            Self::Unknown { text, run_id } => {
                f.debug_struct("Unknown").field("text", text).field("run_id", run_id).finish()
            }
        }
    }
}

/// A JSON frame.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CommandJson<'a> {
    #[serde(borrow)]
    command: Option<Cow<'a, str>>,
    #[serde(borrow)]
    run_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    api_key: Option<Cow<'a, str>>,
}

/// Parses the text frame `text`.
pub fn parse_command(text: &str) -> ClientCommand {
    let text = text.trim();
    if let Some(command) = command_from_name(text) {
        return ClientCommand::Sync { command, run_id: None };
    }
    let form: Option<CommandJson<'_>> =
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    let CommandJson { command: name, run_id, api_key } = form.unwrap_or_default();
    if let (None, Some(key)) = (&name, api_key) {
        return ClientCommand::Key(key.into_owned());
    }
    let run_id = run_id.filter(|run_id| is_run_id(run_id)).map(Cow::into_owned);
    match (name, run_id) {
        (Some(name), Some(run_id)) => match command_from_name(&name) {
            Some(command) => ClientCommand::Sync { command, run_id: Some(run_id) },
            None => ClientCommand::Unknown { text: truncated(&name), run_id: Some(run_id) },
        },
        (_, run_id) => ClientCommand::Unknown { text: truncated(text), run_id },
    }
}

/// The two answers to `text`, which is not a command. They show a client that the previous command has returned, so
/// they are sent for any such text: see [`crate::core::upstream::dialect::BARRIER`].
pub fn unknown_command_frames(text: &str, run_id: Option<&str>) -> [String; 2] {
    let envelope = ClientEnvelope::new(run_id);
    let what = if envelope.is_correlated() {
        envelope.message("Invalid sync command")
    } else {
        format!("Invalid command: {}", markup::text(text, MAX_REPEATED))
    };
    [what, envelope.message(VALID)]
}

fn command_from_name(text: &str) -> Option<WsCommand> {
    WsCommand::from_name(text).or_else(|| (text == "Full Update").then_some(WsCommand::FullUpdate))
}

fn is_run_id(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn truncated(text: &str) -> String {
    text.chars().take(MAX_REPEATED).collect()
}
