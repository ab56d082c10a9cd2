//! Holds back requests that a backend has just refused.
//!
//! A backend locks an address out for five minutes after five failed attempts, and behind a proxy all clients share
//! one address. So a refused key is not sent again for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::auth_backoff::{AuthBackoff, KeyHash, Throttled};
use super::breaker::whole_seconds;
use super::response_cache::ResponseCache;
use crate::config::Limits;
use crate::core::domain::refusal::Refusal;

/// The maximum number of entries of each kind.
const MAX_REMEMBERED: usize = 4096;
/// The longest `Retry-After` of a backend that is honoured.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The texts with which backends refuse a wrong or missing key. A backend without any registered key does not count a
/// failed attempt.
const AUTH_FAILURE_TEXTS: [&str; 2] = ["Invalid API key", "API key required"];
/// The texts with which backends rate-limit a client as a whole. Other texts concern one path.
const RATE_LIMIT_TEXTS: [&str; 2] = ["Too many failed authentication attempts", "Rate limit exceeded"];

/// The hash for a key that the bridge does not see.
pub const UNSEEN_KEY: KeyHash = Some([0; 32]);

/// A response of a backend that may hold back later requests.
#[derive(Clone, Copy, Debug)]
pub struct AuthFailure<'a> {
    /// Its status.
    pub status: u16,
    /// Its `Retry-After`.
    pub retry_after: Option<&'a str>,
    /// Its text.
    pub text: &'a str,
    /// The generation of the keys when its request began: [`RequestGate::generation`].
    pub generation: u64,
}

/// The requests that one backend is not sent.
#[derive(Debug, Default)]
pub struct RequestGate {
    /// The responses that identical requests share.
    pub responses: ResponseCache,
    refused: Mutex<HashMap<KeyHash, Instant>>,
    limited: Mutex<HashMap<IpAddr, Instant>>,
    pub(super) backoff: Arc<AuthBackoff>,
    /// How often keys have changed.
    generation: AtomicU64,
}

impl RequestGate {
    /// The answer to a request of `client` with `key` that is held back.
    pub fn backoff_for(&self, client: Option<IpAddr>, key: KeyHash) -> Option<Refusal> {
        let left = |until: &Instant| {
            let left = until.duration_since(Instant::now());
            (!left.is_zero()).then(|| whole_seconds(left))
        };
        let refused = self.refused.lock().get(&key).and_then(left);
        match (refused, key) {
            (Some(left), Some(_)) => Some(Refusal::key_refused_recently(left)),
            (Some(left), None) => Some(Refusal::key_missing_recently(left)),
            (None, _) => self.limited.lock().get(&client?).and_then(left).map(Refusal::rate_limited),
        }
    }

    /// The generation of the keys, for the [`AuthFailure`] of a request that begins now.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Notes that the backend accepted `key`.
    pub fn accept(&self, key: KeyHash) {
        self.backoff.accept(key);
    }

    /// Notes the backend's response to `client` with `key`. A refused key is held back for a while. Returns the clients
    /// that are held back from now on, if that is new.
    pub(super) fn note_failure(
        &self,
        failure: AuthFailure<'_>,
        client: Option<IpAddr>,
        key: KeyHash,
        limits: &Limits,
    ) -> Option<Throttled> {
        let mentions = |texts: &[&str]| texts.iter().any(|text| failure.text.contains(text));
        let is_about_key =
            failure.status == 401 && (failure.text.is_empty() || mentions(&AUTH_FAILURE_TEXTS));
        let held_back = client
            .filter(|_| is_about_key)
            .and_then(|client| self.backoff.refuse(client, key, failure.text, limits));
        match (failure.status, client) {
            // Keys registered since the request began may include this one.
            (401, _) if mentions(&AUTH_FAILURE_TEXTS) && failure.generation == self.generation() => {
                insert_expiring(&self.refused, key, limits.refused_key);
            }
            (429, Some(client)) if mentions(&RATE_LIMIT_TEXTS) => {
                let wait = failure.retry_after.and_then(|wait| wait.parse().ok()).map(Duration::from_secs);
                insert_expiring(&self.limited, client, wait.unwrap_or_default().min(LONGEST_WAIT));
            }
            _ => {}
        }
        held_back
    }

    /// Notes that keys have changed: a refused key may be valid now.
    pub fn keys_changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.refused.lock().clear();
        self.responses.clear();
    }
}

/// Inserts `key` until `ttl` has passed. Expired entries are removed, or all of them if that is not enough: a repeated
/// request does no harm.
fn insert_expiring<K: Eq + Hash>(entries: &Mutex<HashMap<K, Instant>>, key: K, ttl: Duration) {
    if ttl.is_zero() {
        return;
    }
    let (mut entries, now) = (entries.lock(), Instant::now());
    if entries.len() >= MAX_REMEMBERED / 4 {
        entries.retain(|_, until| *until > now);
    }
    if entries.len() >= MAX_REMEMBERED {
        entries.clear();
    }
    entries.insert(key, now + ttl);
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const KEEP: Duration = Duration::from_secs(300);

    fn refuse(gate: &RequestGate, key: KeyHash, refused_key: Duration) {
        let text = "Invalid API key. 4 attempts remaining.";
        let failure = AuthFailure { status: 401, retry_after: None, text, generation: gate.generation() };
        gate.note_failure(failure, None, key, &Limits { refused_key, ..Limits::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_refused_for_a_while_or_until_keys_change() {
        let gate = RequestGate::default();
        refuse(&gate, Some([1; 32]), KEEP);
        assert_eq!(
            gate.backoff_for(None, Some([1; 32])),
            Some(Refusal::key_refused_recently(KEEP.as_secs()))
        );
        assert_eq!(gate.backoff_for(None, Some([2; 32])), None);
        assert_eq!(gate.backoff_for(None, None), None);
        advance(KEEP).await;
        assert_eq!(gate.backoff_for(None, Some([1; 32])), None);
        refuse(&gate, None, KEEP);
        gate.keys_changed();
        assert_eq!(gate.backoff_for(None, None), None);
        refuse(&gate, None, Duration::ZERO);
        assert_eq!(gate.backoff_for(None, None), None, "it is to be asked every time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_must_wait_is_held_back_alone() {
        let gate = RequestGate::default();
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().unwrap());
        let limited = |client, wait, text| {
            let failure =
                AuthFailure { status: 429, retry_after: Some(wait), text, generation: gate.generation() };
            gate.note_failure(failure, Some(client), None, &Limits::default());
        };
        limited(other, "60", "Too many renderings at once.");
        limited(one, "60", "Rate limit exceeded. Please try again later.");
        advance(Duration::from_secs(20)).await;
        let again = 40;
        assert_eq!(gate.backoff_for(Some(one), None), Some(Refusal::rate_limited(again)));
        assert_eq!(gate.backoff_for(Some(other), None), None, "that was about one path");
        limited(other, "18446744073709551615", "Rate limit exceeded.");
        assert_eq!(gate.backoff_for(Some(other), None), Some(Refusal::rate_limited(LONGEST_WAIT.as_secs())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_from_before_the_keys_changed_and_one_that_there_is_none_yet_are_forgotten() {
        let gate = RequestGate::default();
        let before = gate.generation();
        gate.keys_changed();
        for (text, generation) in
            [("Invalid API key.", before), ("No API key configured. Register one.", gate.generation())]
        {
            let failure = AuthFailure { status: 401, retry_after: None, text, generation };
            gate.note_failure(failure, None, Some([1; 32]), &Limits::default());
        }
        assert_eq!(gate.backoff_for(None, Some([1; 32])), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_remembered_than_there_is_room_for() {
        for (lasting, expected) in [(MAX_REMEMBERED, 1), (1, 2)] {
            let known: Mutex<HashMap<usize, Instant>> = Mutex::default();
            for key in 0..MAX_REMEMBERED {
                let ttl = if key < lasting { 2 * KEEP } else { KEEP };
                known.lock().insert(key, Instant::now() + ttl);
            }
            advance(KEEP).await;
            insert_expiring(&known, MAX_REMEMBERED, KEEP);
            assert_eq!(known.lock().len(), expected, "{lasting}");
        }
    }
}
