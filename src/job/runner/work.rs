//! Work that the backend may still run when the job ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Runner;
use crate::backend::RequestIdentity;
use crate::core::domain::channel::Channel;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, Outcome};
use crate::core::http::url::BackendUrl;
use crate::core::run::cooldown::{AfterDisconnect, Estimate, is_reported, leaves_work};
use crate::core::run::plan::Leg;
use crate::job::cooldown::ActivityReporter;
use crate::ledger::{Cooldown, JobFilter, Run};

/// How many completed runs the expected duration is derived from.
const MAX_RUNS: usize = 200;

/// The leg that was requested last.
#[derive(Clone, Copy, Debug)]
pub(super) struct LegWork {
    channel: Channel,
    kind: Kind,
    began: Instant,
    estimate: Estimate,
    /// The backend may have begun the work. On `/ws`, the command starts it.
    pub(super) has_begun: bool,
}

impl LegWork {
    /// Returns whether a response with `status` may follow work. In place of a stream or a socket, any response is a
    /// refusal; for a plain endpoint, only some statuses are.
    pub(super) fn may_precede(&self, status: u16) -> bool {
        self.channel == Channel::Json && !matches!(status, 401 | 403..=405 | 422 | 429)
    }
}

impl Runner {
    /// Marks that `leg` is about to be requested, and records how long the backend may work on it, so that a bridge
    /// that is killed knows it after its restart.
    pub(super) async fn expect_work(&mut self, leg: &Leg) {
        let limits = self.request.backend.limits();
        if limits.cooldown.is_zero() {
            // That the job has started.
            self.record_writer.write();
            return;
        }
        let kind = leg.endpoint.kind;
        let after = AfterDisconnect::new(self.release, leg.channel, kind);
        let durations = if after.needs_durations() {
            let (ledger, limit) = (Arc::clone(self.registry.ledger()), self.job.config.limits.ledger);
            let completed = ledger.runs(completed(leg, self.request.backend.url().clone()));
            // An unavailable ledger reports itself, and yields no runs.
            let runs = timeout(limit, completed).await.ok().and_then(Result::ok).unwrap_or_default();
            durations(&runs, leg)
        } else {
            Vec::new()
        };
        let estimate = Estimate::new(after, kind, &durations, limits.cooldown_least);
        let has_begun = leg.channel != Channel::Websocket;
        self.work = Some(LegWork { channel: leg.channel, kind, began: Instant::now(), estimate, has_begun });
        let until = self.time().after(estimate.expected);
        self.job.record_lock().cooldown = Some(Cooldown { least: estimate.least, until });
        // The job runs even if this cannot be recorded.
        let _ = self.record_writer.persist(&[]).await;
    }

    /// How long the backend may still work on a job that ends with `cause`, or completes.
    pub(super) fn remaining_work(&self, cause: Option<Cause>) -> Option<Duration> {
        let work = self.work.filter(|work| work.has_begun)?;
        if !leaves_work(cause, self.release, work.channel) {
            return None;
        }
        let rest = work.estimate.remaining(work.began.elapsed(), self.request.backend.limits().cooldown);
        (!rest.is_zero()).then_some(rest)
    }

    /// The backend, if it reports whether it still runs a full update.
    pub(super) fn reporter(&self) -> Option<ActivityReporter> {
        let is_reported = self.work.is_some_and(|work| is_reported(self.release, work.channel, work.kind));
        let identity =
            RequestIdentity { key: self.request.identity.key.clone(), ..RequestIdentity::default() };
        is_reported.then(|| ActivityReporter { backend: Arc::clone(&self.request.backend), identity })
    }
}

/// The completed runs that the duration of `leg` is derived from. Runs of its stages count towards a full update too.
fn completed(leg: &Leg, backend: BackendUrl) -> JobFilter {
    let kind = leg.endpoint.kind;
    JobFilter {
        kind: (kind != Kind::FullUpdate).then_some(kind),
        outcomes: vec![Outcome::Completed],
        backend: Some(backend),
        limit: MAX_RUNS,
        ..JobFilter::default()
    }
}

/// The durations of `runs`. Those for one virtual machine are not mixed with those for all of them.
fn durations(runs: &[Run], leg: &Leg) -> Vec<(Kind, Duration)> {
    let same = runs.iter().filter(|run| run.vm.is_some() == leg.endpoint.vm.is_some());
    same.map(|run| (run.kind, run.duration)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::domain::kind::SyncEndpoint;

    #[test]
    fn work_may_precede_only_a_failure_of_a_plain_endpoint() {
        for (channel, status, expected) in [
            (Channel::Json, 500, true),
            (Channel::Json, 401, false),
            (Channel::Json, 422, false),
            (Channel::Native, 500, false),
            (Channel::Websocket, 500, false),
        ] {
            let after = AfterDisconnect::new(None, channel, Kind::Devices);
            let estimate = Estimate::new(after, Kind::Devices, &[], Duration::ZERO);
            let work =
                LegWork { channel, kind: Kind::Devices, began: Instant::now(), estimate, has_begun: true };
            assert_eq!(work.may_precede(status), expected, "{channel} {status}");
        }
    }

    #[test]
    fn the_duration_of_a_full_update_is_derived_from_runs_of_every_kind() {
        for (kind, expected) in [(Kind::FullUpdate, None), (Kind::Devices, Some(Kind::Devices))] {
            let endpoint = SyncEndpoint::for_kind(kind);
            let leg = Leg { endpoint, kinds: vec![kind], channel: Channel::Native, command: None };
            assert_eq!(completed(&leg, "http://backend".parse().unwrap()).kind, expected);
        }
    }
}
