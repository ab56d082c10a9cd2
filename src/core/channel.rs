//! The ways to drive a backend.

use std::fmt;

/// How a job drives the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The backend's own server-sent events.
    Native,
    /// A command on the legacy `/ws` socket.
    Websocket,
    /// The plain endpoint, which answers once when all the work is done.
    Json,
}

impl Channel {
    /// The word for this channel in configuration, logs and records.
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
