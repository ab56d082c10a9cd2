//! Connections to a backend, and the known state of it.
//!
//! Every request of the stream path has a connection of its own, so that a failure of one run, above all a cut
//! connection, cannot affect another. Forwarded requests share a pool.

mod auth_backoff;
mod breaker;
mod capabilities;
mod chunked;
mod connect;
mod connect_error;
mod event_stream;
mod exchange;
mod forward;
mod gate;
mod head_gate;
mod id;
mod observe;
mod pool;
mod pooled_connection;
mod probe;
mod proxmox_endpoints;
mod report;
mod response_body;
mod response_cache;
mod scope;
mod socket;
mod upload;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, SEC_WEBSOCKET_EXTENSIONS, USER_AGENT, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::{BackendConfig, Limits};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::refusal::Refusal;
use crate::core::http::headers::Pseudonym;
use crate::core::http::url::BackendUrl;
use crate::core::remote::Remote;
use crate::telemetry::{self, BackendMetrics};
use crate::tls::TlsError;

pub use auth_backoff::KeyAttempt;
pub use capabilities::{CapabilitiesCache, KEY_STATUS};
pub use connect_error::ConnectError;
pub use exchange::{BackendResponse, RequestError, reason};
pub use forward::ForwardError;
pub use gate::{AuthFailure, RequestGate, UNSEEN_KEY};
pub use id::BackendId;
pub use observe::{BackendObserver, ConnectionObserver, LastRelease};
pub use probe::{ProbeError, ProbeResponse};
pub use proxmox_endpoints::{ProxmoxEndpoints, Unselectable};
pub use response_body::{BodyError, ResponseBody};
pub use response_cache::{CacheKey, CachedResponse, ResponseCache};
pub use scope::ScopedQuery;
pub use socket::{BackendSocket, SocketOpenError, open};
pub use upload::UploadError;

use auth_backoff::{Admission, KeyHash, Throttled};
use breaker::whole_seconds;
use connect::Dialer;
use pool::Pool;

/// The header that carries the API key since 0.0.7.
pub const API_KEY: HeaderName = HeaderName::from_static("x-proxbox-api-key");

/// How long the result of a reachability check is reused.
const RECENT: Duration = Duration::from_secs(1);

/// The `User-Agent` of this bridge.
const AGENT: &str = concat!("proxbox-bridge/", env!("CARGO_PKG_VERSION"));

/// A backend.
#[derive(Debug)]
pub struct Backend {
    dialer: Arc<Dialer>,
    pool: Pool,
    /// Its cached capabilities.
    pub capabilities_cache: CapabilitiesCache,
    /// The requests that it is not sent.
    pub gate: RequestGate,
    /// The Proxmox endpoints that were pushed to it, if it cannot store them.
    pub proxmox: Arc<ProxmoxEndpoints>,
    /// Its metrics.
    pub metrics: Arc<BackendMetrics>,
    /// Admits one reachability check at a time.
    checking: Semaphore,
    /// The name of this instance in the `Via` of requests.
    pseudonym: Option<Pseudonym>,
    /// Whether requests come back: the last response says so. `None` before the first response.
    in_loop: Mutex<Option<bool>>,
}

/// The credentials and headers of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestIdentity {
    /// The API key.
    pub key: Option<ApiKey>,
    /// Headers of the client that the backend records, and its `Via`.
    pub forwarded_headers: HeaderMap,
}

impl RequestIdentity {
    /// The identity of a request without a key on behalf of a client with `headers`: their `Via` alone, without which a
    /// loop of several bridges would not be detected.
    pub fn keyless(headers: &HeaderMap) -> Self {
        let via = headers.get_all(VIA).iter().map(|value| (VIA, value.clone()));
        Self { key: None, forwarded_headers: via.collect() }
    }
}

impl Backend {
    /// Creates the backend that `config` describes.
    pub fn new(config: BackendConfig) -> Result<Self, TlsError> {
        Self::at(Remote::Backend, config)
    }

    /// Creates the NetBox that `config` describes, named after the backend that uses it.
    pub fn netbox(config: BackendConfig) -> Result<Self, TlsError> {
        Self::at(Remote::Netbox, config)
    }

    fn at(remote: Remote, config: BackendConfig) -> Result<Self, TlsError> {
        let metrics = match config.netbox {
            Some(_) => BackendMetrics::with_netbox_listener(&config.name),
            None => BackendMetrics::new(remote, &config.name),
        };
        let dialer = Arc::new(Dialer::new(remote, config, Arc::clone(&metrics))?);
        Ok(Self {
            pool: Pool::new(Arc::clone(&dialer)),
            capabilities_cache: CapabilitiesCache::new(&dialer, Arc::clone(&metrics)),
            dialer,
            gate: RequestGate::default(),
            proxmox: Arc::default(),
            metrics,
            checking: Semaphore::new(1),
            pseudonym: None,
            in_loop: Mutex::default(),
        })
    }

    /// Names this instance in the `Via` of requests, so that it detects those that come back.
    #[must_use]
    pub fn with_pseudonym(self, pseudonym: Pseudonym) -> Self {
        Self { pseudonym: Some(pseudonym), ..self }
    }

    /// Shares the counts of wrong and accepted keys with `other`, which is the same backend, and the Proxmox
    /// endpoints that were pushed to it. The endpoints and their secrets are dropped if it has no NetBox listener any
    /// more.
    /// The last release that `other` was known to be is kept where both have the same URL.
    pub fn share_state(&mut self, other: &Self) {
        self.gate.backoff = Arc::clone(&other.gate.backoff);
        if self.url() == other.url() {
            *self.dialer.last_release.lock() = other.last_release();
        }
        if self.config().netbox.is_some() {
            self.proxmox = Arc::clone(&other.proxmox);
        }
    }

    /// Notes the authentication failure of `client` with `key`.
    pub fn note_auth_failure(&self, failure: AuthFailure<'_>, client: Option<IpAddr>, key: KeyHash) {
        let held_back = self.gate.note_failure(failure, client, key, self.limits());
        self.emit_throttled(held_back);
    }

    /// Notes that it refused, with `text`, a key of `client` that the bridge did not see.
    pub fn note_unseen_key_refusal(&self, client: IpAddr, text: &str) {
        self.emit_throttled(self.gate.backoff.refuse(client, UNSEEN_KEY, text, self.limits()));
    }

    fn emit_throttled(&self, held_back: Option<Throttled>) {
        let client = match held_back {
            None => return,
            Some(Throttled::All) => None,
            Some(Throttled::Client(client)) => Some(client),
        };
        telemetry::KeysThrottled { backend: &self.metrics, client }.emit();
    }

    /// Notifies `observer` of its connections from now on, unless another one is notified already.
    pub fn observe(&self, observer: Arc<dyn BackendObserver>) {
        // A second observer has no use.
        let _ = self.dialer.observer.set(observer);
    }

    /// Requests bytes that an observer can read: neither the body nor WebSocket messages are to be compressed.
    fn request_readable(&self, headers: &mut HeaderMap) {
        if self.dialer.observer.get().is_some() {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        }
    }

    /// The role of this remote.
    pub fn remote(&self) -> Remote {
        self.dialer.remote
    }

    /// Its configuration.
    pub fn config(&self) -> &BackendConfig {
        &self.dialer.config
    }

    /// Its URL.
    pub fn url(&self) -> &BackendUrl {
        &self.config().url
    }

    /// Its identity.
    pub fn id(&self) -> &BackendId {
        &self.dialer.id
    }

    /// Resolves its addresses for [`Backend::id`]. If that fails, the known ones stay.
    pub async fn resolve(&self) {
        // The next connection attempt reports the error.
        let _ = self.dialer.addresses().await;
    }

    /// Resolves its addresses, unless they are known.
    pub async fn locate(&self) {
        if !self.id().has_address() {
            self.resolve().await;
        }
    }

    /// The limits that apply to it.
    pub fn limits(&self) -> &Limits {
        &self.config().limits
    }

    /// Returns whether its TLS files are unchanged since they were loaded. It reads them, and blocks.
    pub fn has_current_files(&self) -> bool {
        self.dialer.has_current_files()
    }

    /// Reloads its TLS files if they have changed, for new connections. It reads them, and blocks.
    pub fn reload_files(&self) {
        if let Some(read) = self.dialer.reload_files() {
            let error = read.err().map(|error| error.to_string());
            telemetry::BackendFilesRead { backend: &self.metrics, error }.emit();
        }
    }

    /// Connects to it and closes the connection. A backend that is busy with a sync accepts connections, but does not
    /// answer requests.
    pub async fn connect_once(&self) -> Result<(), ConnectError> {
        self.dialer.connect().await.map(drop)
    }

    /// Returns whether the last connection attempt is so long ago that a check is due (`limits.check`).
    pub fn is_check_due(&self) -> bool {
        let limit = self.limits().check;
        let is_long = self.last_attempt().is_none_or(|last| last >= limit);
        let may_try = self.checking.available_permits() > 0 && self.dialer.breaker.allows_attempt();
        !limit.is_zero() && is_long && may_try
    }

    /// Checks whether it can be reached, unless a check is under way. The first check is a request, so that a loop is
    /// noticed before the first sync, and so are those in a loop.
    pub async fn check(&self) {
        let Ok(_turn) = self.checking.try_acquire() else { return };
        // Both report their results.
        let is_known = *self.in_loop.lock() == Some(false);
        if is_known {
            let _ = self.connect_once().await;
        } else {
            let _ = self.probe("/", &RequestIdentity::default()).await;
        }
    }

    /// Notes the status of a response: whether requests come back.
    fn note_status(&self, status: StatusCode) {
        let in_loop = status == StatusCode::LOOP_DETECTED;
        let before = self.in_loop.lock().replace(in_loop);
        if before.unwrap_or_default() != in_loop {
            telemetry::LoopChanged { backend: &self.metrics, url: self.url(), in_loop }.emit();
        }
    }

    /// Why no request reaches it, if they come back to this bridge or to another one.
    pub fn loop_problem(&self) -> Option<String> {
        let in_loop = *self.in_loop.lock() == Some(true);
        in_loop.then(|| {
            let (name, key) = (&self.config().name, self.remote().url_key());
            format!(
                "requests to {name} come back to a bridge that has sent them: set {key} of this bridge, or of one behind \
                 it, to the server itself"
            )
        })
    }

    /// The refusal for a client whose request cannot be sent for the reason `why`.
    pub fn unavailable(&self, why: &str) -> Refusal {
        match self.loop_problem() {
            Some(problem) => Refusal::in_loop(&format!("{problem}.")),
            None => Refusal::unreachable(why, self.limits().retry_after.as_secs()),
        }
    }

    /// Checks whether it can be reached, or returns a recent result. Concurrent callers share one connection at a
    /// time.
    pub async fn check_reachable(&self) -> Result<(), ConnectError> {
        if self.last_attempt().is_none_or(|last| last >= RECENT) {
            // The semaphore is never closed.
            let _turn = self.checking.acquire().await;
            if self.last_attempt().is_none_or(|last| last >= RECENT) {
                return self.connect_once().await;
            }
        }
        self.last_error().map_or(Ok(()), Err)
    }

    /// Admits a request of `client` with `key` when the key may be tried. The attempt is held until the backend has
    /// answered the key.
    pub async fn admit(&self, client: IpAddr, key: KeyHash) -> Result<Option<KeyAttempt>, Refusal> {
        let limits = self.limits();
        let deadline = Instant::now() + limits.probe;
        loop {
            if let Some(refusal) = self.gate.backoff_for(Some(client), key) {
                return Err(refusal);
            }
            let changed = self.gate.backoff.changed();
            match self.gate.backoff.admit(client, key, limits) {
                Admission::Accepted => return Ok(None),
                Admission::Attempt(key_attempt) => return Ok(Some(key_attempt)),
                _ if self.cached_capabilities().wants_key() == Some(false) => return Ok(None),
                Admission::Refused(again) => return Err(Refusal::wrong_keys(whole_seconds(again))),
                Admission::Busy => {}
            }
            // A wrong key is answered at once, even while the request with a valid key takes long.
            if timeout_at(deadline, changed).await.is_err() {
                return Err(Refusal::key_unanswered(&humantime::format_duration(limits.probe).to_string()));
            }
        }
    }

    /// The state of its circuit breaker.
    pub fn circuit(&self) -> telemetry::Circuit {
        self.dialer.breaker.state()
    }

    /// The error of the last connection attempt, if it failed.
    pub fn last_error(&self) -> Option<ConnectError> {
        self.dialer.breaker.last_error()
    }

    /// The time since the last connection attempt; `None` if there was none.
    pub fn last_attempt(&self) -> Option<Duration> {
        self.dialer.breaker.last_attempt()
    }

    /// Builds a request for `target` (path and query).
    fn request(
        &self,
        method: Method,
        target: &str,
        identity: &RequestIdentity,
    ) -> Result<Request<()>, http::Error> {
        let request = Request::builder().method(method).uri(target);
        let request = request.header(HOST, self.config().url.authority()).header(USER_AGENT, AGENT);
        let request = request.header(ACCEPT, "text/event-stream, application/json");
        let mut request = request.header(ACCEPT_ENCODING, "identity").body(())?;
        if let Some(key) = &identity.key {
            request.headers_mut().insert(API_KEY, key.header()?);
        }
        for (name, value) in &identity.forwarded_headers {
            request.headers_mut().append(name, value.clone());
        }
        if let Some(pseudonym) = &self.pseudonym {
            pseudonym.append_to(request.headers_mut(), Version::HTTP_11);
        }
        Ok(request)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config().url.fmt(f)
    }
}
