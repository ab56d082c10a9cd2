//! Connections to a backend, and what is known of it.
//!
//! Every request of the stream path has a connection of its own: nothing that one run does to it, a
//! cut in the middle above all, can reach another. What passes through shares a pool.

mod active;
mod auth_backoff;
mod breaker;
mod capabilities;
mod connect;
mod connect_error;
mod exchange;
mod forward;
mod guests;
mod id;
mod probe;
mod proxmox_endpoints;
mod response_cache;
mod scope;
mod shield;
mod socket;
mod upload;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, BackendUrl, Limits};
use crate::core::domain::credential::ApiKey;
use crate::core::remote::Remote;
use crate::telemetry::{self, BackendMetrics};
use crate::tls::TlsError;

pub use auth_backoff::KeyAttempt;
pub use capabilities::{CapabilitiesCache, KEY_STATUS};
pub use connect::Link;
pub use connect_error::ConnectError;
pub use exchange::{BackendResponse, ForwardedBody, RequestError, reason};
pub use forward::{ForwardError, Tunnel};
pub use id::BackendId;
pub use probe::{ProbeError, ProbeResponse};
pub use proxmox_endpoints::{ProxmoxEndpoints, Unselectable};
pub use response_cache::{CacheKey, CachedResponse, ResponseCache};
pub use scope::ScopedQuery;
pub use shield::{AuthFailure, BackoffReason, RequestGate, UNSEEN_KEY};
pub use socket::{BackendSocket, SocketOpenError, open};
pub use upload::UploadError;

use auth_backoff::{Admission, AttemptLimit, KeyHash, Throttled};
use connect::Dialer;
use forward::Pool;

/// The header that carries the key since 0.0.7.
pub const API_KEY: HeaderName = HeaderName::from_static("x-proxbox-api-key");

/// How long what was found out about whether a backend can be reached is news.
const RECENT: Duration = Duration::from_secs(1);

/// What this bridge calls itself.
const AGENT: &str = concat!("proxbox-bridge/", env!("CARGO_PKG_VERSION"));

/// One backend.
#[derive(Debug)]
pub struct Backend {
    config: config::Backend,
    dialer: Arc<Dialer>,
    pool: Pool,
    /// What it can do, as far as it is known.
    pub capabilities_cache: CapabilitiesCache,
    /// What it need not be asked.
    pub gate: RequestGate,
    /// The Proxmox endpoints that were pushed to it, if it cannot store them.
    pub proxmox: Arc<ProxmoxEndpoints>,
    /// What is counted of it.
    pub metrics: Arc<BackendMetrics>,
    /// Whether it can be reached is found out by one at a time.
    checking: Semaphore,
}

/// What a request carries besides its path.
#[derive(Clone, Debug, Default)]
pub struct RequestIdentity {
    /// The key.
    pub key: Option<ApiKey>,
    /// Headers of the client that the backend's own records want.
    pub forwarded_headers: HeaderMap,
}

impl Backend {
    /// The backend that is configured.
    ///
    /// # Errors
    ///
    /// What is wrong with the files that its certificate is checked by.
    pub fn new(config: config::Backend) -> Result<Self, TlsError> {
        let has_listener = config.netbox.is_some();
        Self::at(config, |name| match has_listener {
            true => BackendMetrics::with_netbox_listener(name),
            false => BackendMetrics::new(Remote::Backend, name),
        })
    }

    /// NetBox, which is reached as `config` says, whose name is that of the backend that asks it.
    ///
    /// # Errors
    ///
    /// What is wrong with the files that its certificate is checked by.
    pub fn netbox(config: config::Backend) -> Result<Self, TlsError> {
        Self::at(config, |name| BackendMetrics::new(Remote::Netbox, name))
    }

    fn at(
        config: config::Backend,
        metrics: impl FnOnce(&str) -> Arc<BackendMetrics>,
    ) -> Result<Self, TlsError> {
        let metrics = metrics(&config.name);
        let dialer = Arc::new(Dialer::new(metrics.remote(), &config, Arc::clone(&metrics))?);
        let pool = Pool::new(Arc::clone(&dialer), config.limits.pool_idle);
        let knowledge = CapabilitiesCache::new(Arc::clone(&metrics));
        Ok(Self {
            config,
            dialer,
            pool,
            capabilities_cache: knowledge,
            gate: RequestGate::default(),
            proxmox: Arc::default(),
            metrics,
            checking: Semaphore::new(1),
        })
    }

    /// Counts wrong and accepted keys together with `other`, which is the same backend, and has the Proxmox endpoints
    /// that were pushed to it. These are dropped with their secrets if it has no NetBox listener any more.
    pub fn share_keys(&mut self, other: &Self) {
        self.gate.backoff = Arc::clone(&other.gate.backoff);
        if self.config.netbox.is_some() {
            self.proxmox = Arc::clone(&other.proxmox);
        }
    }

    /// Learns from its answer to `client` with `key`, whose request began in `generation` of [`RequestGate::generation`].
    pub fn note_auth_failure(
        &self,
        failure: AuthFailure<'_>,
        client: Option<IpAddr>,
        key: KeyHash,
        generation: u64,
    ) {
        let held_back = self.gate.note_failure(failure, client, key, generation, self.limits());
        self.emit_throttled(held_back);
    }

    /// It has refused a key of `client` that the bridge has not seen, with the words `text`.
    pub fn note_unseen_key_refusal(&self, client: IpAddr, text: &str) {
        let allowed = AttemptLimit::new(self.limits());
        self.emit_throttled(self.gate.backoff.refuse(client, UNSEEN_KEY, text, allowed));
    }

    fn emit_throttled(&self, held_back: Option<Throttled>) {
        let client = match held_back {
            None => return,
            Some(Throttled::All) => None,
            Some(Throttled::Client(client)) => Some(client),
        };
        telemetry::KeysThrottled { backend: &self.metrics, client }.emit();
    }

    /// What it is to the bridge.
    pub fn remote(&self) -> Remote {
        self.dialer.remote()
    }

    /// How it is configured.
    pub fn config(&self) -> &config::Backend {
        &self.config
    }

    /// Where it is.
    pub fn url(&self) -> &BackendUrl {
        &self.config.url
    }

    /// What tells it from others.
    pub fn id(&self) -> &BackendId {
        self.dialer.id()
    }

    /// Looks up where it is, for [`Backend::id`] to tell. Where that fails, what was known stays.
    pub async fn resolve(&self) {
        // Whoever connects next is told why.
        let _ = self.dialer.addresses().await;
    }

    /// Looks up where it is, unless that is known.
    pub async fn locate(&self) {
        if !self.id().has_address() {
            self.resolve().await;
        }
    }

    /// The limits that are in force for it.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Whether what the files of its TLS hold is in use. It reads them, and blocks.
    pub fn has_current_files(&self) -> bool {
        self.dialer.has_current_files(&self.config)
    }

    /// Uses the files of its TLS again if they hold something else, for connections from now on. It reads them, and
    /// blocks.
    pub fn reload_files(&self) {
        if let Some(read) = self.dialer.reload_files(&self.config) {
            let error = read.err().map(|error| error.to_string());
            telemetry::BackendFilesRead { backend: &self.metrics, error }.emit();
        }
    }

    /// Connects to it and hangs up: a backend that is busy with a sync takes connections, and answers nothing.
    ///
    /// # Errors
    ///
    /// Why it cannot be reached.
    pub async fn connect_once(&self) -> Result<(), ConnectError> {
        self.dialer.connect().await.map(drop)
    }

    /// Whether nobody has connected to it for so long that the bridge is to (`limits.check`).
    pub fn is_check_due(&self) -> bool {
        let limit = self.limits().check;
        let is_long = self.last_attempt().is_none_or(|last| last >= limit);
        let may_try = self.checking.available_permits() > 0 && self.dialer.breaker.allows_attempt();
        !limit.is_zero() && is_long && may_try
    }

    /// Finds out whether it can be reached, unless somebody does.
    pub async fn check(&self) {
        let Ok(_turn) = self.checking.try_acquire() else { return };
        // Whatever comes of it is told by the connection.
        let _ = self.connect_once().await;
    }

    /// Whether it can be reached, as it was found out not long ago, or is now. However many ask, it is one
    /// connection at a time.
    ///
    /// # Errors
    ///
    /// Why it cannot be reached.
    pub async fn check_reachable(&self) -> Result<(), ConnectError> {
        if self.last_attempt().is_none_or(|last| last >= RECENT) {
            // Nobody closes it.
            let _turn = self.checking.acquire().await;
            if self.last_attempt().is_none_or(|last| last >= RECENT) {
                return self.connect_once().await;
            }
        }
        self.last_error().map_or(Ok(()), Err)
    }

    /// Lets a request of `client` with `key` go on when the key may be tried, and gives what stands for it until it is
    /// answered.
    ///
    /// # Errors
    ///
    /// Why the backend is not asked.
    pub async fn admit(&self, client: IpAddr, key: KeyHash) -> Result<Option<KeyAttempt>, BackoffReason> {
        let limits = self.limits();
        let deadline = Instant::now() + limits.probe;
        loop {
            if let Some(reason) = self.gate.backoff_for(Some(client), key) {
                return Err(reason);
            }
            let changed = self.gate.backoff.changed();
            match self.gate.backoff.admit(client, key, AttemptLimit::new(limits)) {
                Admission::Accepted => return Ok(None),
                Admission::Attempt(key_attempt) => return Ok(Some(key_attempt)),
                _ if self.cached_capabilities().wants_key() == Some(false) => return Ok(None),
                Admission::Refused { retry_after: again } => {
                    return Err(BackoffReason::WrongKeys { retry_after: again });
                }
                Admission::Busy => {}
            }
            // Wrong keys are answered at once, also while the request behind a right one takes its time.
            if timeout_at(deadline, changed).await.is_err() {
                return Err(BackoffReason::Unanswered { after: limits.probe });
            }
        }
    }

    /// Whether connections to it are tried.
    pub fn circuit(&self) -> telemetry::Circuit {
        self.dialer.breaker.state()
    }

    /// Why it could not be reached when that was last tried, if it could not.
    pub fn last_error(&self) -> Option<ConnectError> {
        self.dialer.breaker.last_error()
    }

    /// How long it is since it was last found out whether it can be reached; nothing if it never was.
    pub fn last_attempt(&self) -> Option<Duration> {
        self.dialer.breaker.last_attempt()
    }

    /// A request for `target` (path and query) as this bridge makes it.
    fn request(
        &self,
        method: Method,
        target: &str,
        identity: &RequestIdentity,
    ) -> Result<Request<()>, http::Error> {
        let mut request = Request::builder().method(method).uri(target).body(())?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.config.url.authority())?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(key) = &identity.key {
            headers.insert(API_KEY, key.header()?);
        }
        for (name, value) in &identity.forwarded_headers {
            headers.append(name, value.clone());
        }
        Ok(request)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.url.fmt(f)
    }
}
