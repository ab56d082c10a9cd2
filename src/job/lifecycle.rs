//! The life of a job: it runs while it has watchers, and stays in memory for a while after its end.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::pending;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::handle::{Job, StartResult};
use super::registry::Registry;
use super::request::SyncRequest;
use super::runner::Runner;
use crate::backend::Backend;
use crate::config::OnDisconnect;
use crate::core::domain::event::Failure;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::run::normalizer::Normalizer;
use crate::core::wire::sse::frame::FrameName;
use crate::deadline;
use crate::ledger::{Cooldown, JobEnd, JobUpdate, LoggedFrame, Timestamp};
use crate::telemetry;

/// Runs the whole life of `job`, with a permit of its backend.
pub(super) fn run_job(
    registry: Arc<Registry>,
    job: Arc<Job>,
    request: SyncRequest,
) -> impl Future<Output = ()> + Send {
    let span = job.span.clone();
    let backend = Arc::clone(&request.backend);
    async move {
        let runner = Runner::new(Arc::clone(&registry), Arc::clone(&job), request);
        let run = AssertUnwindSafe(runner.run()).catch_unwind();
        let ended = tokio::select! {
            ended = run => ended,
            never = cancel_when_abandoned(&job) => match never {},
        };
        if ended.is_err() {
            record_crash(&registry, &job, &backend).await;
        }
        // From here only the registry keeps the job.
        let (id, replay) = (job.id, job.config.limits.replay);
        drop(job);
        let mut closing = registry.closing.subscribe();
        tokio::select! {
            () = sleep(replay) => {}
            // A dropped sender closes it too.
            _ = closing.wait_for(|closing| *closing) => {}
        }
        registry.forget(id);
    }
    .instrument(span)
}

/// Cancels a job without watchers. A client that returns within the grace period prevents that.
async fn cancel_when_abandoned(job: &Job) -> Infallible {
    loop {
        job.abandoned().await;
        let grace = match job.config.jobs.on_disconnect {
            OnDisconnect::Grace => job.config.limits.detach_grace,
            OnDisconnect::Cancel => Duration::ZERO,
            OnDisconnect::Continue => return pending().await,
        };
        telemetry::JobAbandoned { grace }.emit();
        tokio::select! {
            biased;
            () = job.attached() => {}
            // After `SIGSTOP`, a client that has returned may still wait to be accepted.
            () = deadline::sleep(grace) => {
                job.stop(Cause::ClientGone);
                return pending().await;
            }
        }
    }
}

/// Records the end of a job whose own code panicked. Its cool-down is `limits.cooldown` at most.
async fn record_crash(registry: &Arc<Registry>, job: &Job, backend: &Backend) {
    let kind = job.key.endpoint().kind;
    let now = Timestamp::now();
    let last = job.log.tail(0, 1).pop();
    let is_whole = last.is_some_and(|last| last.frame.name == FrameName::Complete);
    let (failure, rest) = {
        let mut record = job.record_lock();
        // A good end that no reader was given is none.
        record.end.take_if(|end| !is_whole && end.failure.is_none());
        let failure = Failure {
            step: kind.row().step.to_owned(),
            error: CRASHED.to_owned(),
            detail: format!("{CRASHED} This is a bug; its log says where."),
        };
        let end = record.end.get_or_insert(JobEnd {
            finished: now,
            outcome: Cause::Crashed.outcome(),
            cause: Some(Cause::Crashed),
            failure: Some(failure),
            failed_objects: Vec::new(),
        });
        let failure = end.failure.clone();
        // The panic has closed the connection.
        let rest =
            record.cooldown.map(|cooldown| cooldown.ends(now).since(now).min(backend.limits().cooldown));
        let rest = rest.filter(|rest| !rest.is_zero());
        record.cooldown = rest.map(|rest| Cooldown { least: Duration::ZERO, until: now.after(rest) });
        (failure, rest)
    };
    registry.release_permit(job, rest, None);
    let ending = if is_whole { Vec::new() } else { Normalizer::interrupted_frames(kind, failure) };
    let ending = job.log.assign_sequence(ending, Timestamp::now());
    let frames = ending.iter().map(LoggedFrame::without_payload).collect();
    let put = registry.ledger.put(JobUpdate::new(job.record(), frames));
    // The ledger retries and reports what it cannot write.
    let _ = timeout(job.config.limits.ledger, put).await;
    registry.mark_ended(job);
    job.set_started(StartResult::Refused(Refusal::bad_backend(CRASHED)));
    job.log.append(ending);
    job.log.end();
    let backend = &*backend.metrics;
    telemetry::JobCrashed { kind, backend, is_uncounted: job.mark_counted(), has_terminal: is_whole }.emit();
}

const CRASHED: &str = "The bridge failed in the middle of this job.";
