//! The check of API keys, with the lock-out after failures.
//!
//! As in backends from 0.0.7 on: five failures lock an address out for five minutes, and a valid key resets the count.
//! All clients count as one address here, as behind a proxy. 0.0.30 counts each wrong key separately; that is not
//! emulated.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const FAILURES_ALLOWED: u32 = 5;

/// The duration of a lock-out, in seconds as in `Retry-After`.
pub(super) const LOCK_OUT_SECONDS: u64 = 300;

const TOO_MANY: &str = "Too many failed authentication attempts. Please try again later.";

/// The refusal of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyRefusal {
    /// The text for the client.
    pub(super) detail: String,
    /// Whether the client is locked out: the status is 429 then, else 401.
    pub(super) locked_out: bool,
}

/// The valid key of one server, and the failures of its clients.
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
    /// If `right` is `None`, every non-empty key is valid.
    pub(super) fn new(right: Option<String>) -> Self {
        Self { expected: right, failures: Mutex::default() }
    }

    /// Checks the key that a client presented.
    pub(super) fn check(&self, presented: Option<&str>) -> Result<(), KeyRefusal> {
        let mut failures = self.failures.lock();
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
    async fn the_sixth_attempt_is_locked_out_for_five_minutes() {
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
