//! The log of a replay server, for tests to inspect and to wait for.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

/// An event of a client or its connection.
///
/// Connections are numbered from 0 in the order in which they were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A connection was accepted.
    Opened {
        /// Its number.
        connection: u64,
    },
    /// A request was received; that of a WebSocket upgrade, too.
    Request {
        /// The number of its connection.
        connection: u64,
        /// The method.
        method: String,
        /// The path and query.
        target: String,
        /// The headers: names in lower case, values as sent. API keys are not redacted.
        headers: Vec<(String, String)>,
    },
    /// A WebSocket text frame was received. API keys are not redacted.
    Text {
        /// The number of its connection.
        connection: u64,
        /// As sent.
        text: String,
    },
    /// A connection ended.
    Closed {
        /// Its number.
        connection: u64,
        /// The side that ended it.
        by: Side,
    },
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The replay server, because of the recording, an injected fault or its shutdown.
    Server,
}

/// The events of a [`ReplayServer`](super::ReplayServer), in order. Clones share the same entries.
///
/// The log is unbounded.
#[derive(Clone, Debug)]
pub struct ServerLog {
    entries: Arc<watch::Sender<Vec<ServerEvent>>>,
}

impl ServerLog {
    pub(super) fn new() -> Self {
        Self { entries: Arc::new(watch::Sender::new(Vec::new())) }
    }

    /// Adds an entry and writes it to the log of the process, without API keys.
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

    /// All entries so far.
    pub fn entries(&self) -> Vec<ServerEvent> {
        self.entries.borrow().clone()
    }

    /// The method and target of every request so far.
    pub fn requests(&self) -> Vec<(String, String)> {
        let of = |entry: &ServerEvent| match entry {
            ServerEvent::Request { method, target, .. } => Some((method.clone(), target.clone())),
            _ => None,
        };
        self.entries.borrow().iter().filter_map(of).collect()
    }

    /// Every WebSocket text so far, including the one with the key.
    pub fn texts(&self) -> Vec<String> {
        let of = |entry: &ServerEvent| match entry {
            ServerEvent::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.entries.borrow().iter().filter_map(of).collect()
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        open(&self.entries.borrow())
    }

    /// Waits until the entries are as wanted and returns them. Existing entries count. There is no time limit: a
    /// test has to add one.
    pub async fn wait_for(&self, mut predicate: impl FnMut(&[ServerEvent]) -> bool) -> Vec<ServerEvent> {
        let mut entries = self.entries.subscribe();
        match entries.wait_for(|entries| predicate(entries)).await {
            Ok(entries) => entries.clone(),
            // `self` holds the sender, so the channel cannot be closed while this waits.
            Err(_) => self.entries(),
        }
    }

    /// Waits until at least one connection was accepted and none is open.
    pub async fn wait_until_idle(&self) {
        self.wait_for(|entries| !entries.is_empty() && open(entries) == 0).await;
    }
}

fn open(entries: &[ServerEvent]) -> usize {
    let count = |wanted: fn(&ServerEvent) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
    let opened = count(|entry| matches!(entry, ServerEvent::Opened { .. }));
    opened - count(|entry| matches!(entry, ServerEvent::Closed { .. }))
}
