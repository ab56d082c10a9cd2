//! A request on its way through the proxy, and the connection that it came on.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::forwarded::Forwarded;
use super::informational::InformationalResponses;
use crate::app::{AppState, ClientListener};
use crate::backend::Backend;
use crate::core::http::guard::Rejection;

/// The other end of a client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Where it came in.
    pub listener: ClientListener,
    /// Whether it speaks TLS.
    pub is_tls: bool,
    /// Whether it came to a loopback address.
    pub on_loopback: bool,
    /// Which of its requests this is, from 1.
    pub request: u64,
    /// Why nothing more is taken from it, if that is so.
    pub stopped: Arc<Mutex<Option<StoppedConnection>>>,
    /// What it is told before it is answered.
    pub informational: InformationalResponses,
    /// Whether it was found to take nothing of what it is sent.
    pub stall: StallFlag,
    /// Whether its connection is to come to an end.
    pub closing: watch::Receiver<bool>,
}

/// Whether a client was found to take nothing of what it is sent. Once it was, it is gone.
#[derive(Clone, Debug, Default)]
pub struct StallFlag(Arc<AtomicBool>);

impl StallFlag {
    /// It was.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection of which nothing more is taken.
#[derive(Clone, Debug)]
pub struct StoppedConnection {
    /// Why.
    pub rejection: Rejection,
    /// Which request of the connection it was in the body of, from 1, if it was not one of its own.
    pub in_body: Option<u64>,
}

impl Peer {
    pub(super) fn stopped(&self) -> Option<StoppedConnection> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The method of the request that stands for one that was rejected before it was a request.
pub const REJECTED: &str = "X-REJECTED";

/// A request that is for a backend, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) state: Arc<AppState>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) forwarded: Forwarded,
    pub(crate) informational: InformationalResponses,
    pub(crate) stall: StallFlag,
}
