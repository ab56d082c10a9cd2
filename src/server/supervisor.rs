//! What whoever supervises the process is told: systemd, or anybody else who listens on `NOTIFY_SOCKET`.
//!
//! Without such a socket nothing is told, and nobody misses it.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::telemetry;

/// The bridge serves, with the configuration that is in force.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its configuration again. [`ready`] ends that, whatever came of it.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Newer supervisors want to know when that was.
    states.extend(NotifyState::monotonic_usec_now().ok());
    notify(&states);
}

/// It comes to its end.
pub(super) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Does `work`, and gives a sign of life twice in the time after which the supervisor would miss it.
pub(super) async fn watched<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let Some(limit) = sd_notify::watchdog_enabled() else { return work.await };
    let mut ticks = interval((limit / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => notify(&[NotifyState::Watchdog]),
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        telemetry::SupervisorUnreachable { error: &error }.emit();
    }
}
