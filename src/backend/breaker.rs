//! A circuit breaker: an unreachable backend is not tried for a while.
//!
//! It counts failed connections. A response is never a failure here, whatever its status.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect_error::ConnectError;
use crate::telemetry::{BackendMetrics, Circuit, CircuitChanged, ConnectAttempted, ConnectResult};

#[derive(Debug)]
pub(super) struct Breaker {
    /// The number of consecutive failures that open it.
    threshold: usize,
    /// How long it stays open before one attempt.
    open_for: Duration,
    metrics: Arc<BackendMetrics>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failures: usize,
    last: Option<ConnectError>,
    /// When the last attempt was made.
    tried: Option<Instant>,
    /// When it opened, or when the last probe failed.
    opened: Option<Instant>,
    /// A probe is in progress.
    probing: bool,
}

/// One connection attempt. Dropping it without a result, as when the client goes away, does not count as a failure.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    breaker: &'a Breaker,
    /// It is a probe without a reported result.
    is_probe: bool,
}

impl Breaker {
    pub(super) fn new(threshold: usize, pause: Duration, metrics: Arc<BackendMetrics>) -> Self {
        Self { threshold, open_for: pause, metrics, inner: Mutex::default() }
    }

    /// Starts an attempt, if the breaker allows it.
    pub(super) fn attempt(&self) -> Result<Attempt<'_>, ConnectError> {
        let mut inner = self.inner.lock();
        let (Some(opened), Some(last)) = (inner.opened, &inner.last) else {
            return Ok(Attempt { breaker: self, is_probe: false });
        };
        let left = self.open_for.saturating_sub(opened.elapsed());
        if !left.is_zero() || inner.probing {
            // As clients see it.
            let again = Duration::from_secs(whole_seconds(left));
            return Err(ConnectError::Down(Box::new(last.clone()), again));
        }
        inner.probing = true;
        self.changed(Circuit::HalfOpen).emit();
        Ok(Attempt { breaker: self, is_probe: true })
    }

    /// The state of the circuit.
    pub(super) fn state(&self) -> Circuit {
        let inner = self.inner.lock();
        match inner.opened {
            None => Circuit::Closed,
            Some(_) if inner.probing => Circuit::HalfOpen,
            Some(_) => Circuit::Open,
        }
    }

    /// Returns whether an attempt would be allowed.
    pub(super) fn allows_attempt(&self) -> bool {
        let inner = self.inner.lock();
        inner.opened.is_none_or(|opened| opened.elapsed() >= self.open_for && !inner.probing)
    }

    /// The error of the last attempt, if it failed.
    pub(super) fn last_error(&self) -> Option<ConnectError> {
        self.inner.lock().last.clone()
    }

    /// The time since the last attempt; `None` if there was none.
    pub(super) fn last_attempt(&self) -> Option<Duration> {
        Some(self.inner.lock().tried?.elapsed())
    }

    fn changed(&self, state: Circuit) -> CircuitChanged<'_> {
        CircuitChanged { backend: &self.metrics, state, error: None, was_closed: false }
    }
}

impl Attempt<'_> {
    pub(super) fn succeeded(mut self) {
        self.is_probe = false;
        let breaker = self.breaker;
        ConnectAttempted { backend: &breaker.metrics, result: ConnectResult::Connected, error: None }.emit();
        let now = Inner { tried: Some(Instant::now()), ..Inner::default() };
        let before = std::mem::replace(&mut *breaker.inner.lock(), now);
        if before.opened.is_some() {
            breaker.changed(Circuit::Closed).emit();
        }
    }

    pub(super) fn failed(mut self, error: &ConnectError) {
        let is_probe = std::mem::take(&mut self.is_probe);
        let breaker = self.breaker;
        ConnectAttempted { backend: &breaker.metrics, result: error.result(), error: Some(error) }.emit();
        let mut inner = breaker.inner.lock();
        // Another attempt may have succeeded meanwhile.
        let was_probe = is_probe && std::mem::take(&mut inner.probing);
        inner.failures += 1;
        inner.last = Some(error.clone());
        inner.tried = Some(Instant::now());
        // While a probe is in progress, the result of an earlier attempt is ignored: the probe decides.
        if was_probe || (inner.failures >= breaker.threshold && !inner.probing) {
            let was_closed = inner.opened.replace(Instant::now()).is_none();
            CircuitChanged { was_closed, error: Some(error), ..breaker.changed(Circuit::Open) }.emit();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        let mut inner = self.breaker.inner.lock();
        if std::mem::take(&mut inner.probing) && inner.opened.is_some() {
            let error = inner.last.as_ref().map(|last| last as _);
            CircuitChanged { error, ..self.breaker.changed(Circuit::Open) }.emit();
        }
    }
}

/// Rounds up to whole seconds, so that a retry is not too early.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::core::remote::Remote;

    fn error() -> ConnectError {
        let url = "http://127.0.0.1:1".parse().unwrap();
        ConnectError::TimedOut { url, after: Duration::from_secs(10), limit: "limits.connect" }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_attempt_through_after_a_while() {
        let breaker = Breaker::new(2, Duration::from_secs(5), BackendMetrics::new(Remote::Backend, "two"));
        breaker.attempt().unwrap().failed(&error());
        breaker.attempt().unwrap().succeeded();
        breaker.attempt().unwrap().failed(&error());
        assert_eq!(breaker.state(), Circuit::Closed, "a success in between");
        breaker.attempt().unwrap().failed(&error());
        assert_eq!(breaker.state(), Circuit::Open);
        let down = breaker.attempt().unwrap_err().to_string();
        assert_eq!(
            down,
            "http://127.0.0.1:1 did not answer within 10s (limits.connect); it is tried again in 5s \
             (limits.breaker_open)"
        );

        advance(Duration::from_secs(5)).await;
        let probe = breaker.attempt().unwrap();
        assert_eq!(breaker.state(), Circuit::HalfOpen);
        assert!(breaker.attempt().is_err(), "one is enough");
        probe.failed(&error());
        assert!(breaker.attempt().is_err());

        advance(Duration::from_secs(5)).await;
        breaker.attempt().unwrap().succeeded();
        assert_eq!(breaker.state(), Circuit::Closed);
        assert!(breaker.attempt().is_ok() && breaker.attempt().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_given_up_leaves_room_for_the_next() {
        let breaker = Breaker::new(1, Duration::from_secs(5), BackendMetrics::new(Remote::Backend, "one"));
        breaker.attempt().unwrap().failed(&error());
        advance(Duration::from_secs(5)).await;
        drop(breaker.attempt().unwrap());
        assert!(breaker.attempt().is_ok());
    }

    #[test]
    fn the_time_until_a_retry_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(1_000, 1), (1_001, 2), (1_999, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
