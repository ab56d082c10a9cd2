//! Limits the wrong keys that clients try, before the backend locks all of them out.
//!
//! A backend locks an address out after five wrong keys. If it does not trust the bridge's `X-Forwarded-For`
//! (`PROXBOX_TRUSTED_PROXIES`), it sees a single address, that of the bridge, so that the wrong keys of one client
//! lock out all others. So the number of wrong keys is limited per client, and where the backend counts all clients
//! together, it is limited below five for all of them. A key that the backend has accepted before is never held back.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::config::Limits;
use crate::core::http::limit::limited_as;

/// How many wrong keys lock an address out, and for how long.
const LOCKED_OUT_AFTER: usize = 5;
const LOCKED_OUT_FOR: Duration = Duration::from_secs(300);
/// The maximum number of keys and failures kept.
const MAX_REMEMBERED: usize = 4096;
/// The text after the number of remaining attempts in a refusal.
const REMAINING: &str = " attempts remaining";

/// A hash of a key; `None` for a request without a key.
pub(super) type KeyHash = Option<[u8; 32]>;

/// The keys that clients of one backend have tried.
#[derive(Debug, Default)]
pub(super) struct AuthBackoff {
    attempts: Mutex<AttemptHistory>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct AttemptHistory {
    accepted: HashSet<KeyHash>,
    /// The times and clients of refused keys, oldest first.
    failures: VecDeque<(Instant, IpAddr)>,
    /// The clients of requests whose key may be wrong.
    in_flight: Vec<IpAddr>,
    /// The failures that the backend has counted for the last failed address, and when.
    counted: Option<(Instant, usize)>,
    /// Whether the backend counts the failures of all clients together, if known.
    shares_counter: Option<bool>,
}

/// Whether a request is admitted.
#[derive(Debug)]
pub(super) enum Admission {
    /// The backend has accepted the key before.
    Accepted,
    /// The key may be wrong. The attempt ends when this is dropped.
    Attempt(KeyAttempt),
    /// Other keys must be answered first.
    Busy,
    /// Too many keys were wrong. The next one may be tried after this time.
    Refused(Duration),
}

/// The clients whose unknown keys are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Throttled {
    /// One client.
    Client(IpAddr),
    /// All clients, because the backend counts them together.
    All,
}

/// A request whose key may be wrong, until the backend has answered it.
#[derive(Debug)]
pub struct KeyAttempt {
    backoff: Arc<AuthBackoff>,
    client: IpAddr,
}

impl AuthBackoff {
    /// Decides whether a request of `client` with `key` is admitted. `limits` has the number of
    /// wrong keys per client within five minutes.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr, key: KeyHash, limits: &Limits) -> Admission {
        let mut tried = self.attempts.lock();
        if tried.accepted.contains(&key) {
            return Admission::Accepted;
        }
        let now = Instant::now();
        if let Some(again) = tried.retry_after(now, client, limits) {
            return Admission::Refused(again);
        }
        let failed = tried.failures_of(client, limits).count();
        let own = tried.in_flight.iter().filter(|other| is_same_client(limits, **other, client)).count();
        if failed + own >= limits.wrong_keys || tried.in_flight.len() >= tried.remaining(now) {
            return Admission::Busy;
        }
        tried.in_flight.push(client);
        Admission::Attempt(KeyAttempt { backoff: Arc::clone(self), client })
    }

    /// Completes when a key is answered after this call.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Notes that the backend accepted `key`.
    pub(super) fn accept(&self, key: KeyHash) {
        let mut tried = self.attempts.lock();
        if tried.accepted.len() >= MAX_REMEMBERED {
            tried.accepted.clear();
        }
        if tried.accepted.insert(key) {
            self.changed.notify_waiters();
        }
    }

    /// Notes that the backend refused `key` of `client` with `text`; a response to HEAD has none. Returns the clients
    /// that are held back from now on, if that is new.
    pub(super) fn refuse(
        &self,
        client: IpAddr,
        key: KeyHash,
        text: &str,
        limits: &Limits,
    ) -> Option<Throttled> {
        let mut tried = self.attempts.lock();
        if text.is_empty() && tried.accepted.contains(&key) {
            // The refusal may be about the requested resource.
            return None;
        }
        tried.accepted.remove(&key);
        let now = Instant::now();
        let spare = tried.remaining(now);
        tried.record_failure(now, client, remaining(text));
        if spare > 0 && tried.remaining(now) == 0 {
            return Some(Throttled::All);
        }
        let failed = tried.failures_of(client, limits).count();
        (failed == limits.wrong_keys).then_some(Throttled::Client(client))
    }
}

impl AttemptHistory {
    /// How long unknown keys of `client` are held back, if they are.
    fn retry_after(&mut self, now: Instant, client: IpAddr, limits: &Limits) -> Option<Duration> {
        self.expire(now);
        let times: Vec<Instant> = self.failures_of(client, limits).collect();
        let last = times.len().checked_sub(limits.wrong_keys).and_then(|index| times.get(index)).copied();
        let together = self.counted.filter(|_| self.remaining(now) == 0).map(|(at, _)| at);
        let since = last.max(together)?;
        let again = (since + LOCKED_OUT_FOR).saturating_duration_since(now);
        (!again.is_zero()).then_some(again)
    }

    /// How many keys may be tried at once so that one more wrong key is left if all of them are wrong.
    fn remaining(&self, now: Instant) -> usize {
        let spare = (LOCKED_OUT_AFTER - 1).saturating_sub(self.counted(now));
        // The count is that of one client then. Trying one key at a time shows whether that is still so.
        if self.shares_counter == Some(false) { spare.max(1) } else { spare }
    }

    fn counted(&self, now: Instant) -> usize {
        let recent = self.counted.filter(|(at, _)| now.duration_since(*at) < LOCKED_OUT_FOR);
        recent.map_or(0, |(_, counted)| counted)
    }

    fn record_failure(&mut self, now: Instant, client: IpAddr, remaining: Option<usize>) {
        self.expire(now);
        if self.failures.len() >= MAX_REMEMBERED {
            self.failures.pop_front();
        }
        self.failures.push_back((now, client));
        let own = self.failures.iter().filter(|(_, other)| *other == client).count();
        let before = self.counted(now);
        let Some(remaining) = remaining else {
            self.counted = Some((now, before + 1));
            return;
        };
        let counted = LOCKED_OUT_AFTER.saturating_sub(remaining);
        // Responses to concurrent requests may arrive out of order.
        let is_last = self.in_flight.len() <= 1;
        if counted > own {
            self.shares_counter = Some(true);
        } else if is_last && counted < self.failures.len() {
            self.shares_counter = Some(false);
        }
        self.counted = Some((now, if is_last { counted } else { counted.max(before) }));
    }

    /// The times of the refused keys of `client`.
    fn failures_of<'a>(&'a self, client: IpAddr, limits: &'a Limits) -> impl Iterator<Item = Instant> + 'a {
        let own = self.failures.iter().filter(move |(_, other)| is_same_client(limits, *other, client));
        own.map(|(at, _)| *at)
    }

    fn expire(&mut self, now: Instant) {
        self.failures.retain(|(at, _)| now.duration_since(*at) < LOCKED_OUT_FOR);
    }
}

impl Drop for KeyAttempt {
    fn drop(&mut self) {
        {
            let in_flight = &mut self.backoff.attempts.lock().in_flight;
            if let Some(own) = in_flight.iter().position(|client| *client == self.client) {
                in_flight.swap_remove(own);
            }
        }
        self.backoff.changed.notify_waiters();
    }
}

/// Returns whether both addresses belong to one client.
fn is_same_client(limits: &Limits, one: IpAddr, other: IpAddr) -> bool {
    limited_as(one, limits.ipv6_prefix) == limited_as(other, limits.ipv6_prefix)
}

/// The number of wrong keys that the backend still accepts, from a text such as `Invalid API key. 3 attempts
/// remaining.`
fn remaining(text: &str) -> Option<usize> {
    let (before, _) = text.split_once(REMAINING)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use tokio::time::advance;

    use super::*;

    static MOST: LazyLock<Limits> =
        LazyLock::new(|| Limits { wrong_keys: 3, ipv6_prefix: 64, ..Limits::default() });

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn key(number: u8) -> KeyHash {
        Some([number; 32])
    }

    /// Tries a wrong key for a client. The backend reports the `remaining` attempts, if given.
    fn fail_with_wrong_key(backoff: &Arc<AuthBackoff>, client: IpAddr, remaining: Option<usize>) -> bool {
        let key_attempt = backoff.admit(client, key(0), &MOST);
        let text =
            remaining.map_or_else(String::new, |left| format!("Invalid API key. {left} attempts remaining."));
        let may_try = matches!(key_attempt, Admission::Attempt(_));
        if may_try {
            backoff.refuse(client, key(0), &text, &MOST);
        }
        may_try
    }

    fn is_admitted(backoff: &Arc<AuthBackoff>, client: IpAddr) -> bool {
        matches!(backoff.admit(client, key(9), &MOST), Admission::Attempt(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_tries_wrong_keys_is_held_back_alone_and_an_accepted_key_never_is() {
        let backoff = Arc::new(AuthBackoff::default());
        backoff.accept(key(1));
        for left in [4, 3, 2] {
            assert!(fail_with_wrong_key(&backoff, client(1), Some(left)));
        }
        let fourth = backoff.admit(client(1), key(9), &MOST);
        assert!(matches!(fourth, Admission::Refused(LOCKED_OUT_FOR)), "{fourth:?}");
        assert!(matches!(backoff.admit(client(1), key(1), &MOST), Admission::Accepted));
        assert!(is_admitted(&backoff, client(2)));
        advance(LOCKED_OUT_FOR).await;
        assert!(is_admitted(&backoff, client(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn all_clients_together_try_no_more_keys_than_a_backend_takes_that_counts_them_together() {
        for reports in [true, false] {
            let backoff = Arc::new(AuthBackoff::default());
            let left = |number: usize| reports.then_some(LOCKED_OUT_AFTER.saturating_sub(number));
            let tried = (1..=8_u8)
                .filter(|number| fail_with_wrong_key(&backoff, client(*number), left(usize::from(*number))));
            assert_eq!(tried.count(), LOCKED_OUT_AFTER - 1, "it says how many it takes: {reports}");
            backoff.accept(key(1));
            assert!(matches!(backoff.admit(client(1), key(1), &MOST), Admission::Accepted));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_is_reported_once_for_a_client_and_once_for_all() {
        let backoff = Arc::new(AuthBackoff::default());
        let refuse = |number| backoff.refuse(client(number), key(number), "Invalid API key.", &MOST);
        let held_back = [1, 1, 1, 2, 3, 4].map(refuse);
        let (one, all) = (Some(Throttled::Client(client(1))), Some(Throttled::All));
        assert_eq!(held_back, [None, None, one, all, None, None]);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_the_backend_counts_apart_do_not_hold_each_other_back() {
        let backoff = Arc::new(AuthBackoff::default());
        for number in 1..=20 {
            assert!(fail_with_wrong_key(&backoff, client(number), Some(4)), "{number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_in_another_order_let_no_more_keys_through() {
        let backoff = Arc::new(AuthBackoff::default());
        let trials: Vec<Admission> =
            (1..=4).map(|number| backoff.admit(client(number), key(number), &MOST)).collect();
        assert!(trials.iter().all(|turn| matches!(turn, Admission::Attempt(_))));
        for (number, left) in [(4, 1), (2, 3), (1, 4), (3, 2)] {
            let text = format!("Invalid API key. {left} attempts remaining.");
            backoff.refuse(client(number), key(number), &text, &MOST);
        }
        drop(trials);
        assert!(!is_admitted(&backoff, client(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_without_a_detail_counts_unless_the_key_was_accepted_before() {
        let backoff = Arc::new(AuthBackoff::default());
        backoff.accept(key(1));
        for _ in 0..MOST.wrong_keys {
            backoff.refuse(client(1), key(1), "", &MOST);
        }
        assert!(matches!(backoff.admit(client(1), key(1), &MOST), Admission::Accepted));
        assert!(is_admitted(&backoff, client(1)));
        for _ in 0..MOST.wrong_keys {
            backoff.refuse(client(1), key(2), "", &MOST);
        }
        assert!(!is_admitted(&backoff, client(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_on_their_way_count_as_wrong_until_they_are_answered() {
        let backoff = Arc::new(AuthBackoff::default());
        let mut trials: Vec<Admission> =
            (0..MOST.wrong_keys).map(|_| backoff.admit(client(1), key(1), &MOST)).collect();
        assert!(trials.iter().all(|turn| matches!(turn, Admission::Attempt(_))));
        assert!(matches!(backoff.admit(client(1), key(1), &MOST), Admission::Busy));
        assert!(matches!(backoff.admit(client(1), key(2), &MOST), Admission::Busy));
        let changed = backoff.changed();
        trials.pop();
        changed.await;
        assert!(is_admitted(&backoff, client(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_one_ipv6_network_are_one_client() {
        let backoff = Arc::new(AuthBackoff::default());
        for number in 1..=3 {
            let address = format!("2001:db8::{number}").parse().unwrap();
            assert!(fail_with_wrong_key(&backoff, address, Some(4)));
        }
        assert!(!is_admitted(&backoff, "2001:db8::9".parse().unwrap()));
        assert!(is_admitted(&backoff, "2001:db8:0:1::9".parse().unwrap()));
    }

    #[test]
    fn how_many_keys_a_backend_still_takes_is_read() {
        assert_eq!(remaining("{\"detail\":\"Invalid API key. 3 attempts remaining.\"}"), Some(3));
        assert_eq!(remaining("Invalid API key."), None);
    }
}
