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
use target::BackendToken;
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

/// Paths for which 0.0.1 and 0.0.2 open a session for each request. All other requests are sent in the session that they
/// open when they start, which is the one that writes.
const OWN_SESSION_PATHS: [&str; 5] =
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

    /// The listener that is configured at `configured` is open at `address`.
    pub(super) fn set_address(&self, configured: SocketAddr, address: SocketAddr) {
        locked(&self.addresses).insert(configured, address);
    }

    /// The address of the listener that is configured at `configured`.
    pub(crate) fn address(&self, configured: SocketAddr) -> SocketAddr {
        locked(&self.addresses).get(&configured).copied().unwrap_or(configured)
    }

    /// Drops what is known for backends that have no NetBox listener any more: the plugin pushes it again to those that
    /// get one.
    pub(super) fn retain(&self, backends: &[Arc<Backend>]) {
        let urls = with_listener(backends);
        self.endpoints.retain_tokens(&urls);
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

    /// The NetBox instances that requests were forwarded to.
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
    /// The NetBox listener that is configured at `configured` is open at `address`.
    pub fn netbox_listener_opened(&self, configured: SocketAddr, address: SocketAddr) {
        self.netbox.set_address(configured, address);
    }

    /// Whether the NetBox listener that is configured at `configured` accepts connections from `address`.
    pub fn netbox_listener_allows(&self, configured: SocketAddr, address: IpAddr) -> bool {
        self.app.state().netbox_listener(configured).is_some_and(|(_, listener)| listener.allows(address))
    }

    /// Done when the NetBox listener that is configured at `configured` accepts no connections from `address`. A listener
    /// that is removed from the configuration closes its connections itself.
    pub async fn netbox_listener_refuses(&self, configured: SocketAddr, address: IpAddr) {
        let refuses = |state: &Arc<AppState>| {
            state.netbox_listener(configured).is_some_and(|(_, listener)| !listener.allows(address))
        };
        if self.app.subscribe().wait_for(refuses).await.is_err() {
            std::future::pending().await
        }
    }

    /// The NetBox instances that requests were forwarded to.
    pub fn netboxes(&self) -> Vec<Arc<Backend>> {
        self.netbox.upstreams()
    }

    /// Removes from `data_dir` the NetBox endpoints of backends without a NetBox listener.
    pub async fn remove_unused_netbox_endpoints(&self) {
        self.netbox.endpoints.retain_pushed(&with_listener(&self.app.state().backends)).await;
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
        let Some((backend, _)) = state.netbox_listener(listen) else {
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
        // Backends send a token with each request; `check` and probes do not.
        let authorization = parts.headers.get(AUTHORIZATION);
        let has_token = authorization.is_some();
        let token = authorization.and_then(|sent| self.netbox.endpoints.match_token(backend, sent));
        let (shims, applied) = (&state.config.shims, Mutex::default());
        let exchange = NetboxRequest { proxy: self, shims, backend, peer, upstream, origin, token, applied };
        exchange.outbound(&mut parts);
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let writes = token.is_some() && writes_to_netbox(&path);
        let response = exchange.answer(parts, body).await;
        if has_token {
            let url = backend.url().to_string();
            let rules = self.netbox.activities.count(&url, token.is_some(), &locked(&exchange.applied));
            let (method, metrics) = (method.as_str(), &backend.metrics);
            telemetry::NetboxRequest { backend: metrics, method, path: &path, rules: &rules }.emit();
        }
        if writes && response.status().is_success() {
            self.restarts.netbox_session_bound(&self.app.registry, backend);
        }
        if token == Some(BackendToken::Current) && response.status().is_success() {
            self.netbox.endpoints.token_accepted(backend, writes);
        }
        hold_until_sent(response, slot)
    }
}

/// Whether 0.0.1 and 0.0.2 send a request for `path` in the session that writes to NetBox.
fn writes_to_netbox(path: &str) -> bool {
    path.starts_with("/api/") && !OWN_SESSION_PATHS.iter().any(|prefix| path.starts_with(prefix))
}

/// A failure of the bridge's own, in the form of NetBox's.
fn error_response(status: StatusCode, detail: &str) -> Response<Body> {
    respond::json(status, Bytes::from(json!({ "detail": detail }).to_string()))
}
