//! Channels: the ways to drive a backend.

use crate::core::text::string_enum::{string_enum, variant_names};

string_enum! {
    /// How a job drives the backend.
    pub enum Channel {
        /// The backend's own server-sent events.
        Native = "native",
        /// A command on the legacy `/ws` socket.
        Websocket = "websocket",
        /// The plain endpoint, which answers once after all its work.
        Json = "json",
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

variant_names!(pub ChannelChoice {
    Auto => "auto",
    Only(Channel::Native) => Channel::Native.as_str(),
    Only(Channel::Websocket) => Channel::Websocket.as_str(),
    Only(Channel::Json) => Channel::Json.as_str(),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_its_choice() {
        for (choice, word) in ChannelChoice::ALL.into_iter().zip(ChannelChoice::NAMES) {
            assert_eq!(word.parse(), Ok(choice));
            assert_eq!(choice.to_string(), word);
        }
        assert_eq!(
            "sse".parse::<ChannelChoice>().unwrap_err().to_string(),
            "not one of: auto, native, websocket, json"
        );
    }
}
