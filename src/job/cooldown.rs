//! Cool-downs: permits that stay taken after a job has ended for the bridge, because the backend may still run it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument;

use super::concurrency::Permit;
use super::handle::Job;
use super::registry::Registry;
use crate::backend::{Backend, BackendId, RequestIdentity};
use crate::core::domain::kind::{SyncEndpoint, VmId};
use crate::core::http::url::BackendUrl;
use crate::ledger::{Cooldown, JobId, JobUpdate, LedgerUnavailable, Record, Timestamp};
use crate::telemetry;

/// The minimum interval between two requests for the activity of a backend.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// A job whose cool-down holds a permit on its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoolingDown {
    /// The job.
    pub job: JobId,
    /// The end of the cool-down.
    pub until: Timestamp,
}

/// A backend that reports whether full updates run.
#[derive(Debug)]
pub(super) struct ActivityReporter {
    /// The backend.
    pub(super) backend: Arc<Backend>,
    /// The identity that the full update was requested with.
    pub(super) identity: RequestIdentity,
}

impl Registry {
    /// Releases the permit of the ended `job` after `rest`, or at once. If there is a `reporter`, the backend
    /// first reports whether it still runs a full update.
    pub(super) fn release_permit(
        self: &Arc<Self>,
        job: &Job,
        rest: Option<Duration>,
        reporter: Option<ActivityReporter>,
    ) {
        let (Some(permit), Some(rest)) = (job.release_permit(), rest) else { return };
        job.span.in_scope(|| self.hold_permit(permit, rest, job.record(), reporter));
    }

    /// Takes a permit for every job of an earlier process that one of `backends` may still run. Jobs that hold a permit
    /// already keep it.
    pub(super) async fn resume_cooldowns(
        self: &Arc<Self>,
        backends: &[Arc<Backend>],
    ) -> Result<(), LedgerUnavailable> {
        let now = Timestamp::now();
        for record in self.ledger().cooling_down(now).await? {
            let Some(url) = record.backend.known() else { continue };
            let Some(backend) = backend_of_record(backends, url).await else { continue };
            let until = record.cooldown.unwrap_or_default().until;
            let rest = until.since(now).min(backend.limits().cooldown);
            if rest.is_zero() || self.concurrency.is_cooling_down(record.id) {
                continue;
            }
            let endpoint = SyncEndpoint { kind: record.kind, vm: record.vm.map(VmId) };
            let span = telemetry::job_span(record.id, &backend.config().name, endpoint);
            span.in_scope(|| self.hold_permit(self.concurrency.acquire_now(backend), rest, record, None));
        }
        Ok(())
    }

    /// The cool-downs on `backend`, the earliest end first.
    pub fn cooling_down(&self, backend: &Backend) -> Vec<CoolingDown> {
        let (now, time) = (Instant::now(), Timestamp::now());
        let held = self.concurrency.cooling_down(backend.id());
        let until = |until: Instant| time.after(until.saturating_duration_since(now));
        held.into_iter().map(|(job, ends)| CoolingDown { job, until: until(ends) }).collect()
    }

    /// Holds `permit` for `rest` as the cool-down of the job of `record`, in the span of that job.
    fn hold_permit(
        self: &Arc<Self>,
        permit: Permit,
        rest: Duration,
        record: Record,
        reporter: Option<ActivityReporter>,
    ) {
        let until = Instant::now() + rest;
        let until = self.concurrency.cool_down(record.id, permit.backend().clone(), until);
        let permit = CooldownPermit { registry: Arc::clone(self), record, until, permit };
        telemetry::CooldownStarted { rest }.emit();
        self.cooldowns.send_replace(());
        self.spawn(permit.cool_down(reporter).in_current_span());
    }
}

/// The permit of a cool-down. Dropping it releases the permit.
struct CooldownPermit {
    registry: Arc<Registry>,
    /// The record of the job.
    record: Record,
    /// The end of the cool-down.
    until: watch::Receiver<Instant>,
    permit: Permit,
}

/// The reason a cool-down ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CooldownEnd {
    /// Its time has elapsed.
    Elapsed,
    /// An operator ended it.
    Freed,
    /// The bridge stops. The ledger has the cool-down on record.
    Stopping,
}

impl CooldownPermit {
    /// Waits for the end of the cool-down, and releases the permit.
    async fn cool_down(mut self, reporter: Option<ActivityReporter>) {
        let began = Instant::now();
        let mut closing = self.registry.closing();
        let mut until = self.until.clone();
        let over = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => CooldownEnd::Stopping,
            () = freed(&mut until) => CooldownEnd::Freed,
            () = self.elapsed(began, reporter) => CooldownEnd::Elapsed,
        };
        if over == CooldownEnd::Freed {
            self.record(None);
        }
        drop(self);
        if over != CooldownEnd::Stopping {
            telemetry::CooldownEnded { duration: began.elapsed(), by_request: over == CooldownEnd::Freed }
                .emit();
        }
    }

    /// Waits until the time has elapsed and the backend reports no full update.
    async fn elapsed(&mut self, began: Instant, reporter: Option<ActivityReporter>) {
        self.sleep().await;
        let Some(reporter) = reporter else { return };
        let limits = reporter.backend.limits();
        let last = began + limits.cooldown;
        while self.is_reported(&reporter, last).await {
            self.lengthen(limits.cooldown_least.max(POLL_INTERVAL), last);
            self.sleep().await;
        }
    }

    async fn sleep(&self) {
        let until = *self.until.borrow();
        sleep_until(until).await;
    }

    /// Returns whether the backend reports a full update before `last`. A full update that this bridge runs itself
    /// does not count.
    async fn is_reported(&self, reporter: &ActivityReporter, last: Instant) -> bool {
        Instant::now() < last
            && !self.registry.drives_full_update(self.permit.backend())
            && reporter.backend.reports_full_update(&reporter.identity).await
    }

    /// Extends the cool-down by `time`, and at most until `last`.
    fn lengthen(&mut self, time: Duration, last: Instant) {
        let now = Instant::now();
        let until = (now + time).min(last);
        let job = self.record.id;
        self.registry.concurrency.extend(job, until);
        let until = Timestamp::now().after(until.saturating_duration_since(now));
        self.record(Some(Cooldown { least: Duration::ZERO, until }));
    }

    /// Records the end of the cool-down.
    fn record(&mut self, cooldown: Option<Cooldown>) {
        self.record.cooldown = cooldown;
        let entry = JobUpdate::new(self.record.clone(), Vec::new());
        // The ledger writes the record even if its future is dropped.
        drop(self.registry.ledger().put(entry));
    }
}

/// The backend with the recorded `url`. The record may hold another name of the same host.
async fn backend_of_record<'a>(backends: &'a [Arc<Backend>], url: &BackendUrl) -> Option<&'a Arc<Backend>> {
    let same = backends.iter().find(|backend| backend.url() == url);
    if same.is_some() {
        return same;
    }
    let id = BackendId::from_url(url.clone());
    let longest = backends.iter().map(|backend| backend.limits().connect).max()?;
    // A host name that no longer resolves matches no backend.
    timeout(longest, id.resolve()).await.ok()?.ok()?;
    join_all(backends.iter().map(|backend| backend.resolve())).await;
    backends.iter().find(|backend| backend.id().is_same(&id))
}

/// Waits until the permit is released early.
async fn freed(until: &mut watch::Receiver<Instant>) {
    while until.changed().await.is_ok() {}
}

impl Drop for CooldownPermit {
    fn drop(&mut self) {
        self.registry.concurrency.end_cooldown(self.record.id);
    }
}
