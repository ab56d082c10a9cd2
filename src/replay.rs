//! A fake backend that serves recordings.
//!
//! A [`Library`] has the recordings of one release, a [`ReplayServer`] serves them over HTTP and WebSocket, and its
//! [`ServerLog`] records the actions of clients. Tests run the server in their own process; the command is
//! `proxbox-bridge replay DIR`. The server can also inject faults, see [`ReplayOptions`].
//!
//! Answers that were not recorded but are known of a release (to an unknown command, to a request without a key) are
//! generated. Everything else is served from the recordings byte for byte.

mod answer;
mod body;
mod commands;
mod connection;
mod conversation;
mod envelope;
mod http;
mod keys;
mod library;
mod line;
mod log;
mod misbehaviour;
mod script;
mod server;
mod session;
mod socket;
mod speed;

pub use library::{Library, LibraryError};
pub use log::{ServerEvent, ServerLog, Side};
pub use server::{ReplayHandle, ReplayServer};
pub use speed::{NotASpeed, Speed};

use keys::KeyCheck;

/// Options of a [`ReplayServer`].
///
/// The three fault counts are in *frames* of one exchange: an SSE event or comment with the blank line that ends it, a
/// WebSocket text frame, or the whole body of any other response. The lowest count takes effect first. Exchanges with
/// fewer frames are not affected, nor are `/`, `/version`, `/health` and `/execution-policy`.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// The speed of the replay.
    pub speed: Speed,
    /// The valid API key. If it is not set, every key is valid. Backends before 0.0.7 require none.
    pub api_key: Option<String>,
    /// Drop the TCP connection after this many frames, without the end that the protocol requires.
    pub cut_after: Option<u64>,
    /// Send nothing more after this many frames, and keep the connection open.
    pub stall_after: Option<u64>,
    /// Send garbage after this many frames, then continue with the recording.
    pub garbage_after: Option<u64>,
}

/// The state that all connections of a server share.
struct Shared {
    library: Library,
    options: ReplayOptions,
    keys: KeyCheck,
    log: ServerLog,
}
