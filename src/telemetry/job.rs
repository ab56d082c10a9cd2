//! What happens to jobs. Every line is written in the span of its job, which says which one it is.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::backend::BackendMetrics;
use super::log;
use super::metrics::{ChannelLabel, METRICS, ObjectResult, OutcomeLabel};
use crate::core::domain::channel::Channel;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::outcome::{Cause, ErrorSource, Outcome, RunReport};
use crate::core::domain::refusal::Refusal;
use crate::core::upstream::dialect::Dialect;
use crate::core::wire::traffic::{FrameCounts, FrameType};

/// The span of a job, with what every line of it says.
// It is nobody's child: the request that it began with is over long before.
pub fn job_span(id: impl Display, backend: &str, endpoint: SyncEndpoint) -> tracing::Span {
    let span = tracing::info_span!(
        parent: None,
        "job",
        %id,
        backend,
        kind = endpoint.kind.as_str(),
        vm = endpoint.vm.map(|vm| vm.0),
    );
    // Its secrets are those of the job too.
    log::redact_span(&span, &log::current_redactor());
    span
}

/// A job was asked for that nobody had asked for yet.
#[derive(Debug)]
pub struct JobQueued<'a> {
    /// The query that the backend gets.
    pub query: &'a str,
}

impl JobQueued<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(query = self.query, "Job queued.");
    }
}

/// A job waits for its turn.
#[derive(Debug)]
pub struct JobWaiting<'a> {
    /// What it waits for.
    pub reason: &'a str,
}

impl JobWaiting<'_> {
    /// Writes the log line and moves the metrics. [`JobWaitEnded`] ends it.
    pub fn emit(self) {
        METRICS.jobs.waiting.inc();
        tracing::info!(reason = self.reason, "Job waits for its turn.");
    }
}

/// A job waits no more.
#[derive(Debug)]
pub struct JobWaitEnded {
    /// How long it has waited.
    pub waited: Duration,
    /// Whether it had to.
    pub had_to_wait: bool,
    /// Whether it has got its turn, and did not end before that.
    pub has_permit: bool,
}

impl JobWaitEnded {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let Self { waited, had_to_wait, has_permit: has_place } = self;
        if had_to_wait {
            METRICS.jobs.waiting.dec();
        }
        if has_place {
            METRICS.jobs.wait.observe(waited.as_secs_f64());
            tracing::debug!(waited_seconds = waited.as_secs_f64(), "Job has got its turn.");
        }
    }
}

/// The place of a job that has ended stays taken.
#[derive(Debug)]
pub struct CooldownStarted {
    /// For how long.
    pub rest: Duration,
}

impl CooldownStarted {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(
            cooldown_seconds = self.rest.as_secs_f64(),
            "The backend may still be at work on the job: its place stays taken."
        );
    }
}

/// The place of a job that has ended is free again.
#[derive(Debug)]
pub struct CooldownEnded {
    /// How long it was taken after the end of the job.
    pub duration: Duration,
    /// Whether an operator ended the cool-down.
    pub by_request: bool,
}

impl CooldownEnded {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(
            cooldown_seconds = self.duration.as_secs_f64(),
            by_request = self.by_request,
            "The cool-down of the job is over: its place is free."
        );
    }
}

/// The last client of a job is gone.
#[derive(Debug)]
pub struct JobAbandoned {
    /// How long the job goes on without one.
    pub grace: Duration,
}

impl JobAbandoned {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(grace_seconds = self.grace.as_secs_f64(), "Nobody watches the job any more.");
    }
}

/// A job begins to drive its backend.
#[derive(Debug)]
pub struct JobStarted<'a> {
    /// What it synchronises.
    pub kind: Kind,
    /// How it drives the backend.
    pub channels: &'a [String],
    /// The dialect of the backend's `/ws`, if it is known.
    pub dialect: Option<Dialect>,
}

impl JobStarted<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.jobs.running.get(self.kind).inc();
        tracing::info!(
            channels = self.channels.join(","),
            dialect = self.dialect.map(Dialect::as_str),
            "Job started."
        );
    }
}

/// Frames came from the backend of a job.
#[derive(Debug)]
pub struct FramesReceived {
    /// How it is driven.
    pub channel: Option<Channel>,
    /// What came since this was told last.
    pub frames: FrameCounts,
}

impl FramesReceived {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let received = METRICS.frames.received.get(ChannelLabel(self.channel));
        for frame in FrameType::ALL {
            let count = self.frames.get(frame);
            if count > 0 {
                received.get(frame).inc_by(count);
            }
        }
        tracing::trace!(frames = self.frames.total(), "Frames received.");
    }
}

/// Frames were written for the readers of a job.
#[derive(Debug)]
pub struct FramesWritten<'a, F> {
    /// How its backend is driven, if it is yet.
    pub channel: Option<Channel>,
    /// What was written.
    pub frames: &'a [F],
}

impl<F> FramesWritten<'_, F>
where
    for<'f> &'f F: Into<FrameType>,
{
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let written = METRICS.frames.written.get(ChannelLabel(self.channel));
        for frame in self.frames {
            written.get(frame.into()).inc();
        }
        tracing::trace!(frames = self.frames.len(), "Frames written.");
    }
}

/// A job has come to its end.
#[derive(Debug)]
pub struct JobEnded<'a> {
    /// What it synchronised.
    pub kind: Kind,
    /// On which backend.
    pub backend: Arc<BackendMetrics>,
    /// How it drove it, if it came to that.
    pub channel: Option<Channel>,
    /// What is left of it.
    pub report: &'a RunReport,
    /// How long it took.
    pub duration: Duration,
    /// When it ended, in seconds since 1970.
    pub at: f64,
    /// Whether it has driven its backend.
    pub has_started: bool,
    /// Whether its readers were given a stream, and not a refusal in its place.
    pub has_stream: bool,
}

impl JobEnded<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let RunReport { outcome, cause, failure, counts, failed_objects: _, dropped, unreadable } =
            self.report;
        let total = counts.total();
        self.count();
        METRICS.frames.dropped.inc_by(*dropped);
        METRICS.frames.unreadable.inc_by(*unreadable);
        for (objects, count) in [
            (ObjectResult::Completed, total.completed),
            (ObjectResult::Failed, total.failed),
            (ObjectResult::Unconfirmed, total.unconfirmed),
        ] {
            METRICS.jobs.objects.get(objects).inc_by(count);
        }
        let line = (outcome.as_str(), self.duration.as_secs_f64());
        match (cause, failure) {
            (Some(cause), failure) => tracing::warn!(
                outcome = line.0,
                duration_seconds = line.1,
                cause = cause.as_str(),
                source = cause.source().as_str(),
                detail = failure.as_ref().map(|failure| failure.detail.as_str()),
                seen = total.seen,
                completed = total.completed,
                failed = total.failed,
                unconfirmed = total.unconfirmed,
                dropped,
                unreadable,
                "Job failed."
            ),
            (None, _) => tracing::info!(
                outcome = line.0,
                duration_seconds = line.1,
                seen = total.seen,
                completed = total.completed,
                failed = total.failed,
                unconfirmed = total.unconfirmed,
                dropped,
                unreadable,
                "Job completed."
            ),
        }
    }

    fn count(&self) {
        let cause = self.report.cause;
        METRICS.jobs.ended.get(self.kind).get(OutcomeLabel(cause)).inc();
        if self.has_started {
            METRICS.jobs.running.get(self.kind).dec();
            METRICS.jobs.duration.get(self.kind).observe(self.duration.as_secs_f64());
        }
        match cause {
            None => {
                last_success(self.kind, self.at);
                self.backend.succeeded(self.at);
            }
            // The backend has said how it ended.
            Some(Cause::BackendFailed | Cause::ObjectsFailed) => {}
            Some(_) if self.has_stream => METRICS.frames.terminals.get(ChannelLabel(self.channel)).inc(),
            Some(_) => {}
        }
    }
}

/// A job of this kind completed, at this time in seconds since 1970.
pub fn last_success(kind: Kind, at: f64) {
    let last = METRICS.jobs.last_success.get(kind);
    last.set(last.get().max(at));
}

/// The code of a job failed.
#[derive(Debug)]
pub struct JobCrashed {
    /// What it synchronised.
    pub kind: Kind,
    /// Whether it drove its backend.
    pub was_running: bool,
    /// Whether what became of it was counted before.
    pub is_counted: bool,
    /// Whether its readers had the end of their streams.
    pub has_terminal: bool,
}

impl JobCrashed {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        if self.was_running && !self.is_counted {
            METRICS.jobs.running.get(self.kind).dec();
        }
        if !self.is_counted {
            METRICS.jobs.ended.get(self.kind).get(OutcomeLabel(Some(Cause::Crashed))).inc();
        }
        if !self.has_terminal {
            METRICS.frames.terminals.get(ChannelLabel(None)).inc();
        }
        tracing::error!(
            outcome = Outcome::Interrupted.as_str(),
            source = ErrorSource::Bridge.as_str(),
            "The bridge failed in the middle of a job. This is a bug; please report it with the lines before."
        );
    }
}

/// The record of a job was not written in time.
#[derive(Debug)]
pub struct RecordOverdue {
    /// How long it was waited for.
    pub limit: Duration,
}

impl RecordOverdue {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.ledger.overdue.inc();
        tracing::warn!(
            limit_seconds = self.limit.as_secs_f64(),
            "The job goes on without waiting for its record any longer (limits.ledger)."
        );
    }
}

/// The recording of a job could not be written.
#[derive(Debug)]
pub struct RecordingFailed<'a> {
    /// Why.
    pub error: &'a std::io::Error,
}

impl RecordingFailed<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(error = %self.error, "The recording of the job ends here: it cannot be written.");
    }
}

/// What was older than it is to be kept is gone.
#[derive(Debug)]
pub struct LedgerCleaned {
    /// How many jobs.
    pub jobs: usize,
    /// How many logs of jobs.
    pub logs: usize,
    /// How many files of recordings.
    pub recordings: usize,
    /// How many jobs are due to lose something and keep it for now.
    pub left: u64,
}

impl LedgerCleaned {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { jobs, logs, recordings, left } = self;
        if left == 0 {
            tracing::info!(jobs, logs, recordings, "Old records and logs removed.");
        } else {
            tracing::warn!(
                jobs,
                logs,
                recordings,
                left,
                "Old records and logs removed, as many as may be at once (limits.clean_share). The rest goes with the \
                 next cleanings, or now with POST /clean on the admin listener. Is the clock right?"
            );
        }
    }
}

/// A request was refused in the place of the backend, or because of it.
#[derive(Debug)]
pub struct RequestRefused<'a> {
    /// The path that was asked for.
    pub path: &'a str,
    /// The answer.
    pub refusal: &'a Refusal,
}

impl RequestRefused<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.front.refusals.get(self.refusal.cause).inc();
        tracing::warn!(
            path = self.path,
            status = self.refusal.status,
            cause = self.refusal.cause.as_str(),
            detail = self.refusal.text(),
            "Request refused."
        );
    }
}
