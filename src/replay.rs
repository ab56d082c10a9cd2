//! A fake backend that serves recorded streams as the backend that they were recorded from did.
//!
//! A [`Library`] holds the recordings of one release, a [`ReplayServer`] serves them over HTTP and
//! WebSocket, and its [`ServerLog`] tells what clients did. Tests run it in their own process, people run
//! `proxbox-bridge replay DIR`. On top of what was recorded it can misbehave on purpose, see
//! [`ReplayOptions`].
//!
//! What is known of a release but was not recorded (its answer to an unknown command, to a request
//! without a key) is filled in; everything else comes out of the recordings byte by byte.

mod answer;
mod body;
mod commands;
mod connection;
mod conversation;
mod envelope;
mod exchange;
mod http;
mod keys;
mod library;
mod line;
mod log;
mod misbehaviour;
mod script;
mod server;
mod session;
mod shared;
mod socket;
mod speed;

pub use library::{Library, LibraryError};
pub use log::{ServerEvent, ServerLog, Side};
pub use server::{ReplayHandle, ReplayServer};
pub use speed::{NotASpeed, Speed};

/// How a [`ReplayServer`] replays.
///
/// The three numbers count *frames* of one exchange: an SSE event or comment with the blank line that
/// ends it, a WebSocket text frame, or the whole body of any other response. Whichever number is
/// reached first acts first; an exchange with fewer frames is not touched, nor is what a backend is asked
/// about itself (`/`, `/version`, `/health`, `/execution-policy`).
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// How fast time passes.
    pub speed: Speed,
    /// The one right API key; without it any key is right. Backends older than 0.0.7 ask for none.
    pub api_key: Option<String>,
    /// After so many frames the TCP connection is dropped, without the ending of its protocol.
    pub cut_after: Option<u64>,
    /// After so many frames nothing is sent any more, and the connection stays open.
    pub stall_after: Option<u64>,
    /// After so many frames come bytes that make no sense; then the recording goes on.
    pub garbage_after: Option<u64>,
}
