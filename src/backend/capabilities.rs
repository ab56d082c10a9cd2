//! Detects the capabilities of a backend, without starting a sync.
//!
//! A `HEAD` request gets 405 on a path that supports only `GET`, and 404 on a missing path; neither starts a sync.
//! `/version` returns the release and verifies the key, at the cost of one attempt. A backend that requires a key gets
//! no requests without one: five refusals lock the address out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::header::ALLOW;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::connect::Dialer;
use super::exchange::{BackendResponse, RequestError, reason};
use super::{Backend, RequestIdentity};
use crate::core::domain::channel::{Channel, ChannelChoice};
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::http::headers::list;
use crate::core::run::capabilities::{
    Capabilities, FIRST_WITH_VERSION, RELEASE_HINTS, SETTINGS, SocketSupport,
};
use crate::core::run::plan::needed_streams;
use crate::deadline::timeout;
use crate::telemetry::{BackendMetrics, CapabilitiesLearned};

/// The first release whose `/ws` an execution policy may refuse.
const FIRST_WITH_POLICY: Release = Release::new(0, 0, 23).post(1);
/// A path that exactly the releases with keys have. They answer it without a key.
pub const KEY_STATUS: &str = "/auth/bootstrap-status";
/// The largest response body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The known capabilities of a backend, and their age.
#[derive(Debug)]
pub struct CapabilitiesCache {
    ttl: Duration,
    metrics: Arc<BackendMetrics>,
    last_release: Arc<Mutex<Option<Release>>>,
    inner: Mutex<CacheInner>,
    /// Held while probing: concurrent clients wait for the results of the first.
    probing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct CacheInner {
    /// The number of invalidations.
    generation: u64,
    cached: Option<CachedCapabilities>,
}

#[derive(Clone, Debug)]
struct CachedCapabilities {
    /// The generation in which it was read. The results of requests that began in an earlier one are discarded.
    generation: u64,
    since: Instant,
    version_probed: bool,
    policy_probed: bool,
    /// Paths that were requested without a key, and whether they are missing.
    missing: HashMap<&'static str, bool>,
    capabilities: Capabilities,
}

impl Default for CachedCapabilities {
    fn default() -> Self {
        Self {
            generation: 0,
            since: Instant::now(),
            version_probed: false,
            policy_probed: false,
            missing: HashMap::new(),
            capabilities: Capabilities::default(),
        }
    }
}

impl CachedCapabilities {
    /// Whether a run of `endpoint` can be planned without further requests.
    fn is_sufficient(&self, endpoint: SyncEndpoint, choice: ChannelChoice) -> bool {
        self.version_probed
            && needed_streams(endpoint, &self.capabilities, choice).is_empty()
            && !self.needs_policy(endpoint, choice)
    }

    /// Whether the execution policy matters for a run of `endpoint` and is unknown.
    fn needs_policy(&self, endpoint: SyncEndpoint, choice: ChannelChoice) -> bool {
        let native = self.capabilities.stream(endpoint) == Some(true) && choice == ChannelChoice::Auto;
        let may_use_socket =
            !native && matches!(choice, ChannelChoice::Auto | ChannelChoice::Only(Channel::Websocket));
        let has_policy = self.capabilities.release.is_none_or(|release| release >= FIRST_WITH_POLICY);
        may_use_socket && has_policy && !self.policy_probed
    }
}

impl CapabilitiesCache {
    pub(super) fn new(dialer: &Dialer, metrics: Arc<BackendMetrics>) -> Self {
        Self {
            ttl: dialer.config.limits.capabilities,
            metrics,
            last_release: Arc::clone(&dialer.last_release),
            inner: Mutex::default(),
            probing: tokio::sync::Mutex::default(),
        }
    }

    /// Clears everything but [`Backend::last_release`], because it proved wrong or may have changed. The results of
    /// pending requests are discarded.
    pub fn invalidate(&self) {
        let mut memory = self.inner.lock();
        *memory = CacheInner { generation: memory.generation + 1, cached: None };
    }

    /// The generation. [`Backend::note_missing_path`] takes the one from before the request.
    pub fn generation(&self) -> u64 {
        self.inner.lock().generation
    }

    fn get(&self) -> CachedCapabilities {
        self.unexpired(&self.inner.lock())
    }

    /// The cached capabilities, if they have not expired.
    fn unexpired(&self, inner: &CacheInner) -> CachedCapabilities {
        let cached = inner.cached.clone().filter(|cached| cached.since.elapsed() < self.ttl);
        CachedCapabilities { generation: inner.generation, ..cached.unwrap_or_default() }
    }

    /// Whether there was no invalidation since `cached` was read.
    fn is_current(&self, cached: &CachedCapabilities) -> bool {
        self.generation() == cached.generation
    }

    /// Stores `cached`, unless there was an invalidation since it was read.
    fn store(&self, mut cached: CachedCapabilities) {
        let mut memory = self.inner.lock();
        if memory.generation != cached.generation {
            return;
        }
        if let Some(release) = cached.capabilities.release {
            *self.last_release.lock() = Some(release);
        }
        // Stored meanwhile by `store_missing`.
        if let Some(now) = memory.cached.take().filter(|now| now.since >= cached.since) {
            for (path, missing) in now.missing {
                cached.missing.entry(path).or_insert(missing);
            }
        }
        if cached.version_probed {
            let (release, dialect) = (cached.capabilities.release, cached.capabilities.dialect());
            CapabilitiesLearned { backend: &self.metrics, release, dialect }.emit();
        }
        memory.cached = Some(cached);
    }

    /// Stores whether `path` is missing, for a request that began in `generation`. It does not wait for `probing`.
    fn store_missing(&self, (path, missing): (&'static str, bool), generation: u64) {
        let mut memory = self.inner.lock();
        if memory.generation == generation {
            let mut cached = self.unexpired(&memory);
            cached.missing.insert(path, missing);
            memory.cached = Some(cached);
        }
    }
}

/// A result of detection.
type Detected<T = ()> = Result<T, CapabilityError>;

/// Why a capability could not be detected.
enum CapabilityError {
    /// The backend cannot be reached, or does not answer.
    Unreachable(String),
    /// It refused the request.
    Refused(Refusal),
}

impl CapabilityError {
    /// The answer for a client of `backend`.
    fn refusal(self, backend: &Backend) -> Refusal {
        match self {
            Self::Unreachable(why) => Refusal::unreachable(&why, backend.limits().retry_after.as_secs()),
            Self::Refused(refusal) => refusal,
        }
    }
}

impl Backend {
    /// Returns the capabilities that are needed to plan a run of `endpoint`. The error is the answer for the client:
    /// the backend is unreachable, or refused the key.
    pub async fn capabilities(
        &self,
        endpoint: SyncEndpoint,
        choice: ChannelChoice,
        identity: &RequestIdentity,
    ) -> Result<Capabilities, Refusal> {
        let learned = self.capabilities_and_key(endpoint, choice, identity).await;
        learned.map(|(capabilities, _)| capabilities)
    }

    /// As [`Self::capabilities`], and whether the backend accepted the key in a request of this call.
    pub async fn capabilities_and_key(
        &self,
        endpoint: SyncEndpoint,
        choice: ChannelChoice,
        identity: &RequestIdentity,
    ) -> Result<(Capabilities, bool), Refusal> {
        let learned = self.within_limit(self.probe_capabilities(endpoint, choice, identity)).await;
        learned.map_err(|error| {
            if let CapabilityError::Unreachable(_) = error {
                self.capabilities_cache.invalidate();
            }
            error.refusal(self)
        })
    }

    /// Limits the time of `probe`, including its wait for `probing`. Otherwise a slow backend would delay concurrent
    /// clients one after the other.
    async fn within_limit<T>(&self, probe: impl Future<Output = Detected<T>> + Send) -> Detected<T> {
        // Boxed: it is large, and most requests need no probe.
        timeout(self.limits().probe, probe.boxed()).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(self.limits().probe);
            let why = format!("{self} did not answer within {limit} (limits.probe)");
            Err(CapabilityError::Unreachable(why))
        })
    }

    async fn probe_capabilities(
        &self,
        endpoint: SyncEndpoint,
        choice: ChannelChoice,
        identity: &RequestIdentity,
    ) -> Detected<(Capabilities, bool)> {
        let cached = self.capabilities_cache.get();
        if cached.is_sufficient(endpoint, choice) {
            return Ok((cached.capabilities, false));
        }
        let _turn = self.capabilities_cache.probing.lock().await;
        let mut may_repeat = true;
        loop {
            let mut cached = self.capabilities_cache.get();
            let was_probed = cached.version_probed;
            self.probe_missing_capabilities(&mut cached, endpoint, choice, identity).await?;
            // Some results may be those of the previous backend. One repetition is enough: a run that was planned for
            // another backend is planned again.
            if !self.capabilities_cache.is_current(&cached) && std::mem::take(&mut may_repeat) {
                continue;
            }
            let capabilities = cached.capabilities.clone();
            let is_accepted = !was_probed
                && cached.version_probed
                && identity.key.is_some()
                && capabilities.wants_key() == Some(true);
            if cached.version_probed {
                self.capabilities_cache.store(cached);
            }
            return Ok((capabilities, is_accepted));
        }
    }

    /// Returns all capabilities, for an error answer that lists what the backend supports. `None` if the backend may
    /// require a key and there is none, if it fails, or if it takes too long.
    pub async fn all_capabilities(&self, identity: &RequestIdentity) -> Option<Capabilities> {
        let request = async {
            let _turn = self.capabilities_cache.probing.lock().await;
            let mut cached = self.capabilities_cache.get();
            if identity.key.is_none() && cached.capabilities.wants_key() != Some(false) {
                return None;
            }
            for endpoint in Kind::all().map(SyncEndpoint::for_kind) {
                self.probe_stream(&mut cached, endpoint, identity).await.ok()?;
            }
            let capabilities = cached.capabilities.clone();
            self.capabilities_cache.store(cached);
            Some(capabilities)
        };
        timeout(self.limits().probe, request).await.ok()?
    }

    /// Returns the release, if it can be detected. Without a key, only backends that require none are queried. The error
    /// is the answer for the client: the backend is unreachable, or refused the key.
    pub async fn release(&self, identity: &RequestIdentity) -> Result<Option<Release>, Refusal> {
        let release = self.capabilities_cache.get().capabilities.release;
        if release.is_some() {
            return Ok(release);
        }
        let learned = async {
            if identity.key.is_none()
                && !self
                    .lacks(KEY_STATUS, &identity.forwarded_headers)
                    .await
                    .map_err(CapabilityError::Unreachable)?
            {
                return Ok(None);
            }
            self.within_limit(self.probe_release(identity)).await
        };
        learned.await.or_else(|error| match (&error, self.last_release()) {
            // A backend may answer nothing while it runs a sync.
            (CapabilityError::Unreachable(_), Some(last)) => Ok(Some(last)),
            _ => Err(error.refusal(self)),
        })
    }

    async fn probe_release(&self, identity: &RequestIdentity) -> Detected<Option<Release>> {
        let _turn = self.capabilities_cache.probing.lock().await;
        let mut may_repeat = true;
        loop {
            let mut cached = self.capabilities_cache.get();
            // A backend that did not report its release may have been starting.
            if cached.capabilities.release.is_none() {
                self.probe_version(&mut cached, identity).await?;
                if !self.capabilities_cache.is_current(&cached) && std::mem::take(&mut may_repeat) {
                    continue;
                }
                cached.version_probed = true;
                self.capabilities_cache.store(cached.clone());
            }
            return Ok(cached.capabilities.release);
        }
    }

    /// Whether the backend lacks `path`, one that backends answer without a key. `client` are the headers of the client.
    /// The error says why that could not be detected.
    pub async fn lacks(&self, path: &'static str, client: &HeaderMap) -> Result<bool, String> {
        if let Some(missing) = self.capabilities_cache.get().missing.get(path) {
            return Ok(*missing);
        }
        let generation = self.capabilities_cache.generation();
        let (status, missing) = match self.within_limit(self.query_without_key(path, client)).await {
            Ok(answer) => answer,
            Err(CapabilityError::Unreachable(why)) => return Err(why),
            Err(CapabilityError::Refused(refusal)) => {
                return Err(format!("{self}{path}: {}", refusal.text()));
            }
        };
        if !missing && !status.is_success() {
            return Err(format!("{self}{path}: it answered {status}"));
        }
        self.capabilities_cache.store_missing((path, missing), generation);
        Ok(missing)
    }

    /// The answer to a request for `path` without a key: its status, and whether the path is missing.
    async fn query_without_key(&self, path: &str, client: &HeaderMap) -> Detected<(StatusCode, bool)> {
        let mut exchange = self.query(Method::GET, path, &RequestIdentity::keyless(client)).await?;
        let missing = self.is_not_found(&mut exchange).await?;
        Ok((exchange.status, missing))
    }

    /// The cached capabilities. It sends no request.
    pub fn cached_capabilities(&self) -> Capabilities {
        self.capabilities_cache.get().capabilities
    }

    /// The last detected release, of any age. It is cleared only when the backend refuses connections.
    pub fn last_release(&self) -> Option<Release> {
        *self.capabilities_cache.last_release.lock()
    }

    /// The cached capabilities, if they are enough to plan a run of `endpoint`.
    pub fn cached_capabilities_for(&self, endpoint: SyncEndpoint) -> Option<Capabilities> {
        let cached = self.capabilities_cache.get();
        cached.is_sufficient(endpoint, self.config().channel).then_some(cached.capabilities)
    }

    /// Whether the backend is known to lack `path`.
    pub fn is_known_missing(&self, path: &str) -> bool {
        self.capabilities_cache.get().missing.get(path) == Some(&true)
    }

    /// Notes that the backend lacks `path`. `generation` is that of the cache before the request.
    pub fn note_missing_path(&self, path: &'static str, generation: u64) {
        self.capabilities_cache.store_missing((path, true), generation);
    }

    async fn probe_missing_capabilities(
        &self,
        cached: &mut CachedCapabilities,
        endpoint: SyncEndpoint,
        choice: ChannelChoice,
        identity: &RequestIdentity,
    ) -> Detected {
        if identity.key.is_none() && !cached.version_probed && cached.missing.get(KEY_STATUS) != Some(&true) {
            // Without a key, only this may be requested unless the backend is known to require none.
            let client = &identity.forwarded_headers;
            let has_health = !self.query_without_key("/health", client).await?.1;
            if has_health && choice != ChannelChoice::Only(Channel::Json) {
                // 0.0.6 and later have every stream. If a key is required, the response to the run reports it.
                cached.capabilities.streams.insert(endpoint, true);
                return Ok(());
            }
            if has_health {
                // Which plain endpoints work depends on the release, and reading that requires the key.
                let (_, requires_none) = self.query_without_key(KEY_STATUS, client).await?;
                cached.missing.insert(KEY_STATUS, requires_none);
                if !requires_none {
                    return Err(CapabilityError::Refused(Refusal::key_missing()));
                }
            }
        }
        if identity.key.is_none() && cached.capabilities.wants_key() == Some(true) {
            return Err(CapabilityError::Refused(Refusal::key_missing()));
        }
        if identity.key.is_none() && cached.version_probed && cached.capabilities.release.is_none() {
            // It may require a key. If so, the response to the run reports it, at the cost of one attempt.
            cached.capabilities.streams.insert(endpoint, true);
            return Ok(());
        }
        if !cached.version_probed {
            self.probe_version(cached, identity).await?;
            cached.version_probed = true;
        }
        loop {
            let needed = needed_streams(endpoint, &cached.capabilities, choice);
            if needed.is_empty() {
                break;
            }
            for endpoint in needed {
                self.probe_stream(cached, endpoint, identity).await?;
            }
        }
        if cached.needs_policy(endpoint, choice) {
            self.probe_policy(cached, identity).await?;
            cached.policy_probed = true;
        }
        Ok(())
    }

    async fn probe_version(&self, cached: &mut CachedCapabilities, identity: &RequestIdentity) -> Detected {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Version {
            version: String,
            capabilities: Advertised,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Advertised {
            ws_run_id: u64,
        }

        let mut exchange = self.query(Method::GET, "/version", identity).await?;
        match exchange.status {
            StatusCode::OK => {
                let body = self.read_body(&mut exchange).await?;
                let version: Version = serde_json::from_slice(&body).unwrap_or_default();
                cached.capabilities.release = version.version.parse().ok();
                cached.capabilities.correlates = version.capabilities.ws_run_id == 1;
                Ok(())
            }
            StatusCode::NOT_FOUND => {
                if !self.is_not_found(&mut exchange).await? {
                    return Ok(());
                }
                for kind in RELEASE_HINTS {
                    self.probe_stream(cached, SyncEndpoint::for_kind(kind), identity).await?;
                }
                let has_stream =
                    |kind| cached.capabilities.stream(SyncEndpoint::for_kind(kind)) == Some(true);
                if !RELEASE_HINTS.into_iter().any(has_stream) {
                    cached.capabilities.has_settings = Some(self.has(SETTINGS, identity).await?);
                }
                let inferred = cached.capabilities.inferred_release();
                cached.capabilities.release = inferred.filter(|release| *release < FIRST_WITH_VERSION);
                Ok(())
            }
            status if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE => {
                let body = self.read_body(&mut exchange).await?;
                Err(CapabilityError::Refused(Refusal::from_response(exchange.error_response(&body))))
            }
            // Without a version, it may still support syncs.
            _ => Ok(()),
        }
    }

    async fn probe_stream(
        &self,
        cached: &mut CachedCapabilities,
        endpoint: SyncEndpoint,
        identity: &RequestIdentity,
    ) -> Detected {
        if cached.capabilities.stream(endpoint).is_some() {
            return Ok(());
        }
        let there = self.has(&endpoint.stream_path(), identity).await?;
        cached.capabilities.streams.insert(endpoint, there);
        Ok(())
    }

    /// Whether the backend supports GET on `path`, without sending one.
    async fn has(&self, path: &str, identity: &RequestIdentity) -> Detected<bool> {
        let exchange = self.query(Method::HEAD, path, identity).await?;
        match exchange.status {
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::METHOD_NOT_ALLOWED => Ok(allows_get(&exchange)),
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => {
                let status = exchange.status.as_u16();
                Err(CapabilityError::Refused(Refusal::key_refused(status, exchange.retry_after())))
            }
            // The path exists. Whether it works, the run shows.
            _ => Ok(true),
        }
    }

    async fn probe_policy(&self, cached: &mut CachedCapabilities, identity: &RequestIdentity) -> Detected {
        #[derive(Deserialize)]
        struct Policy {
            mode: String,
        }

        let mut exchange = self.query(Method::GET, "/execution-policy", identity).await?;
        if exchange.status == StatusCode::OK {
            let body = self.read_body(&mut exchange).await?;
            if serde_json::from_slice::<Policy>(&body).is_ok_and(|policy| policy.mode == "rpc_only") {
                cached.capabilities.socket = SocketSupport::Denied;
            }
        }
        Ok(())
    }

    async fn query(
        &self,
        method: Method,
        path: &str,
        identity: &RequestIdentity,
    ) -> Detected<BackendResponse> {
        let exchange = self.send(method, path, identity).await.map_err(|error| {
            CapabilityError::Unreachable(match error {
                RequestError::Connect(error) => error.to_string(),
                error => format!("{self}{path}: {error}"),
            })
        })?;
        match exchange.status {
            StatusCode::LOOP_DETECTED => Err(CapabilityError::Refused(self.unavailable("it is in a loop"))),
            _ => Ok(exchange),
        }
    }

    /// Reads the body of a response. A compressed one is an error: it must not be misread.
    async fn read_body(&self, exchange: &mut BackendResponse) -> Detected<bytes::Bytes> {
        if exchange.content_encoding().is_some() {
            return Err(CapabilityError::Refused(Refusal::from_response(exchange.error_response(b""))));
        }
        let body = exchange.body(MAX_BODY_BYTES).await;
        body.map_err(|error| {
            CapabilityError::Unreachable(format!("{self}: the connection broke ({})", reason(&error)))
        })
    }

    /// Whether the response is a 404 of the backend itself, which is JSON. One in HTML is from a proxy in front of it,
    /// and does not count.
    async fn is_not_found(&self, exchange: &mut BackendResponse) -> Detected<bool> {
        if exchange.status != StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let body = self.read_body(exchange).await?;
        Ok(serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok())
    }
}

fn allows_get(exchange: &BackendResponse) -> bool {
    let is_get = |method: &[u8]| method.eq_ignore_ascii_case(b"GET");
    !exchange.headers.contains_key(ALLOW) || list(&exchange.headers, &ALLOW).any(is_get)
}

#[cfg(test)]
mod tests;
