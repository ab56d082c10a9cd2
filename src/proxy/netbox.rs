//! The listener on which the bridge stands in front of NetBox, for one backend (`backend.netbox_listen`).
//!
//! Every request is forwarded, and NetBox authorises it. What is changed on the way is in
//! [`crate::core::compat::netbox`].

mod activity;
mod exchange;
mod target;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::Proxy;
use super::errors;
use super::headers;
use super::quota::{Quota, QuotaKey, hold_until_sent, request_slot_among};
use super::request::Peer;
use super::router;
use crate::app::AppState;
use crate::backend::{Backend, UploadError};
use crate::core::compat::netbox::{STATUS, SyncProcesses};
use crate::private::Unreadable;
use crate::respond::{self, Body};
use crate::telemetry::{self, Route};

use activity::Activities;
pub(super) use activity::Activity;
use exchange::NetboxRequest;
pub(super) use target::{NetboxEndpoints, at_listener, check_pushed, token};

/// What is kept for the NetBox listeners of all backends, by the URL of the backend.
#[derive(Debug)]
pub(crate) struct NetboxProxy {
    /// The NetBox endpoints that the plugin has pushed.
    pub(crate) endpoints: NetboxEndpoints,
    /// Where the listeners are, by their addresses in the configuration: port 0 is any port.
    addresses: Mutex<HashMap<SocketAddr, SocketAddr>>,
    processes: Mutex<HashMap<String, SyncProcesses>>,
    /// The connections to NetBox.
    upstreams: Mutex<HashMap<String, Arc<Backend>>>,
    /// The requests that are on their way to NetBox.
    requests: Quota<QuotaKey>,
    activities: Activities,
}

/// What 0.0.1 and 0.0.2 ask for with a session of its own for each question; everything else with the one that they have
/// bound when they started, which is the one that writes.
const UNCOUNTED_PATHS: [&str; 5] =
    [STATUS, "/api/plugins/", "/api/schema/", "/api/docs/", "/api/extras/tags/"];

impl NetboxProxy {
    /// What is kept in `data_dir`; without it, nothing.
    ///
    /// # Errors
    ///
    /// Why the file could not be read.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        Ok(Self {
            endpoints: NetboxEndpoints::open(data_dir)?,
            addresses: Mutex::default(),
            processes: Mutex::default(),
            upstreams: Mutex::default(),
            requests: Quota::default(),
            activities: Activities::default(),
        })
    }

    /// What `backend` has sent to NetBox since the bridge started.
    pub(crate) fn activity(&self, backend: &Backend) -> Activity {
        self.activities.of(&backend.url().to_string())
    }

    /// The listener that is configured at `wanted` is open at `address`.
    pub(super) fn set_address(&self, configured: SocketAddr, address: SocketAddr) {
        locked(&self.addresses).insert(configured, address);
    }

    /// Where the listener that is configured at `wanted` is.
    pub(crate) fn address(&self, configured: SocketAddr) -> SocketAddr {
        locked(&self.addresses).get(&configured).copied().unwrap_or(configured)
    }

    /// Drops what is known for backends that have no NetBox listener any more: the plugin pushes it again to those that
    /// get one.
    pub(super) fn retain(&self, backends: &[Arc<Backend>]) {
        let urls = with_listener(backends);
        self.endpoints.retain(&urls);
        self.activities.retain(&urls);
        locked(&self.processes).retain(|url, _| urls.contains(url));
        locked(&self.upstreams).retain(|url, _| urls.contains(url));
    }

    /// Why the NetBox of `backend` could not be reached when that was last tried, if so.
    pub(crate) fn trouble(&self, backend: &Backend) -> Option<String> {
        let upstream = locked(&self.upstreams).get(&backend.url().to_string()).cloned()?;
        upstream.last_error().map(|error| error.to_string())
    }

    /// The connections to the NetBox of `backend`.
    async fn upstream(&self, backend: &Backend) -> Result<Arc<Backend>, String> {
        let config = self.endpoints.target(backend.config())?;
        let key = backend.url().to_string();
        if let Some(upstream) =
            locked(&self.upstreams).get(&key).filter(|upstream| *upstream.config() == config)
        {
            return Ok(Arc::clone(upstream));
        }
        // It reads files.
        let made = spawn_blocking(move || Backend::netbox(config)).await;
        let made = made.map_err(|error| error.to_string())?;
        let upstream = Arc::new(made.map_err(|error| format!("NetBox cannot be asked: {error}."))?);
        locked(&self.upstreams).insert(key, Arc::clone(&upstream));
        Ok(upstream)
    }

    /// Every NetBox that is asked.
    fn upstreams(&self) -> Vec<Arc<Backend>> {
        locked(&self.upstreams).values().map(Arc::clone).collect()
    }
}

/// The URLs of those of `backends` that have a NetBox listener.
fn with_listener(backends: &[Arc<Backend>]) -> HashSet<String> {
    let with_listener = backends.iter().filter(|backend| backend.config().netbox.is_some());
    with_listener.map(|backend| backend.url().to_string()).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// The NetBox listener that is configured at `wanted` is open at `address`.
    pub fn netbox_listener_opened(&self, wanted: SocketAddr, address: SocketAddr) {
        self.netbox.set_address(wanted, address);
    }

    /// Whether the NetBox listener that is configured at `wanted` accepts connections from `address`.
    pub fn netbox_listener_allows(&self, wanted: SocketAddr, address: IpAddr) -> bool {
        let state = self.app.state();
        let mut listeners = state.backends.iter().filter_map(|backend| backend.config().netbox.as_ref());
        listeners.any(|netbox| netbox.listen == wanted && netbox.allows(address))
    }

    /// Done when the NetBox listener that is configured at `wanted` accepts no connections from `address`. One that is
    /// not configured any more closes its connections by itself.
    pub async fn netbox_listener_refuses(&self, wanted: SocketAddr, address: IpAddr) {
        let refuses = |state: &Arc<AppState>| {
            let mut listeners = state.backends.iter().filter_map(|backend| backend.config().netbox.as_ref());
            listeners.find(|netbox| netbox.listen == wanted).is_some_and(|netbox| !netbox.allows(address))
        };
        if self.app.subscribe().wait_for(refuses).await.is_err() {
            std::future::pending().await
        }
    }

    /// Every NetBox that a backend asks.
    pub fn netboxes(&self) -> Vec<Arc<Backend>> {
        self.netbox.upstreams()
    }

    /// Takes out of `data_dir` what was pushed to backends that have no NetBox listener any more.
    pub async fn keep_netbox_endpoints(&self) {
        self.netbox.endpoints.save(&with_listener(&self.app.state().backends)).await;
    }

    /// Answers a request of the backend whose NetBox listener is at `listen`.
    pub async fn answer_netbox(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        listen: SocketAddr,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        router::exchange(parts, peer, Route::Netbox, |parts| async {
            let response = match errors::rejection(&self.app.state(), &parts, peer) {
                Some(rejected) => rejected,
                None => self.forward_to_netbox(parts, body, peer, listen).await,
            };
            (Route::Netbox, response)
        })
        .await
    }

    async fn forward_to_netbox(
        &self,
        mut parts: Parts,
        body: Incoming,
        peer: &Peer,
        listen: SocketAddr,
    ) -> Response<Body> {
        let state = self.app.state();
        let is_it = |backend: &&Arc<Backend>| {
            backend.config().netbox.as_ref().is_some_and(|netbox| netbox.listen == listen)
        };
        let Some(backend) = state.backends.iter().find(is_it) else {
            return error_response(
                StatusCode::SERVICE_UNAVAILABLE,
                "No backend has this NetBox listener any more.",
            );
        };
        let upstream = match self.netbox.upstream(backend).await {
            Ok(upstream) => upstream,
            Err(reason) => return error_response(StatusCode::SERVICE_UNAVAILABLE, &reason),
        };
        let limits = &state.config.limits;
        let slot = match request_slot_among(&self.netbox.requests, limits, peer.address) {
            Ok(slot) => slot,
            Err(limit) => return respond::limit_exceeded(limit),
        };
        let most = backend.limits().body_bytes;
        if body.size_hint().exact().is_some_and(|bytes| bytes > most as u64) {
            return errors::upload_error_response(peer.address, UploadError::TooLarge(most));
        }
        headers::as_http_1(&mut parts);
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let scheme = if peer.is_tls { "https" } else { "http" };
        let origin =
            format!("{scheme}://{}", host.unwrap_or_else(|| self.netbox.address(listen).to_string()));
        // Backends send one with each request; `check` and probes do not.
        let has_token = parts.headers.contains_key(AUTHORIZATION);
        let is_of_backend = self.netbox.endpoints.is_of_backend(backend, parts.headers.get(AUTHORIZATION));
        let has_current_token =
            self.netbox.endpoints.is_current_token(backend, parts.headers.get(AUTHORIZATION));
        let applied = Mutex::default();
        let exchange = NetboxRequest { proxy: self, backend, peer, upstream, origin, is_of_backend, applied };
        exchange.outbound(&mut parts);
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let writes = exchange.is_of_backend && writes_to_netbox(&path);
        let response = exchange.answer(parts, body).await;
        if has_token {
            let url = backend.url().to_string();
            let rules = self.netbox.activities.count(&url, is_of_backend, &locked(&exchange.applied));
            let (method, metrics) = (method.as_str(), &backend.metrics);
            telemetry::NetboxRequest { backend: metrics, method, path: &path, rules: &rules }.emit();
        }
        if writes && response.status().is_success() {
            self.restarts.netbox_session_bound(&self.app.registry, backend);
        }
        if has_current_token && response.status().is_success() {
            self.netbox.endpoints.token_accepted(backend, writes);
        }
        hold_until_sent(response, slot)
    }
}

/// Whether a request for `path` is one of the session that writes to NetBox.
fn writes_to_netbox(path: &str) -> bool {
    path.starts_with("/api/") && !UNCOUNTED_PATHS.iter().any(|prefix| path.starts_with(prefix))
}

/// A failure of the bridge's own, in the form of NetBox's.
fn error_response(status: StatusCode, detail: &str) -> Response<Body> {
    respond::json(status, Bytes::from(json!({ "detail": detail }).to_string()))
}
