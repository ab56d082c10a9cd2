//! The limits on concurrent use by clients.

use crate::core::text::string_enum::string_enum;

string_enum! {
    /// A limit that a client can exceed.
    pub enum Limit {
        /// All connections.
        Connections = "connections",
        /// The connections of one address.
        ConnectionsPerAddress = "connections_per_address",
        /// All proxied requests.
        Requests = "requests",
        /// The proxied requests of one address.
        RequestsPerAddress = "requests_per_address",
        /// All streams and tunnels.
        Streams = "streams",
        /// The streams and tunnels of one address.
        StreamsPerAddress = "streams_per_address",
        /// The streams and tunnels with one API key.
        StreamsPerKey = "streams_per_key",
    }
}

impl Limit {
    /// The status of the answer when the limit is exceeded: 503 if the bridge is full, 429 if one client uses too much.
    pub const fn status(self) -> u16 {
        match self {
            Self::Connections | Self::Requests | Self::Streams => 503,
            Self::ConnectionsPerAddress
            | Self::RequestsPerAddress
            | Self::StreamsPerAddress
            | Self::StreamsPerKey => 429,
        }
    }

    /// What exceeds the limit, and where to change it.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Connections => "Too many connections (limits.connections).",
            Self::ConnectionsPerAddress => {
                "Too many connections from your address (limits.connections_per_address)."
            }
            Self::Requests => "Too many concurrent requests (limits.requests).",
            Self::RequestsPerAddress => {
                "Too many concurrent requests from your address (limits.requests_per_address)."
            }
            Self::Streams => "Too many streams and tunnels (limits.streams).",
            Self::StreamsPerAddress => {
                "Too many streams and tunnels from your address (limits.streams_per_address)."
            }
            Self::StreamsPerKey => "Too many streams and tunnels with your API key (limits.streams_per_key).",
        }
    }
}
