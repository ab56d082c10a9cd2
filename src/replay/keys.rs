//! API keys: who has the right one, and who has guessed too often.
//!
//! As backends from 0.0.7 on do it: each failure is counted down, after the fifth everybody from
//! that address is locked out for five minutes, and a right key clears the count. All clients count
//! as one address here, which is what a backend behind a proxy sees. 0.0.30 counts each wrong key by
//! itself; that is not imitated.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FAILURES_ALLOWED: u32 = 5;

/// How long a lock-out lasts, in seconds as in `Retry-After`.
pub(super) const LOCK_OUT_SECONDS: u64 = 300;

const TOO_MANY: &str = "Too many failed authentication attempts. Please try again later.";

/// Why a client is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyRefusal {
    /// The sentence that the client is told.
    pub(super) detail: String,
    /// Whether it is the lock-out that speaks: 429 and not 401.
    pub(super) locked_out: bool,
}

/// The keys of one server and the failures of its clients.
pub(super) struct KeyCheck {
    expected: Option<String>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u32,
    locked_since: Option<Instant>,
}

impl KeyCheck {
    /// Any non-empty key is right if `right` is `None`.
    pub(super) fn new(right: Option<String>) -> Self {
        Self { expected: right, failures: Mutex::default() }
    }

    /// Judges what a client presented as its key.
    pub(super) fn check(&self, presented: Option<&str>) -> Result<(), KeyRefusal> {
        let mut failures = self.failures();
        if failures.locked_out() {
            return Err(KeyRefusal { detail: TOO_MANY.to_owned(), locked_out: true });
        }
        let presented = presented.filter(|key| !key.is_empty());
        let complaint = match (presented, &self.expected) {
            (None, _) => "API key required.",
            (Some(key), Some(right)) if key != right => "Invalid API key.",
            (Some(_), _) => {
                *failures = Failures::default();
                return Ok(());
            }
        };
        failures.count += 1;
        let detail = match FAILURES_ALLOWED.saturating_sub(failures.count) {
            0 => {
                failures.locked_since = Some(Instant::now());
                complaint.to_owned()
            }
            remaining => format!("{complaint} {remaining} attempts remaining."),
        };
        Err(KeyRefusal { detail, locked_out: false })
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // A count cannot be left half-changed, so one that a panic left behind is still good.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    fn locked_out(&mut self) -> bool {
        let over = |since: Instant| since.elapsed() >= Duration::from_secs(LOCK_OUT_SECONDS);
        if self.locked_since.is_some_and(over) {
            *self = Self::default();
        }
        self.locked_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal_text(keys: &KeyCheck, key: Option<&str>) -> String {
        keys.check(key).unwrap_err().detail
    }

    #[tokio::test(start_paused = true)]
    async fn the_sixth_attempt_meets_a_locked_door_for_five_minutes() {
        let keys = KeyCheck::new(Some("right".to_owned()));
        assert_eq!(refusal_text(&keys, None), "API key required. 4 attempts remaining.");
        assert_eq!(refusal_text(&keys, Some("")), "API key required. 3 attempts remaining.");
        assert_eq!(refusal_text(&keys, Some("wrong")), "Invalid API key. 2 attempts remaining.");
        assert_eq!(refusal_text(&keys, Some("wrong")), "Invalid API key. 1 attempts remaining.");
        assert_eq!(refusal_text(&keys, Some("wrong")), "Invalid API key.");
        assert!(keys.check(Some("right")).unwrap_err().locked_out);

        tokio::time::advance(Duration::from_secs(LOCK_OUT_SECONDS)).await;
        assert_eq!(keys.check(Some("right")), Ok(()));
    }

    #[tokio::test]
    async fn a_right_key_clears_the_count() {
        let keys = KeyCheck::new(None);
        for _ in 0..20 {
            assert_eq!(refusal_text(&keys, None), "API key required. 4 attempts remaining.");
            assert_eq!(keys.check(Some("any")), Ok(()));
        }
    }
}
