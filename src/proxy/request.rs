//! A request in the proxy, and the connection that it came on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::uri::Scheme;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Proxy;
use super::forwarded::Forwarded;
use super::informational::InformationalResponses;
use crate::app::{AppState, ClientListener};
use crate::backend::Backend;
use crate::core::domain::credential::ApiKey;
use crate::core::http::guard::Rejection;

/// The peer of a client connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The listener that accepted it.
    pub listener: ClientListener,
    /// The scheme of its requests: `https` over TLS.
    pub scheme: Scheme,
    /// The address of the listener.
    pub listen_address: Option<SocketAddr>,
    /// The number of the request on the connection, from 1.
    pub request: u64,
    /// Why the connection accepts no further data, if it does not.
    pub stopped: Arc<Mutex<Option<StoppedConnection>>>,
    /// The informational responses of the connection.
    pub informational: InformationalResponses,
    /// Whether the client was found to be stalled.
    pub stall: StallFlag,
    /// Whether the connection must close.
    pub closing: watch::Receiver<bool>,
}

/// Set when a client is found to be stalled: it does not read its response. It is then treated as gone.
#[derive(Clone, Debug, Default)]
pub struct StallFlag(Arc<AtomicBool>);

impl StallFlag {
    /// Marks the client as stalled.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that accepts no further data.
#[derive(Clone, Debug)]
pub struct StoppedConnection {
    /// The reason.
    pub rejection: Rejection,
    /// The number of the request whose body was rejected, from 1. `None` if a request head was.
    pub in_body: Option<u64>,
}

impl Peer {
    pub(super) fn stopped(&self) -> Option<StoppedConnection> {
        self.stopped.lock().clone()
    }
}

/// The method of the placeholder for a request that was rejected before it was parsed.
pub const REJECTED: &str = "X-REJECTED";

/// A request for a backend, and its origin.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) state: Arc<AppState>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) forwarded: Forwarded,
    pub(crate) informational: InformationalResponses,
    pub(crate) stall: StallFlag,
}

impl RequestContext {
    /// The hash by which `key` is known.
    pub(super) fn key_hash(&self, key: &ApiKey) -> [u8; 32] {
        self.proxy.app.registry.key_hash(key)
    }
}
