//! Learning what a backend can do, without making it do anything.
//!
//! `HEAD` on a path that only knows `GET` answers 405, on one that is not there 404; neither starts a
//! sync. `/version` says the release and whether the key is right, at the price of one attempt. A
//! backend that wants a key is never asked without one: five refusals lock the address out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::ALLOW;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::exchange::{Exchange, RequestError, reason};
use super::{Backend, Identity};
use crate::core::domain::channel::{Channel, Choice};
use crate::core::domain::kind::{Endpoint, Kind};
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::http::headers::list;
use crate::core::run::capabilities::{Capabilities, FIRST_WITH_VERSION, SETTINGS, Socket, TELLING};
use crate::core::run::plan::needed_streams;
use crate::deadline::timeout;
use crate::telemetry::{Learned, OfBackend};

/// The first release whose `/ws` an execution policy may refuse.
const FIRST_WITH_POLICY: Release = Release::new(0, 0, 23).post(1);
/// Answered without a key by every release that wants one, and by no other.
pub const KEY_STATUS: &str = "/auth/bootstrap-status";
/// The largest answer to a question that is read, in bytes.
const ANSWER: usize = 64 * 1024;

/// What is known of a backend, and since when.
#[derive(Debug)]
pub struct Knowledge {
    metrics: Arc<OfBackend>,
    memory: Mutex<Memory>,
    /// One question after the other: a second client waits for the answers that the first is getting.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Memory {
    /// How often everything was forgotten.
    generation: u64,
    known: Option<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// The generation that it is of. What was asked before a backend was forgotten says nothing of the next one.
    generation: u64,
    since: Instant,
    version_asked: bool,
    policy_asked: bool,
    /// Paths that were asked for without a key, and whether they are missing.
    missing: Vec<(&'static str, bool)>,
    capabilities: Capabilities,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            generation: 0,
            since: Instant::now(),
            version_asked: false,
            policy_asked: false,
            missing: Vec::new(),
            capabilities: Capabilities::default(),
        }
    }
}

impl Known {
    /// Whether a run of `endpoint` can be planned without another question.
    fn is_enough(&self, endpoint: Endpoint, choice: Choice) -> bool {
        self.version_asked
            && needed_streams(endpoint, &self.capabilities, choice).is_empty()
            && !self.needs_policy(endpoint, choice)
    }

    fn note_missing(&mut self, path: &'static str, missing: bool) {
        self.missing.retain(|(asked, _)| *asked != path);
        self.missing.push((path, missing));
    }

    /// Whether the execution policy matters for a run of `endpoint` and is not known.
    fn needs_policy(&self, endpoint: Endpoint, choice: Choice) -> bool {
        let native = self.capabilities.stream(endpoint) == Some(true) && choice == Choice::Auto;
        let may_use_socket = !native && matches!(choice, Choice::Auto | Choice::Only(Channel::Websocket));
        let has_policy = self.capabilities.release.is_none_or(|release| release >= FIRST_WITH_POLICY);
        may_use_socket && has_policy && !self.policy_asked
    }
}

impl Memory {
    /// What is known, if it is not older than that.
    fn fresh(&self, for_how_long: Duration) -> Known {
        let known = self.known.clone().filter(|known| known.since.elapsed() < for_how_long);
        Known { generation: self.generation, ..known.unwrap_or_default() }
    }
}

impl Knowledge {
    pub(super) fn new(metrics: Arc<OfBackend>) -> Self {
        Self { metrics, memory: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Forgets everything, because it proved wrong or may have changed. What is being asked is not kept.
    pub fn forget(&self) {
        let mut memory = self.memory();
        memory.generation += 1;
        memory.known = None;
    }

    /// What [`Backend::learn_missing`] must be given that was read before the question was asked.
    pub fn generation(&self) -> u64 {
        self.memory().generation
    }

    fn recall(&self, for_how_long: Duration) -> Known {
        self.memory().fresh(for_how_long)
    }

    /// Whether nothing was forgotten since `known` was recalled.
    fn is_current(&self, known: &Known) -> bool {
        self.generation() == known.generation
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The release that was learned last, however long ago. It is forgotten when the backend cannot be reached, after
    /// which it may be another one.
    fn last_release(&self) -> Option<Release> {
        self.memory().known.as_ref().and_then(|known| known.capabilities.release)
    }

    /// Keeps what was learned, unless everything was forgotten meanwhile.
    fn keep(&self, mut known: Known) {
        let mut memory = self.memory();
        if memory.generation != known.generation {
            return;
        }
        // Learned beside it.
        if let Some(now) = memory.known.take().filter(|now| now.since >= known.since) {
            let is_new = |path: &str| !known.missing.iter().any(|(asked, _)| *asked == path);
            let new: Vec<_> = now.missing.into_iter().filter(|(path, _)| is_new(path)).collect();
            known.missing.extend(new);
        }
        if known.version_asked {
            let Capabilities { release, .. } = known.capabilities;
            let dialect = known.capabilities.dialect();
            Learned { backend: &self.metrics, release, dialect }.emit();
        }
        memory.known = Some(known);
    }

    /// Keeps whether `path` is missing, which was asked in `generation`. It waits for no other question.
    fn keep_missing(&self, (path, missing): (&'static str, bool), generation: u64, for_how_long: Duration) {
        let mut memory = self.memory();
        if memory.generation == generation {
            let mut known = memory.fresh(for_how_long);
            known.note_missing(path, missing);
            memory.known = Some(known);
        }
    }
}

/// Why something could not be learned.
enum Trouble {
    /// The backend cannot be reached, or does not answer.
    Unreachable(String),
    /// It refused.
    Refused(Refusal),
}

impl Backend {
    /// What must be known to plan a run of `endpoint`.
    ///
    /// # Errors
    ///
    /// The answer that the client should get instead: the backend is unreachable, or refused the key.
    pub async fn capabilities(
        &self,
        endpoint: Endpoint,
        choice: Choice,
        identity: &Identity,
        retry_after: u64,
    ) -> Result<Capabilities, Refusal> {
        let learned = self.capabilities_and_key(endpoint, choice, identity, retry_after).await;
        learned.map(|(capabilities, _)| capabilities)
    }

    /// The same, and whether the backend was asked with the key now and has accepted it.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn capabilities_and_key(
        &self,
        endpoint: Endpoint,
        choice: Choice,
        identity: &Identity,
        retry_after: u64,
    ) -> Result<(Capabilities, bool), Refusal> {
        let limit = self.limits().probe;
        // A backend that keeps one client waiting for its answers would keep all of them: the time to wait
        // for one's turn is part of the limit.
        let learned = timeout(limit, self.learned(endpoint, choice, identity)).await;
        match learned.unwrap_or_else(|_| Err(Trouble::Unreachable(self.overdue()))) {
            Ok(learned) => Ok(learned),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Err(Trouble::Unreachable(why)) => {
                self.knowledge.forget();
                Err(Refusal::unreachable(&why, retry_after))
            }
        }
    }

    async fn learned(
        &self,
        endpoint: Endpoint,
        choice: Choice,
        identity: &Identity,
    ) -> Result<(Capabilities, bool), Trouble> {
        let keep_for = self.limits().capabilities;
        let known = self.knowledge.recall(keep_for);
        if known.is_enough(endpoint, choice) {
            return Ok((known.capabilities, false));
        }
        let _turn = self.knowledge.asking.lock().await;
        let mut may_repeat = true;
        loop {
            let mut known = self.knowledge.recall(keep_for);
            let was_asked = known.version_asked;
            self.learn(&mut known, endpoint, choice, identity).await?;
            // Some of the answers may be those of the backend before. Once more is enough: a run that was planned for
            // another backend is planned anew.
            if !self.knowledge.is_current(&known) && std::mem::take(&mut may_repeat) {
                continue;
            }
            let capabilities = known.capabilities.clone();
            let is_accepted = !was_asked
                && known.version_asked
                && identity.key.is_some()
                && capabilities.wants_key() == Some(true);
            if known.version_asked {
                self.knowledge.keep(known);
            }
            return Ok((capabilities, is_accepted));
        }
    }

    /// Everything that the backend can do, for a client that must be told what it has instead; nothing if
    /// it cannot be asked without a key or takes too long.
    pub async fn all_capabilities(&self, identity: &Identity) -> Option<Capabilities> {
        let asked = async {
            let _turn = self.knowledge.asking.lock().await;
            let mut known = self.knowledge.recall(self.limits().capabilities);
            if identity.key.is_none() && known.capabilities.wants_key() != Some(false) {
                return None;
            }
            for kind in Kind::all().map(Endpoint::of) {
                self.learn_stream(&mut known, kind, identity).await.ok()?;
            }
            let capabilities = known.capabilities.clone();
            self.knowledge.keep(known);
            Some(capabilities)
        };
        timeout(self.limits().probe, asked).await.ok()?
    }

    /// The backend's release, if that can be known: without a key it is asked for where none is wanted.
    ///
    /// # Errors
    ///
    /// The answer that the client should get instead: the backend is unreachable, or refused the key.
    pub async fn release(&self, identity: &Identity) -> Result<Option<Release>, Refusal> {
        let keep_for = self.limits().capabilities;
        let retry_after = self.limits().retry_after.as_secs();
        let known = self.knowledge.recall(keep_for);
        if known.capabilities.release.is_some() {
            return Ok(known.capabilities.release);
        }
        // Backends that sync may answer nothing until they are done.
        let last = || self.knowledge.last_release().map(Some);
        if identity.key.is_none() {
            match self.lacks(KEY_STATUS).await {
                Ok(true) => {}
                Ok(false) => return Ok(known.capabilities.release),
                Err(why) => return last().ok_or_else(|| Refusal::unreachable(&why, retry_after)),
            }
        }
        let learned = timeout(self.limits().probe, async {
            let _turn = self.knowledge.asking.lock().await;
            let mut may_repeat = true;
            loop {
                let mut known = self.knowledge.recall(keep_for);
                // One that could not say it may have been on its way up.
                if known.capabilities.release.is_none() {
                    self.learn_version(&mut known, identity).await?;
                    if !self.knowledge.is_current(&known) && std::mem::take(&mut may_repeat) {
                        continue;
                    }
                    known.version_asked = true;
                    self.knowledge.keep(known.clone());
                }
                return Ok(known.capabilities.release);
            }
        });
        match learned.await.unwrap_or_else(|_| Err(Trouble::Unreachable(self.overdue()))) {
            Ok(release) => Ok(release),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Err(Trouble::Unreachable(why)) => last().ok_or_else(|| Refusal::unreachable(&why, retry_after)),
        }
    }

    /// Whether the backend lacks `path`, one of those that it answers without a key.
    ///
    /// # Errors
    ///
    /// Why it could not be asked.
    pub async fn lacks(&self, path: &'static str) -> Result<bool, String> {
        let known = self.knowledge.recall(self.limits().capabilities);
        if let Some((_, missing)) = known.missing.iter().find(|(asked, _)| *asked == path) {
            return Ok(*missing);
        }
        let generation = self.knowledge.generation();
        let asked = async {
            let answered = async {
                let mut exchange = self.ask(Method::GET, path, &Identity::default()).await?;
                let missing = self.is_nowhere(&mut exchange).await?;
                Ok((exchange.status, missing))
            };
            let (status, missing) = match answered.await {
                Ok(answer) => answer,
                Err(Trouble::Unreachable(why)) => return Err(why),
                Err(Trouble::Refused(refusal)) => return Err(format!("{self}{path}: {}", refusal.text())),
            };
            if !missing && !status.is_success() {
                return Err(format!("{self}{path}: it answered {status}"));
            }
            self.learn_missing(path, missing, generation);
            Ok(missing)
        };
        timeout(self.limits().probe, asked).await.unwrap_or_else(|_| Err(self.overdue()))
    }

    /// What is known of the backend, without asking it.
    pub fn known(&self) -> Capabilities {
        self.knowledge.recall(self.limits().capabilities).capabilities
    }

    /// The release that was learned last, however long ago.
    pub fn last_release(&self) -> Option<Release> {
        self.knowledge.last_release()
    }

    /// The same, if it is enough to plan a run of `endpoint`.
    pub fn known_for(&self, endpoint: Endpoint) -> Option<Capabilities> {
        let known = self.knowledge.recall(self.limits().capabilities);
        known.is_enough(endpoint, self.config().channel).then_some(known.capabilities)
    }

    /// Whether the backend is known to lack `path`.
    pub fn is_known_to_lack(&self, path: &str) -> bool {
        let known = self.knowledge.recall(self.limits().capabilities);
        known.missing.iter().any(|(asked, missing)| *asked == path && *missing)
    }

    /// Notes whether the backend lacks `path`, which it was asked in this generation of what is known of it.
    pub fn learn_missing(&self, path: &'static str, missing: bool, generation: u64) {
        self.knowledge.keep_missing((path, missing), generation, self.limits().capabilities);
    }

    async fn learn(
        &self,
        known: &mut Known,
        endpoint: Endpoint,
        choice: Choice,
        identity: &Identity,
    ) -> Result<(), Trouble> {
        if identity.key.is_none() && !known.version_asked && !known.missing.contains(&(KEY_STATUS, true)) {
            // Nothing but this may be asked without a key, as far as it is not known that there is none.
            let mut health = self.ask(Method::GET, "/health", &Identity::default()).await?;
            let has_health = !self.is_nowhere(&mut health).await?;
            if has_health && choice != Choice::Only(Channel::Json) {
                // 0.0.6 and later have every stream. If this one wants a key, its answer says so best.
                known.capabilities.learn_stream(endpoint, true);
                return Ok(());
            }
            if has_health {
                // Which plain endpoints work depends on the release, which is told to those with a key.
                let mut status = self.ask(Method::GET, KEY_STATUS, &Identity::default()).await?;
                let takes_none = self.is_nowhere(&mut status).await?;
                known.note_missing(KEY_STATUS, takes_none);
                if !takes_none {
                    return Err(Trouble::Refused(Refusal::key_missing()));
                }
            }
        }
        if identity.key.is_none() && known.capabilities.wants_key() == Some(true) {
            return Err(Trouble::Refused(Refusal::key_missing()));
        }
        if identity.key.is_none() && known.version_asked && known.capabilities.release.is_none() {
            // It may want a key. If it does, its answer to the run says so best, at the price of one attempt.
            known.capabilities.learn_stream(endpoint, true);
            return Ok(());
        }
        if !known.version_asked {
            self.learn_version(known, identity).await?;
            known.version_asked = true;
        }
        loop {
            let needed = needed_streams(endpoint, &known.capabilities, choice);
            if needed.is_empty() {
                break;
            }
            for endpoint in needed {
                self.learn_stream(known, endpoint, identity).await?;
            }
        }
        if known.needs_policy(endpoint, choice) {
            self.learn_policy(known, identity).await?;
            known.policy_asked = true;
        }
        Ok(())
    }

    async fn learn_version(&self, known: &mut Known, identity: &Identity) -> Result<(), Trouble> {
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

        let mut exchange = self.ask(Method::GET, "/version", identity).await?;
        match exchange.status {
            StatusCode::OK => {
                let body = self.answer(&mut exchange).await?;
                let version: Version = serde_json::from_slice(&body).unwrap_or_default();
                known.capabilities.release = version.version.parse().ok();
                known.capabilities.correlates = version.capabilities.ws_run_id == 1;
                Ok(())
            }
            StatusCode::NOT_FOUND => {
                if !self.is_nowhere(&mut exchange).await? {
                    return Ok(());
                }
                for kind in TELLING {
                    self.learn_stream(known, Endpoint::of(kind), identity).await?;
                }
                let has_stream = |kind| known.capabilities.stream(Endpoint::of(kind)) == Some(true);
                if !TELLING.into_iter().any(has_stream) {
                    known.capabilities.has_settings = Some(self.has(SETTINGS, identity).await?);
                }
                let betrayed = known.capabilities.betrayed_release();
                known.capabilities.release = betrayed.filter(|release| *release < FIRST_WITH_VERSION);
                Ok(())
            }
            status if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE => {
                let body = self.answer(&mut exchange).await?;
                Err(Trouble::Refused(Refusal::of_answer(exchange.answer(&body))))
            }
            // It does not know its version, and may still know how to sync.
            _ => Ok(()),
        }
    }

    async fn learn_stream(
        &self,
        known: &mut Known,
        endpoint: Endpoint,
        identity: &Identity,
    ) -> Result<(), Trouble> {
        if known.capabilities.stream(endpoint).is_some() {
            return Ok(());
        }
        let there = self.has(&endpoint.stream_path(), identity).await?;
        known.capabilities.learn_stream(endpoint, there);
        Ok(())
    }

    /// Whether the backend answers a GET of `path`, without sending one.
    async fn has(&self, path: &str, identity: &Identity) -> Result<bool, Trouble> {
        let exchange = self.ask(Method::HEAD, path, identity).await?;
        match exchange.status {
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::METHOD_NOT_ALLOWED => Ok(allows_get(&exchange)),
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => {
                let status = exchange.status.as_u16();
                Err(Trouble::Refused(Refusal::key_refused(status, exchange.retry_after())))
            }
            // Something is there. What it is, the run itself will say.
            _ => Ok(true),
        }
    }

    async fn learn_policy(&self, known: &mut Known, identity: &Identity) -> Result<(), Trouble> {
        #[derive(Deserialize)]
        struct Policy {
            mode: String,
        }

        let mut exchange = self.ask(Method::GET, "/execution-policy", identity).await?;
        if exchange.status == StatusCode::OK {
            let body = self.answer(&mut exchange).await?;
            if serde_json::from_slice::<Policy>(&body).is_ok_and(|policy| policy.mode == "rpc_only") {
                known.capabilities.socket = Socket::Denied;
            }
        }
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, identity: &Identity) -> Result<Exchange, Trouble> {
        match self.send(method, path, identity).await {
            Ok(exchange) => Ok(exchange),
            Err(RequestError::Connect(error)) => Err(Trouble::Unreachable(error.to_string())),
            Err(error) => Err(Trouble::Unreachable(format!("{self}{path}: {error}"))),
        }
    }

    /// The body of an answer, unless it is compressed: nothing of it may be taken for what the backend does not say.
    async fn answer(&self, exchange: &mut Exchange) -> Result<bytes::Bytes, Trouble> {
        if exchange.content_encoding().is_some() {
            return Err(Trouble::Refused(Refusal::of_answer(exchange.answer(b""))));
        }
        let body = exchange.body(ANSWER).await;
        body.map_err(|error| {
            Trouble::Unreachable(format!("{self}: the connection broke ({})", reason(&error)))
        })
    }

    /// Whether the backend says that it does not know a path, which it does in JSON. What a proxy in front of it says
    /// in HTML says nothing of the backend.
    async fn is_nowhere(&self, exchange: &mut Exchange) -> Result<bool, Trouble> {
        if exchange.status != StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let body = self.answer(exchange).await?;
        Ok(serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok())
    }

    fn overdue(&self) -> String {
        let limit = humantime::format_duration(self.limits().probe);
        format!("{self} did not say within {limit} what it can do (limits.probe)")
    }
}

fn allows_get(exchange: &Exchange) -> bool {
    let is_get = |method: &[u8]| method.eq_ignore_ascii_case(b"GET");
    !exchange.headers.contains_key(ALLOW) || list(&exchange.headers, &ALLOW).any(is_get)
}

#[cfg(test)]
mod tests;
