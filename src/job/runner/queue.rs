//! Waiting for a concurrency permit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Runner;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::run::session::PendingRun;
use crate::core::run::session::SessionOutput;
use crate::job::concurrency::Permit;
use crate::job::registry::QueuePosition;
use crate::ledger::JobId;
use crate::telemetry::{self, BackendMetrics, GaugeGuard};

impl Runner {
    /// Waits for a permit, and reports that to readers once per heartbeat.
    ///
    /// # Errors
    ///
    /// The cause with which the job must end.
    pub(super) async fn acquire_permit(&mut self, waiting: &mut PendingRun) -> Result<(), Cause> {
        let backend = Arc::clone(&self.request.backend);
        tokio::select! {
            biased;
            cause = self.stopping.cause() => return Err(cause),
            // Resolve first: the address may belong to a backend with another name.
            () = backend.resolve() => {}
        }
        let permit = self.registry.concurrency.request(&backend);
        if permit.is_granted() {
            self.job.hold_permit(permit);
            let (backend, waited) = (&backend.metrics, Duration::ZERO);
            telemetry::JobWaitEnded { backend, waited, has_permit: true }.emit();
            return Ok(());
        }
        let mut wait = QueueWait::begin(Arc::clone(&backend.metrics), &self.reason());
        let granted = self.wait_for_permit(permit, waiting).await;
        wait.has_permit = granted.is_ok();
        granted
    }

    async fn wait_for_permit(&mut self, mut permit: Permit, waiting: &mut PendingRun) -> Result<(), Cause> {
        let registry = Arc::clone(&self.registry);
        let mut draining = registry.draining.subscribe();
        let mut cooldowns = registry.cooldowns.subscribe();
        loop {
            let cooling_down = self.cooling_down();
            let mut out = SessionOutput::default();
            waiting.report(&self.reason(), &mut out);
            self.apply(&mut out).await;
            self.record_writer.mark_dirty();
            let again = Instant::now() + self.job.config.limits.heartbeat;
            loop {
                tokio::select! {
                    biased;
                    cause = self.stopping.cause() => return Err(cause),
                    _ = draining.wait_for(|draining| *draining) => return Err(Cause::Stopping),
                    () = permit.granted() => {
                        self.job.hold_permit(permit);
                        // After a long wait the capabilities may have changed.
                        self.request.backend.capabilities_cache.invalidate();
                        return Ok(());
                    }
                    () = sleep_until(again) => break,
                    // The sender is a field of the registry.
                    Ok(()) = cooldowns.changed() => if self.cooling_down() != cooling_down {
                        break;
                    },
                    () = self.record_writer.due() => self.record_writer.write(),
                }
            }
        }
    }

    /// The job whose cool-down on this backend ends first.
    fn cooling_down(&self) -> Option<JobId> {
        self.registry.queue_position(&self.job).cooling_down.map(|(job, _)| job)
    }

    /// Describes what the job waits for.
    fn reason(&self) -> String {
        let QueuePosition { running, waiting, cooling_down } = self.registry.queue_position(&self.job);
        let what = match running.as_slice() {
            [] => "the synchronization before this one".to_owned(),
            kinds => {
                let titles: Vec<&str> = kinds.iter().map(|kind: &Kind| kind.row().title).collect();
                format!("{} synchronization", titles.join(" and "))
            }
        };
        let before = match waiting {
            0 => String::new(),
            1 => ", and for 1 more that waits".to_owned(),
            more => format!(", and for {more} more that wait"),
        };
        let reason = format!("Waiting for {what} to finish on this backend{before}.");
        let Some((job, until)) = cooling_down else { return reason };
        let seconds = until.saturating_duration_since(Instant::now()).as_millis().div_ceil(1000).max(1);
        if running.is_empty() {
            return format!(
                "Waiting: the backend may still be at work on job {job}, up to {seconds} s more{before}."
            );
        }
        format!("{reason} It may also be at work on job {job} still, up to {seconds} s more.")
    }
}

/// Counts a queued job in the metrics, even if its code panics.
struct QueueWait {
    backend: Arc<BackendMetrics>,
    began: Instant,
    has_permit: bool,
    _waiting: Option<GaugeGuard>,
}

impl QueueWait {
    fn begin(backend: Arc<BackendMetrics>, reason: &str) -> Self {
        let waiting = telemetry::JobWaiting { backend: &backend, reason }.emit();
        Self { backend, began: Instant::now(), has_permit: false, _waiting: waiting }
    }
}

impl Drop for QueueWait {
    fn drop(&mut self) {
        let (waited, has_permit) = (self.began.elapsed(), self.has_permit);
        telemetry::JobWaitEnded { backend: &self.backend, waited, has_permit }.emit();
    }
}
