//! The recorded WebSocket of one path.

use super::commands::Commands;
use super::conversation::Conversation;
use super::script::Script;
use crate::core::domain::release::Release;
use crate::recording::{Protocol, RecordedEvent, RecordedKey, Recording};

/// A recording with its name.
#[derive(Clone, Debug)]
pub(super) struct RecordedExchange {
    pub(super) name: String,
    /// Whether it was selected by name.
    pub(super) chosen: bool,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) recording: Recording,
}

impl RecordedExchange {
    /// Whether the client disconnected from an HTTP exchange before its end.
    pub(super) fn is_unfinished(&self) -> bool {
        let last = self.recording.frames.last();
        self.recording.header.protocol == Protocol::Http
            && last.is_some_and(|frame| frame.event == RecordedEvent::Open)
    }
}

/// The recorded WebSocket of one path.
#[derive(Clone, Debug)]
pub(super) struct ReplaySocket {
    /// The recording whose handshake is served.
    pub(super) handshake: Recording,
    pub(super) requires_key: bool,
    pub(super) greeting: Script,
    pub(super) commands: Commands,
}

impl ReplaySocket {
    /// Combines the recordings of this path. The first match takes precedence.
    pub(super) fn new(path: &str, release: Option<Release>, exchanges: &[RecordedExchange]) -> Self {
        let here: Vec<(&RecordedExchange, Conversation)> = exchanges
            .iter()
            .filter(|it| it.recording.header.protocol == Protocol::Websocket && it.path == path)
            .map(|it| (it, Conversation::from_recording(&it.name, &it.recording)))
            .collect();
        let asks_for_key = here.iter().any(|(_, conversation)| conversation.sent_key);
        let all_refused = here.iter().all(|(it, conversation)| conversation.was_refused(&it.recording));
        // Recordings with no key or a wrong one have no commands.
        let accepted = |(it, conversation): &&(&RecordedExchange, Conversation)| {
            it.recording.status() == Some(101)
                && conversation.sent_key == asks_for_key
                && (it.chosen || all_refused || !conversation.was_refused(&it.recording))
        };
        let handshake = here
            .iter()
            .find(|(it, _)| it.chosen)
            .or_else(|| here.iter().find(accepted))
            .or(here.first())
            .map_or_else(
                // The caller has found an exchange with this path.
                || Recording::new("", Protocol::Websocket, RecordedKey::None),
                |(it, _)| it.recording.clone(),
            );
        let greets = |(it, conversation): &&(&RecordedExchange, Conversation)| {
            let greeting = &conversation.greeting;
            greeting.texts().next().is_some() || it.chosen && !greeting.steps.is_empty()
        };
        // The first that greets; if none does, one that closes instead.
        let accepts = || here.iter().filter(accepted);
        let mut greeting = accepts()
            .find(greets)
            .or_else(|| accepts().find(|(_, conversation)| !conversation.greeting.steps.is_empty()))
            .map_or_else(Script::default, |(_, conversation)| conversation.greeting.clone());
        let commands = here.iter().filter(accepted).map(|(it, conversation)| (it.chosen, conversation));
        let commands = Commands::new(release, commands, &greeting);
        if path == "/ws" {
            greeting = greeting.returning_after_texts();
        }
        Self { handshake, requires_key: asks_for_key, greeting, commands }
    }
}
