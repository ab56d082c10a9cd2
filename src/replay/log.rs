//! What a replay server was asked, for tests to look at and to wait for.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

/// Something that a client did, or that happened to its connection.
///
/// Connections are numbered from 0 in the order in which they were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A connection was accepted.
    Opened {
        /// Its number.
        connection: u64,
    },
    /// A request came, or the request that opens a WebSocket.
    Request {
        /// The connection that it came on.
        connection: u64,
        /// `GET` and the like.
        method: String,
        /// Path and query.
        target: String,
        /// Names in lower case, values as sent. An API key among them is not hidden.
        headers: Vec<(String, String)>,
    },
    /// A WebSocket text frame came. An API key in it is not hidden.
    Text {
        /// The connection that it came on.
        connection: u64,
        /// As sent.
        text: String,
    },
    /// A connection ended.
    Closed {
        /// Its number.
        connection: u64,
        /// Who ended it.
        by: Side,
    },
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever connected.
    Client,
    /// The replay server: the recording, a misbehaviour or the shutdown said so.
    Server,
}

/// Everything that a [`Server`](super::ReplayServer) has seen, in order. Clones share the same entries.
///
/// It only grows: a server that runs for days remembers every request of these days.
#[derive(Clone, Debug)]
pub struct ServerLog {
    entries: Arc<watch::Sender<Vec<ServerEvent>>>,
}

impl ServerLog {
    pub(super) fn new() -> Self {
        Self { entries: Arc::new(watch::Sender::new(Vec::new())) }
    }

    /// Remembers an entry and writes it to the program's own log, there without keys.
    pub(super) fn note(&self, entry: ServerEvent) {
        match &entry {
            ServerEvent::Opened { connection } => info!(connection, "Connection opened."),
            ServerEvent::Request { connection, method, target, .. } => {
                info!(connection, method, target, "Request received.");
            }
            ServerEvent::Text { connection, text } if text.contains("api_key") => {
                info!(connection, "Key received.");
            }
            ServerEvent::Text { connection, text } => info!(connection, text, "Text received."),
            ServerEvent::Closed { connection, by } => info!(connection, ?by, "Connection closed."),
        }
        self.entries.send_modify(|entries| entries.push(entry));
    }

    /// Everything so far.
    pub fn entries(&self) -> Vec<ServerEvent> {
        self.entries.borrow().clone()
    }

    /// Method and target of every request so far.
    pub fn requests(&self) -> Vec<(String, String)> {
        let of = |entry: &ServerEvent| match entry {
            ServerEvent::Request { method, target, .. } => Some((method.clone(), target.clone())),
            _ => None,
        };
        self.entries.borrow().iter().filter_map(of).collect()
    }

    /// Every WebSocket text so far, the one with the key included.
    pub fn texts(&self) -> Vec<String> {
        let of = |entry: &ServerEvent| match entry {
            ServerEvent::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.entries.borrow().iter().filter_map(of).collect()
    }

    /// How many connections are open right now.
    pub fn open_connections(&self) -> usize {
        open(&self.entries.borrow())
    }

    /// Waits until the entries are as wanted and returns them. It looks first, so nothing is missed,
    /// and it waits for ever: a test puts a limit around it.
    pub async fn wait_for(&self, mut predicate: impl FnMut(&[ServerEvent]) -> bool) -> Vec<ServerEvent> {
        let mut entries = self.entries.subscribe();
        match entries.wait_for(|entries| predicate(entries)).await {
            Ok(entries) => entries.clone(),
            // `self` holds the sender, so the channel cannot be closed while this waits.
            Err(_) => self.entries(),
        }
    }

    /// Waits until no connection is open and at least one has been.
    pub async fn wait_until_idle(&self) {
        self.wait_for(|entries| !entries.is_empty() && open(entries) == 0).await;
    }
}

fn open(entries: &[ServerEvent]) -> usize {
    let count = |wanted: fn(&ServerEvent) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
    let opened = count(|entry| matches!(entry, ServerEvent::Opened { .. }));
    opened - count(|entry| matches!(entry, ServerEvent::Closed { .. }))
}
