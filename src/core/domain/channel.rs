//! Channels: the ways to drive a backend.

use std::fmt;

use crate::core::text::words::words;

/// How a job drives the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The backend's own server-sent events.
    Native,
    /// A command on the legacy `/ws` socket.
    Websocket,
    /// The plain endpoint, which answers once after all its work.
    Json,
}

impl Channel {
    /// The name of the channel in configuration, logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Websocket => "websocket",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the channel of a job is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChannelChoice {
    /// The bridge chooses by kind and by the backend's capabilities.
    #[default]
    Auto,
    /// The operator fixed this channel for every kind.
    Only(Channel),
}

impl ChannelChoice {
    /// Whether `channel` may be used.
    pub fn allows(self, channel: Channel) -> bool {
        self == Self::Auto || self == Self::Only(channel)
    }
}

/// The text is not the name of a channel choice.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of: {}", ChannelChoice::WORDS.join(", "))]
pub struct UnknownChannel;

words!(ChannelChoice or UnknownChannel {
    Auto => "auto",
    Only(Channel::Native) => Channel::Native.as_str(),
    Only(Channel::Websocket) => Channel::Websocket.as_str(),
    Only(Channel::Json) => Channel::Json.as_str(),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_choice() {
        for (choice, word) in ChannelChoice::ALL.into_iter().zip(ChannelChoice::WORDS) {
            assert_eq!(word.parse(), Ok(choice));
            assert_eq!(choice.to_string(), word);
        }
        assert_eq!(
            "sse".parse::<ChannelChoice>().unwrap_err().to_string(),
            "not one of: auto, native, websocket, json"
        );
    }
}
