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
            Self::Connections => "There are as many connections as there may be (limits.connections).",
            Self::ConnectionsPerAddress => {
                "Your address has as many connections as it may have (limits.connections_per_address)."
            }
            Self::Requests => "There are as many requests on their way as there may be (limits.requests).",
            Self::RequestsPerAddress => {
                "Your address has as many requests on their way as it may have (limits.requests_per_address)."
            }
            Self::Streams => "There are as many streams and tunnels as there may be (limits.streams).",
            Self::StreamsPerAddress => {
                "Your address has as many streams and tunnels as it may have (limits.streams_per_address)."
            }
            Self::StreamsPerKey => {
                "Your API key has as many streams and tunnels as it may have (limits.streams_per_key)."
            }
        }
    }
}
