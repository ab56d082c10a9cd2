//! The listener on which the bridge stands in front of NetBox, for one backend (`backend.netbox_listen`).
//!
//! Every request is forwarded, and NetBox authorises it. What is changed on the way is in
//! [`crate::core::compat::netbox`].

mod activity;
mod target;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, response};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::Proxy;
use super::compat::shimmed;
use super::compat::upstream;
use super::errors;
use super::errors::rejected;
use super::headers;
use super::quota::{Slots, StreamKey, holding, request_slot_among};
use super::request::Peer;
use super::router;
use crate::app::State;
use crate::backend::{Backend, ConnectError, ForwardError, UploadError};
use crate::core::compat::netbox::{
    CUSTOM_FIELDS, PROXMOX_ENDPOINTS, Rule, SYNC_PROCESSES, SyncProcesses, as_bearer, fill_in, flatten,
    lists_all, may_nest, missing, relink, wanted_field, widen,
};
use crate::core::compat::{Action, Shim};
use crate::core::http::guard::{Reason, Rejection};
use crate::core::remote::Remote;
use crate::core::secret::SecretJson;
use crate::deadline::timeout;
use crate::private::Unreadable;
use crate::respond::{self, Body};
use crate::telemetry::{self, Route};

use activity::Activities;
pub(super) use activity::Activity;
pub(super) use target::{NetboxEndpoints, at_listener, check_pushed, token};

/// What is kept for the NetBox listeners of all backends, by the URL of the backend.
#[derive(Debug)]
pub(crate) struct NetboxSide {
    /// The NetBox endpoints that the plugin has pushed.
    pub(crate) endpoints: NetboxEndpoints,
    /// Where the listeners are, by their addresses in the configuration: port 0 is any port.
    addresses: Mutex<HashMap<SocketAddr, SocketAddr>>,
    processes: Mutex<HashMap<String, SyncProcesses>>,
    /// The connections to NetBox.
    upstreams: Mutex<HashMap<String, Arc<Backend>>>,
    /// The requests that are on their way to NetBox.
    requests: Slots<StreamKey>,
    activities: Activities,
}

/// The largest body of a request that is read as a whole, in bytes.
const BODY: usize = 256 * 1024;
/// What NetBox is asked for to find out whether a token is accepted.
const STATUS: &str = "/api/status/";
/// What 0.0.1 and 0.0.2 ask for with a session of its own for each question; everything else with the one that they have
/// bound when they started, which is the one that writes.
const BESIDE: [&str; 5] = [STATUS, "/api/plugins/", "/api/schema/", "/api/docs/", "/api/extras/tags/"];
/// Headers by which NetBox would build its links, or find out whom a request is from.
const FORWARDED: [HeaderName; 6] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

impl NetboxSide {
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
            requests: Slots::default(),
            activities: Activities::default(),
        })
    }

    /// What `backend` has sent to NetBox since the bridge started.
    pub(crate) fn activity(&self, backend: &Backend) -> Activity {
        self.activities.of(&backend.url().to_string())
    }

    /// The listener that is configured at `wanted` is open at `address`.
    pub(super) fn opened(&self, wanted: SocketAddr, address: SocketAddr) {
        locked(&self.addresses).insert(wanted, address);
    }

    /// Where the listener that is configured at `wanted` is.
    pub(crate) fn address(&self, wanted: SocketAddr) -> SocketAddr {
        locked(&self.addresses).get(&wanted).copied().unwrap_or(wanted)
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
        upstream.trouble().map(|error| error.to_string())
    }

    /// The connections to the NetBox of `backend`.
    async fn upstream(&self, backend: &Backend) -> Result<Arc<Backend>, String> {
        let wanted = self.endpoints.target(backend.config())?;
        let key = backend.url().to_string();
        if let Some(known) = locked(&self.upstreams).get(&key).filter(|known| *known.config() == wanted) {
            return Ok(Arc::clone(known));
        }
        // It reads files.
        let made = spawn_blocking(move || Backend::netbox(wanted)).await;
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

/// One request of a backend to NetBox.
struct Exchange<'a> {
    proxy: &'a Proxy,
    backend: &'a Backend,
    peer: &'a Peer,
    upstream: Arc<Backend>,
    /// Where the backend reaches NetBox, as it wrote it: `http://127.0.0.1:8801`.
    origin: String,
    /// Whether the token is the backend's own.
    is_of_backend: bool,
    /// The rules that have changed the request or its answer, each once.
    applied: Mutex<Vec<(Shim, Action)>>,
}

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

impl Proxy {
    /// The NetBox listener that is configured at `wanted` is open at `address`.
    pub fn netbox_listener_opened(&self, wanted: SocketAddr, address: SocketAddr) {
        self.netbox.opened(wanted, address);
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
        let refuses = |state: &Arc<State>| {
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
        self.netbox.endpoints.keep(&with_listener(&self.app.state().backends)).await;
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
            return failed(StatusCode::SERVICE_UNAVAILABLE, "No backend has this NetBox listener any more.");
        };
        let upstream = match self.netbox.upstream(backend).await {
            Ok(upstream) => upstream,
            Err(reason) => return failed(StatusCode::SERVICE_UNAVAILABLE, &reason),
        };
        let limits = &state.config.limits;
        let slot = match request_slot_among(&self.netbox.requests, limits, peer.address) {
            Ok(slot) => slot,
            Err(limit) => return respond::over(limit),
        };
        let most = backend.limits().body_bytes;
        if body.size_hint().exact().is_some_and(|bytes| bytes > most as u64) {
            return errors::upload_failed(peer.address, UploadError::TooLarge(most));
        }
        headers::as_http_1(&mut parts);
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let scheme = if peer.is_tls { "https" } else { "http" };
        let origin = format!("{scheme}://{}", host.unwrap_or_else(|| listen.to_string()));
        // Backends send one with each request; `check` and probes do not.
        let has_token = parts.headers.contains_key(AUTHORIZATION);
        let is_of_backend = self.netbox.endpoints.is_of_backend(backend, parts.headers.get(AUTHORIZATION));
        let applied = Mutex::default();
        let exchange = Exchange { proxy: self, backend, peer, upstream, origin, is_of_backend, applied };
        exchange.outbound(&mut parts);
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let writes = exchange.is_of_backend && writes_to_netbox(&path);
        let response = exchange.answer(parts, body).await;
        if has_token {
            let rules = self.netbox.activities.count(&backend.url().to_string(), &locked(&exchange.applied));
            let (method, metrics) = (method.as_str(), &backend.metrics);
            telemetry::NetboxRequest { backend: metrics, method, path: &path, rules: &rules }.emit();
        }
        if writes && response.status().is_success() {
            self.restarts.netbox_session_bound(&self.app.registry, backend).await;
        }
        holding(response, slot)
    }
}

impl Exchange<'_> {
    async fn answer(&self, parts: Parts, body: Incoming) -> Response<Body> {
        let path = parts.uri.path().to_owned();
        let asks_for_endpoints = path == PROXMOX_ENDPOINTS && parts.method == Method::GET;
        if asks_for_endpoints && self.is_of_backend && self.applies(Shim::ProxmoxCredentials) {
            return self.proxmox_endpoints(parts, body).await;
        }
        if self.applies(Shim::SyncProcesses)
            && let Some(rest) = path.strip_prefix(SYNC_PROCESSES)
        {
            return self.sync_processes(parts, body, rest).await;
        }
        let writes = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
        if self.applies(Shim::LastUpdated) && writes && path.starts_with(CUSTOM_FIELDS) {
            return self.custom_field(parts, body).await;
        }
        if self.applies(Shim::CustomFields)
            && parts.method == Method::GET
            && let Some(field) = wanted_field(&path, parts.uri.query().unwrap_or_default())
        {
            return self.created_field(&parts, &field).await;
        }
        if may_nest(&path) && self.applies(Shim::NestedObjects) {
            return self.flattened(parts, body).await;
        }
        self.forward(parts, body).await
    }

    fn applies(&self, shim: Shim) -> bool {
        let is_on = self.proxy.app.state().config.shims.is_on(shim);
        is_on && Rule::of(shim).is_some_and(|rule| rule.is_for(self.backend.last_release()))
    }

    /// The headers as NetBox is sent them.
    fn outbound(&self, Parts { headers, version, .. }: &mut Parts) {
        headers::hop_by_hop(headers, *version);
        for name in FORWARDED {
            headers.remove(name);
        }
        if let Ok(host) = HeaderValue::from_str(&self.upstream.url().authority()) {
            headers.insert(HOST, host);
        }
        if self.applies(Shim::NetboxLinks) {
            // The links in the answer are read.
            headers.insert(ACCEPT_ENCODING, IDENTITY);
        }
        let sent = headers.get(AUTHORIZATION).filter(|_| self.applies(Shim::CurrentToken));
        let replaced = sent.and_then(|sent| self.proxy.netbox.endpoints.current_token(self.backend, sent));
        if let Some(current) = replaced {
            self.note(Shim::CurrentToken, Action::Translated);
            headers.insert(AUTHORIZATION, current);
        }
        if self.applies(Shim::NetboxToken)
            && let Some(bearer) = headers.get(AUTHORIZATION).and_then(as_bearer)
        {
            self.note(Shim::NetboxToken, Action::Translated);
            headers.insert(AUTHORIZATION, bearer);
        }
    }

    /// The rule of `shim` has changed the request, or its answer.
    fn note(&self, shim: Shim, action: Action) {
        let mut applied = locked(&self.applied);
        if !applied.contains(&(shim, action)) {
            applied.push((shim, action));
        }
    }

    /// NetBox's answer to a request, with its links leading back to the listener.
    async fn forward<B>(&self, parts: Parts, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let mut request = Request::from_parts(parts, body);
        self.peer.interim.pass(&mut request);
        match self.upstream.forward(request).await {
            Ok(response) => self.inbound(response).await,
            Err(error) => self.unanswered(&error),
        }
    }

    async fn inbound(&self, response: Response<Incoming>) -> Response<Body> {
        let mut response = response.map(respond::passed);
        headers::inbound(response.headers_mut());
        if !self.applies(Shim::NetboxLinks) {
            return response;
        }
        let authority = self.upstream.url().authority();
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        if let Some(location) = location.and_then(|location| self.moved(location, &authority)) {
            response.headers_mut().insert(LOCATION, location);
            response = self.relinked(response);
        }
        let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
        if !response.headers().get(CONTENT_TYPE).is_some_and(is_json) || response.body().is_end_stream() {
            return response;
        }
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        match relink(&body, &authority, &self.origin) {
            Some(relinked) => self.relinked(upstream::answer(head, Bytes::from(relinked))),
            None => upstream::answer(head, body),
        }
    }

    /// NetBox's answer as a whole.
    async fn whole(&self, response: Response<Body>) -> Result<(response::Parts, Bytes), Response<Body>> {
        let limit = self.upstream.limits().response_head;
        upstream::whole_of(Remote::Netbox, response, limit)
            .await
            .map_err(|(status, why)| self.unread(status, &why))
    }

    /// The answer to a request that NetBox did not answer, or not to the end.
    fn unread(&self, status: StatusCode, why: &str) -> Response<Body> {
        telemetry::NetboxUnreachable { backend: self.backend.url(), error: why }.emit();
        failed(status, why)
    }

    /// `response`, in which links lead to the listener.
    fn relinked(&self, response: Response<Body>) -> Response<Body> {
        self.note(Shim::NetboxLinks, Action::Translated);
        shimmed(response, Shim::NetboxLinks)
    }

    fn moved(&self, location: &str, authority: &str) -> Option<HeaderValue> {
        let (_, rest) = location.split_once("://")?;
        let path = rest.strip_prefix(authority).filter(|path| path.starts_with('/'))?;
        HeaderValue::from_str(&format!("{}{path}", self.origin)).ok()
    }

    fn unanswered(&self, error: &ForwardError) -> Response<Body> {
        if let ForwardError::Upload(error) = error {
            return errors::upload_failed(self.peer.address, *error);
        }
        let url = self.upstream.url();
        let (status, text) = match error {
            // It says itself what to do.
            ForwardError::Unreachable(error @ ConnectError::Tls { .. }) => {
                (StatusCode::BAD_GATEWAY, format!("NetBox cannot be reached: {error}."))
            }
            ForwardError::Unreachable(error) => {
                let source = self.source_of_url();
                let text = format!(
                    "NetBox cannot be reached: {error}. See whether NetBox runs and can be reached from the bridge; the \
                     address is that of {source}."
                );
                (StatusCode::BAD_GATEWAY, text)
            }
            ForwardError::Overdue(_) => {
                let text = format!("NetBox did not answer at {url}. {error} Its log says what it does.");
                (StatusCode::GATEWAY_TIMEOUT, text)
            }
            _ => (
                StatusCode::BAD_GATEWAY,
                format!("NetBox did not answer at {url}. {error} Its log says why."),
            ),
        };
        self.unread(status, &text)
    }

    /// What says where NetBox is.
    fn source_of_url(&self) -> &'static str {
        let is_configured = self.backend.config().netbox.as_ref().is_some_and(|netbox| netbox.url.is_some());
        if is_configured { "backend.netbox_url" } else { "the NetBox endpoint that the plugin has pushed" }
    }

    /// The list of Proxmox endpoints, with the secrets that the plugin has pushed.
    async fn proxmox_endpoints(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let proxmox = &self.backend.proxmox;
        // What is pushed while NetBox answers may not be in its answer.
        let pushed = proxmox.keys();
        if pushed.is_empty() {
            return self.forward(parts, body).await;
        }
        let lists_all = lists_all(parts.uri.query().unwrap_or_default());
        parts.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(parts, body).await;
        if response.status() != StatusCode::OK {
            return response;
        }
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        let Ok(mut page) = SecretJson::parse(&body) else {
            return upstream::answer(head, body);
        };
        if lists_all && let Some(gone) = missing(&page, pushed) {
            proxmox.forget(&gone);
        }
        if fill_in(&mut page, &|id| proxmox.secrets(id)).is_none() {
            return upstream::answer(head, body);
        }
        self.note(Shim::ProxmoxCredentials, Action::Completed);
        shimmed(upstream::answer(head, page.to_body()), Shim::ProxmoxCredentials)
    }

    /// The objects in which 0.0.3 records its syncs: NetBox's own if its plugin has them, or those in memory.
    async fn sync_processes(&self, parts: Parts, body: Incoming, rest: &str) -> Response<Body> {
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let response = self.forward(parts.clone(), Full::new(body.clone())).await;
        if response.status() != StatusCode::NOT_FOUND {
            return response;
        }
        // NetBox answers 404 whoever asks: whether the token is accepted is another question.
        let allowed = self.forward(question(&parts, STATUS), Full::new(Bytes::new())).await;
        if !allowed.status().is_success() {
            return allowed;
        }
        let written: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut processes = locked(&self.proxy.netbox.processes);
        let processes = processes.entry(self.backend.url().to_string()).or_default();
        let id = rest.trim_end_matches('/').parse::<u64>().ok();
        let (status, answer) = match (&parts.method, id) {
            (&Method::POST, None) => (StatusCode::CREATED, Some(processes.create(&written, &self.origin))),
            (&Method::GET, None) => (StatusCode::OK, Some(processes.page())),
            (&Method::GET, Some(id)) => (StatusCode::OK, processes.get(id)),
            (&(Method::PATCH | Method::PUT), Some(id)) => (StatusCode::OK, processes.update(id, &written)),
            _ => (StatusCode::NOT_FOUND, None),
        };
        let Some(answer) = answer else { return response };
        self.note(Shim::SyncProcesses, Action::Emulated);
        shimmed(respond::json(status, Bytes::from(answer.to_string())), Shim::SyncProcesses)
    }

    /// A custom field is written: the one that some releases narrow keeps its types.
    async fn custom_field(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let Ok(mut written) = serde_json::from_slice::<Value>(&body) else {
            return self.forward(parts, Full::new(body)).await;
        };
        let is_new = parts.uri.path() == CUSTOM_FIELDS;
        let held = match written.get("object_types") {
            Some(_) if !is_new => self.held(&parts).await,
            _ => None,
        };
        if !widen(&mut written, held.as_ref()) {
            return self.forward(parts, Full::new(body)).await;
        }
        self.note(Shim::LastUpdated, Action::Translated);
        parts.headers.remove(CONTENT_LENGTH);
        let response = self.forward(parts, Full::new(Bytes::from(written.to_string()))).await;
        shimmed(response, Shim::LastUpdated)
    }

    /// NetBox's answer with texts in place of the objects that old releases read as texts.
    async fn flattened(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let path = parts.uri.path().to_owned();
        parts.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(parts, body).await;
        if !response.status().is_success() {
            return response;
        }
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        let mut answer = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if !flatten(&path, &mut answer) {
            return upstream::answer(head, body);
        }
        self.note(Shim::NestedObjects, Action::Translated);
        shimmed(upstream::answer(head, Bytes::from(answer.to_string())), Shim::NestedObjects)
    }

    /// NetBox's answer to `parts`, which looks for the custom field `field`: it is created if NetBox does not have it.
    async fn created_field(&self, parts: &Parts, field: &Value) -> Response<Body> {
        let target = parts.uri.path_and_query().map_or(CUSTOM_FIELDS, PathAndQuery::as_str);
        let look = || {
            let mut question = question(parts, target);
            question.headers.insert(ACCEPT_ENCODING, IDENTITY);
            self.forward(question, Full::new(Bytes::new()))
        };
        let (head, body) = match self.whole(look().await).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        let page: Value = serde_json::from_slice(&body).unwrap_or_default();
        if head.status != StatusCode::OK || page["count"] != 0 {
            return upstream::answer(head, body);
        }
        let mut create = question(parts, CUSTOM_FIELDS);
        create.method = Method::POST;
        create.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let created = self.forward(create, Full::new(Bytes::from(field.to_string()))).await;
        // Somebody else may have created it in between, which NetBox answers with 400.
        if !created.status().is_success() && created.status() != StatusCode::BAD_REQUEST {
            return created;
        }
        self.note(Shim::CustomFields, Action::Emulated);
        shimmed(look().await, Shim::CustomFields)
    }

    /// The object of `parts` as NetBox has it.
    async fn held(&self, parts: &Parts) -> Option<Value> {
        let mut question = question(parts, parts.uri.path());
        question.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let question = Request::from_parts(question, Full::new(Bytes::new()));
        let response = self.upstream.forward(question).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let (_, body) = self.whole(response.map(respond::passed)).await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// The body of a request as a whole.
    async fn read(&self, body: Incoming) -> Result<Bytes, Response<Body>> {
        let patience = self.backend.limits().client_body;
        let refused = |error| errors::upload_failed(self.peer.address, error);
        match timeout(patience, Limited::new(body, BODY).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let why = format!("A body for this path has {BODY} bytes at most.");
                Err(rejected(&Rejection::body(Reason::BodyTooLarge, why), self.peer.address))
            }
            Ok(Err(_)) => Err(refused(UploadError::Aborted)),
            Err(_) => Err(refused(UploadError::Slow(patience))),
        }
    }
}

/// Whether a request for `path` is one of the session that writes to NetBox.
fn writes_to_netbox(path: &str) -> bool {
    path.starts_with("/api/") && !BESIDE.iter().any(|beside| path.starts_with(beside))
}

/// A GET of `path` with the headers of `parts`.
fn question(parts: &Parts, path: &str) -> Parts {
    let mut question = parts.clone();
    question.method = Method::GET;
    headers::without_body(&mut question.headers);
    question.headers.remove(CONTENT_TYPE);
    if let Ok(target) = path.parse::<PathAndQuery>() {
        question.uri = Uri::from(target);
    }
    question
}

/// A failure of the bridge's own, in the form of NetBox's.
fn failed(status: StatusCode, detail: &str) -> Response<Body> {
    respond::json(status, Bytes::from(json!({ "detail": detail }).to_string()))
}
