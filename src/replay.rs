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
/// Backends before 0.0.7 require no key.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReplayOptions {
    /// Speed: `recorded`, `max`, or a factor such as 10 for ten times as fast
    #[arg(long, default_value_t = Speed::Recorded)]
    pub speed: Speed,

    /// The valid API key; if not given, every key is valid
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Drop the connection after N frames of each exchange
    #[arg(long, value_name = "N")]
    pub cut_after: Option<u64>,

    /// Send nothing more after N frames of each exchange
    #[arg(long, value_name = "N")]
    pub stall_after: Option<u64>,

    /// Send garbage after N frames of each exchange, then continue
    #[arg(long, value_name = "N")]
    pub garbage_after: Option<u64>,
}

/// The state that all connections of a server share.
struct Shared {
    library: Library,
    options: ReplayOptions,
    keys: KeyCheck,
    log: ServerLog,
}
