//! Notifications to the supervisor of the process: systemd, or another listener on `NOTIFY_SOCKET`.
//!
//! Without that socket nothing is sent.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::telemetry;

/// Notifies that the bridge serves with the configuration in force.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Notifies that the bridge reloads its configuration. [`ready`] ends that state, whatever the result.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Newer versions of systemd require the time.
    states.extend(NotifyState::monotonic_usec_now().ok());
    notify(&states);
}

/// Notifies that the bridge is stopping.
pub(super) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Runs `work`, and sends watchdog notifications at half of the watchdog timeout.
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
