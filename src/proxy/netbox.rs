//! The listener on which the bridge stands in front of NetBox, for one backend (`backend.netbox_listen`).
//!
//! Every request is forwarded, and NetBox authorises it. [`crate::core::compat::netbox`] lists what the bridge changes
//! in requests and responses.

mod exchange;
mod target;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::Proxy;
use super::errors::{self, OrResponse, merge};
use super::headers;
use super::quota::{Quota, QuotaKey, hold_until_sent, request_slot_among};
use super::request::Peer;
use super::router;
use crate::app::AppState;
use crate::backend::Backend;
use crate::core::compat::netbox::{STATUS, SyncProcesses};
use crate::core::compat::{Shim, ShimAction};
use crate::core::http::headers::host;
use crate::core::secret;
use crate::ledger::Timestamp;
use crate::private::Unreadable;
use crate::respond::{self, Body};
use crate::telemetry::{self, Route, RuleApplied};

use exchange::NetboxRequest;
use target::BackendToken;
pub(super) use target::{NetboxEndpoints, at_listener, check_pushed, token};

/// The NetBox listeners of all backends.
#[derive(Debug)]
pub(crate) struct NetboxProxy {
    /// The NetBox endpoints that the plugin has pushed.
    pub(crate) endpoints: NetboxEndpoints,
    /// By the URL of the backend: they outlast a reload.
    listeners: Mutex<HashMap<String, ListenerState>>,
    /// The requests in flight to NetBox, per client.
    requests: Quota<QuotaKey>,
}

/// The state of the listener of one backend, in memory only.
#[derive(Debug, Default)]
struct ListenerState {
    /// The token that the plugin pushed last.
    token: Option<SecretString>,
    /// The connections to NetBox.
    upstream: Option<Arc<Backend>>,
    processes: SyncProcesses,
    activity: Activity,
}

/// The requests of one backend to NetBox since the bridge started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    /// When the last request with the backend's own token was answered.
    pub(crate) last: Option<Timestamp>,
    /// The number of requests that no rule changed.
    pub(crate) unchanged: u64,
    /// The number of requests that each rule changed.
    pub(crate) changed: HashMap<Shim, u64>,
}

/// Paths for which 0.0.1 and 0.0.2 open a new session for each request. All other requests use the session that they
/// open at startup, which is also the one that writes.
const OWN_SESSION_PATHS: [&str; 5] =
    [STATUS, "/api/plugins/", "/api/schema/", "/api/docs/", "/api/extras/tags/"];

impl NetboxProxy {
    /// Opens the state in `data_dir`.
    pub(super) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        let endpoints = NetboxEndpoints::open(data_dir)?;
        Ok(Self { endpoints, listeners: Mutex::default(), requests: Quota::default() })
    }

    /// Reads or changes the state of the listener of `backend`.
    fn listener<R>(&self, backend: &Backend, access: impl FnOnce(&mut ListenerState) -> R) -> R {
        access(self.listeners.lock().entry(backend.url().to_string()).or_default())
    }

    /// The requests of `backend`.
    pub(crate) fn activity(&self, backend: &Backend) -> Activity {
        self.listener(backend, |listener| listener.activity.clone())
    }

    /// The error of the last attempt to reach the NetBox of `backend`, if it failed.
    pub(crate) fn last_error(&self, backend: &Backend) -> Option<String> {
        let upstream = self.listener(backend, |listener| listener.upstream.clone())?;
        upstream.last_error().map(|error| error.to_string())
    }

    /// Drops the state of backends that no longer have a NetBox listener. The plugin pushes again to a backend that
    /// gets one.
    pub(super) fn retain(&self, backends: &[Arc<Backend>]) {
        let urls = with_listener(backends);
        self.listeners.lock().retain(|url, _| urls.contains(url));
    }

    /// Stores the NetBox endpoint that the plugin pushes to `backend`.
    pub(super) async fn push(&self, backend: &Backend, pushed: &Value) {
        let token = token(pushed);
        let hash = target::token_hash(token.expose_secret());
        self.listener(backend, |listener| listener.token = Some(token));
        self.endpoints.push(backend, pushed, &hash).await;
    }

    /// `Authorization` with the token that was pushed to `backend` last, if it was pushed since the bridge started.
    fn current_token(&self, backend: &Backend) -> Option<HeaderValue> {
        self.listener(backend, |listener| {
            secret::header(&["Token ", listener.token.as_ref()?.expose_secret()]).ok()
        })
    }

    /// The connections to the NetBox of `backend`.
    async fn upstream(&self, backend: &Backend) -> Result<Arc<Backend>, String> {
        let config = self.endpoints.target(backend.config())?;
        let open = self.listener(backend, |listener| listener.upstream.clone());
        if let Some(upstream) = open.filter(|upstream| *upstream.config() == config) {
            return Ok(upstream);
        }
        // It reads files.
        let made = spawn_blocking(move || Backend::netbox(config)).await;
        let made = made.map_err(|error| error.to_string())?;
        let upstream =
            Arc::new(made.map_err(|error| format!("The connection to NetBox cannot be set up: {error}."))?);
        self.listener(backend, |listener| listener.upstream = Some(Arc::clone(&upstream)));
        Ok(upstream)
    }
}

impl Activity {
    /// Counts a request with `token` that was changed by `rules`. Returns for each rule whether this is its first
    /// request.
    fn count(&mut self, token: Option<BackendToken>, rules: &[(Shim, ShimAction)]) -> Vec<RuleApplied> {
        if token.is_some() {
            self.last = Some(Timestamp::now());
        }
        if rules.is_empty() {
            self.unchanged += 1;
        }
        let apply = |&(shim, action): &(Shim, ShimAction)| {
            let count = self.changed.entry(shim).or_default();
            *count += 1;
            RuleApplied { shim, action, is_first: *count == 1 }
        };
        rules.iter().map(apply).collect()
    }
}

/// The URLs of those of `backends` that have a NetBox listener.
fn with_listener(backends: &[Arc<Backend>]) -> HashSet<String> {
    let with_listener = backends.iter().filter(|backend| backend.config().netbox.is_some());
    with_listener.map(|backend| backend.url().to_string()).collect()
}

impl Proxy {
    /// Whether the NetBox listener that is configured at `configured` accepts connections from `address`.
    pub fn netbox_listener_allows(&self, configured: SocketAddr, address: IpAddr) -> bool {
        self.app.state().netbox_listener(configured).is_some_and(|(_, listener)| listener.allows(address))
    }

    /// Completes when the NetBox listener that is configured at `configured` no longer accepts connections from
    /// `address`. A listener that is removed from the configuration closes its connections itself.
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
        let listeners = self.netbox.listeners.lock();
        listeners.values().filter_map(|listener| listener.upstream.clone()).collect()
    }

    /// Removes from `data_dir` the NetBox endpoints of backends without a NetBox listener.
    pub async fn remove_unused_netbox_endpoints(&self) {
        self.netbox.endpoints.retain(&with_listener(&self.app.state().backends)).await;
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
                None => merge(self.forward_to_netbox(parts, body, peer, listen).await),
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
    ) -> OrResponse<Response<Body>> {
        let state = self.app.state();
        let unavailable = |why: &str| respond::detail(StatusCode::SERVICE_UNAVAILABLE, why);
        let Some((backend, _)) = state.netbox_listener(listen) else {
            return Err(unavailable("No backend has this NetBox listener any more.").into());
        };
        let upstream = self.netbox.upstream(backend).await.map_err(|reason| unavailable(&reason))?;
        let slot = request_slot_among(&self.netbox.requests, &state.config.limits, peer.address)?;
        errors::check_length(backend, &body, peer.address)?;
        headers::as_http_1(&mut parts);
        let host = host(&parts.headers).map(str::to_owned);
        let host = host.unwrap_or_else(|| self.app.listeners.netbox_address(listen).to_string());
        let origin = format!("{}://{host}", peer.scheme);
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
            let rules = exchange.applied.into_inner();
            let count = |listener: &mut ListenerState| listener.activity.count(token, &rules);
            let rules = self.netbox.listener(backend, count);
            let (method, metrics) = (method.as_str(), &backend.metrics);
            telemetry::NetboxRequestAnswered { backend: metrics, method, path: &path, rules: &rules }.emit();
        }
        if writes && response.status().is_success() {
            self.restarts.netbox_session_bound(&self.app.registry, backend);
        }
        if token == Some(BackendToken::Current) && response.status().is_success() {
            self.netbox.endpoints.token_accepted(backend, &path);
        }
        Ok(hold_until_sent(response, slot))
    }
}

/// Whether 0.0.1 and 0.0.2 send a request for `path` in the session that writes to NetBox.
fn writes_to_netbox(path: &str) -> bool {
    path.starts_with("/api/") && !OWN_SESSION_PATHS.iter().any(|prefix| path.starts_with(prefix))
}
