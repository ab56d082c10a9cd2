//! A circuit breaker: a backend that cannot be reached is left alone for a while.
//!
//! It counts connections that did not come about. What a backend says once it is reached is its answer,
//! whatever its status, and no failure here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::link::ConnectError;

/// Whether connections to a backend are tried.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// They are.
    Closed,
    /// They are not: it is taken for down.
    Open,
    /// One is, and the others wait for what comes of it.
    HalfOpen,
}

#[derive(Debug)]
pub(super) struct Breaker {
    /// So many failures in a row open it.
    threshold: usize,
    /// For how long it stays open before one attempt.
    pause: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failures: usize,
    last: Option<ConnectError>,
    /// When it opened, or when the last attempt to close it failed.
    opened: Option<Instant>,
    /// An attempt to close it is on its way.
    probing: bool,
}

/// One connection on its way. Dropping it without a word, as a client that goes away does, says nothing of
/// the backend.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    pub(super) fn new(threshold: usize, pause: Duration) -> Self {
        Self { threshold, pause, inner: Mutex::default() }
    }

    /// Begins an attempt, if one is to be made.
    pub(super) fn attempt(&self) -> Result<Attempt<'_>, ConnectError> {
        let mut inner = self.inner();
        let (Some(opened), Some(last)) = (inner.opened, &inner.last) else {
            return Ok(Attempt { breaker: self, is_probe: false });
        };
        let left = self.pause.saturating_sub(opened.elapsed());
        if !left.is_zero() || inner.probing {
            // In whole seconds, as clients are told.
            let again = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
            return Err(ConnectError::Down { last: Box::new(last.clone()), again });
        }
        inner.probing = true;
        Ok(Attempt { breaker: self, is_probe: true })
    }

    #[cfg(test)]
    fn state(&self) -> State {
        let inner = self.inner();
        match inner.opened {
            None => State::Closed,
            Some(_) if inner.probing => State::HalfOpen,
            Some(_) => State::Open,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    pub(super) fn succeeded(self) {
        let before = std::mem::take(&mut *self.breaker.inner());
        if before.opened.is_some() {
            tracing::info!("The backend can be reached again.");
        }
    }

    pub(super) fn failed(self, error: &ConnectError) {
        let mut inner = self.breaker.inner();
        inner.failures += 1;
        inner.last = Some(error.clone());
        if self.is_probe || inner.failures >= self.breaker.threshold {
            let was_closed = inner.opened.replace(Instant::now()).is_none();
            if was_closed {
                tracing::warn!(%error, "The backend is taken for down (limits.breaker_failures).");
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.inner().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn error() -> ConnectError {
        let url = "http://127.0.0.1:1".parse().unwrap();
        ConnectError::TimedOut { url, after: Duration::from_secs(10), limit: "limits.connect" }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_attempt_through_after_a_while() {
        let breaker = Breaker::new(2, Duration::from_secs(5));
        breaker.attempt().unwrap().failed(&error());
        breaker.attempt().unwrap().succeeded();
        breaker.attempt().unwrap().failed(&error());
        assert_eq!(breaker.state(), State::Closed, "a success in between");
        breaker.attempt().unwrap().failed(&error());
        assert_eq!(breaker.state(), State::Open);
        let down = breaker.attempt().unwrap_err().to_string();
        assert_eq!(
            down,
            "http://127.0.0.1:1 did not answer within 10s (limits.connect); it is tried again in 5s \
             (limits.breaker_open)"
        );

        advance(Duration::from_secs(5)).await;
        let probe = breaker.attempt().unwrap();
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.attempt().is_err(), "one is enough");
        probe.failed(&error());
        assert!(breaker.attempt().is_err());

        advance(Duration::from_secs(5)).await;
        breaker.attempt().unwrap().succeeded();
        assert_eq!(breaker.state(), State::Closed);
        assert!(breaker.attempt().is_ok() && breaker.attempt().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_given_up_leaves_room_for_the_next() {
        let breaker = Breaker::new(1, Duration::from_secs(5));
        breaker.attempt().unwrap().failed(&error());
        advance(Duration::from_secs(5)).await;
        drop(breaker.attempt().unwrap());
        assert!(breaker.attempt().is_ok());
    }
}
