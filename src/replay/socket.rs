//! What happens on the WebSocket of one path.

use super::commands::Commands;
use super::conversation::Conversation;
use super::exchange::Exchange;
use super::script::Script;
use crate::core::domain::release::Release;
use crate::recording::{Key, Protocol, Recording};

/// What happens on the WebSocket of one path.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    /// The recording whose handshake is served.
    pub(super) handshake: Recording,
    pub(super) asks_for_key: bool,
    pub(super) greeting: Script,
    pub(super) commands: Commands,
}

impl Socket {
    /// Puts together what the recordings of this path show. The first that fits is taken.
    pub(super) fn of(path: &str, release: Option<Release>, exchanges: &[Exchange]) -> Self {
        let here: Vec<(&Exchange, Conversation)> = exchanges
            .iter()
            .filter(|it| it.recording.header.protocol == Protocol::Websocket && it.path == path)
            .map(|it| (it, Conversation::of(&it.name, &it.recording)))
            .collect();
        let asks_for_key = here.iter().any(|(_, conversation)| conversation.showed_key);
        // Recordings of clients without a key, or with a wrong one, say nothing about commands.
        let accepted = |(it, conversation): &&(&Exchange, Conversation)| {
            it.recording.status() == Some(101)
                && conversation.showed_key == asks_for_key
                && (it.chosen || !conversation.turned_away(&it.recording))
        };
        let handshake = here
            .iter()
            .find(|(it, _)| it.chosen)
            .or_else(|| here.iter().find(accepted))
            .or(here.first())
            .map_or_else(
                // There is an exchange with this path, or nobody would ask for its socket.
                || Recording::new("", Protocol::Websocket, Key::None),
                |(it, _)| it.recording.clone(),
            );
        let greets = |(it, conversation): &&(&Exchange, Conversation)| {
            let greeting = &conversation.greeting;
            greeting.texts().next().is_some() || it.chosen && !greeting.steps.is_empty()
        };
        let mut greeting = here
            .iter()
            .filter(accepted)
            .find(greets)
            .map_or_else(Script::default, |(_, conversation)| conversation.greeting.clone());
        let commands = here.iter().filter(accepted).map(|(it, conversation)| (it.chosen, conversation));
        let commands = Commands::new(release, commands, &greeting);
        if path == "/ws" {
            greeting = greeting.returning_after_texts();
        }
        Self { handshake, asks_for_key, greeting, commands }
    }
}
