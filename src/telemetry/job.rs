//! Events of jobs. Every line is written in the span of its job, which identifies it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::backend::BackendMetrics;
use super::log;
use super::metrics::jobs::{self, JobResult};
use super::metrics::{GaugeGuard, METRICS};
use crate::core::domain::channel::Channel;
use crate::core::domain::counts::Count;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::outcome::{Cause, ErrorSource, ObjectFailure, Outcome, RunReport};
use crate::core::domain::refusal::Refusal;
use crate::core::upstream::dialect::Dialect;
use crate::core::wire::traffic::{FrameCounts, FrameType};

/// The span of a job, with the fields that every line of the job has.
// It has no parent: the request that started the job ends long before the job.
pub fn job_span(id: impl Display, backend: &str, endpoint: SyncEndpoint) -> tracing::Span {
    let span = tracing::info_span!(
        parent: None,
        log::JOB_SPAN,
        job = %id,
        backend,
        kind = endpoint.kind.as_str(),
        vm = endpoint.vm.map(|vm| vm.0),
    );
    // The secrets of the request are secrets of the job, too.
    log::redact_span(&span, &log::current_redactor());
    span
}

/// A job was queued.
#[derive(Debug)]
pub struct JobQueued<'a> {
    /// The query for the backend.
    pub query: &'a str,
}

impl JobQueued<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(query = self.query, "Job queued.");
    }
}

/// A job waits for a concurrency permit of its backend.
#[derive(Debug)]
pub struct JobWaiting<'a> {
    /// The metrics of its backend.
    pub backend: &'a BackendMetrics,
    /// The reason.
    pub reason: &'a str,
}

impl JobWaiting<'_> {
    /// Writes the log line and updates the metrics. The job is counted until the guard is dropped.
    pub fn emit(self) -> Option<GaugeGuard> {
        tracing::info!(reason = self.reason, "Job is waiting in the queue.");
        jobs::waiting(self.backend.name())
    }
}

/// A job left the queue.
#[derive(Debug)]
pub struct JobWaitEnded<'a> {
    /// The metrics of its backend.
    pub backend: &'a BackendMetrics,
    /// The time that it waited.
    pub waited: Duration,
    /// Whether it got a concurrency permit. If not, it ended while it waited.
    pub has_permit: bool,
}

impl JobWaitEnded<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let Self { backend, waited, has_permit } = self;
        if has_permit {
            jobs::waited(backend.name(), waited.as_secs_f64());
            tracing::debug!(waited_seconds = waited.as_secs_f64(), "Job left the queue.");
        }
    }
}

/// The cool-down of a job began: the job has ended, and keeps its concurrency permit.
#[derive(Debug)]
pub struct CooldownStarted {
    /// The length of the cool-down.
    pub rest: Duration,
}

impl CooldownStarted {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(
            cooldown_seconds = self.rest.as_secs_f64(),
            "Cool-down started: the backend may still be working on the job, which keeps its concurrency permit."
        );
    }
}

/// The cool-down of a job ended: its concurrency permit is released.
#[derive(Debug)]
pub struct CooldownEnded {
    /// The time between the end of the job and the end of the cool-down.
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
            "Cool-down ended: the concurrency permit of the job is released."
        );
    }
}

/// The last watcher of a job disconnected.
#[derive(Debug)]
pub struct JobAbandoned {
    /// The time until the job is cancelled.
    pub grace: Duration,
}

impl JobAbandoned {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(grace_seconds = self.grace.as_secs_f64(), "Last watcher of the job disconnected.");
    }
}

/// A job began to drive its backend.
#[derive(Debug)]
pub struct JobStarted<'a> {
    /// What it synchronises.
    pub kind: Kind,
    /// The metrics of its backend.
    pub backend: &'a BackendMetrics,
    /// The channels of its legs.
    pub channels: &'a [Channel],
    /// The dialect of the backend's `/ws`, if it is known.
    pub dialect: Option<Dialect>,
    /// The query for the backend.
    pub query: &'a str,
    /// The id of the request that queued it.
    pub request: Option<&'a str>,
    /// The address of its client.
    pub client: Option<&'a str>,
    /// The user that its client names.
    pub user: Option<&'a str>,
}

impl JobStarted<'_> {
    /// Writes the log line and updates the metrics. The job is counted as running until the guard is dropped.
    pub fn emit(self) -> Option<GaugeGuard> {
        let Self { kind, backend, channels, dialect, query, request, client, user } = self;
        let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
        tracing::info!(
            channels = channels.join(","),
            dialect = dialect.map(Dialect::as_str),
            query,
            request,
            client,
            user,
            "Job started."
        );
        jobs::running(backend.name(), kind)
    }
}

/// Frames were received from the backend of a job.
#[derive(Debug)]
pub struct FramesReceived {
    /// The channel.
    pub channel: Option<Channel>,
    /// The frames since the last event of this type.
    pub frames: FrameCounts,
}

impl FramesReceived {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let received = METRICS.frames.received.get(self.channel);
        for frame in FrameType::ALL {
            let count = self.frames.get(frame);
            if count > 0 {
                received.get(frame).inc_by(count);
            }
        }
        tracing::trace!(frames = self.frames.total(), "Frames received.");
    }
}

/// Frames were written to the log of a job.
#[derive(Debug)]
pub struct FramesWritten<'a, F> {
    /// The channel, if the backend is already driven.
    pub channel: Option<Channel>,
    /// The frames.
    pub frames: &'a [F],
}

impl<F> FramesWritten<'_, F>
where
    for<'f> &'f F: Into<FrameType>,
{
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let written = METRICS.frames.written.get(self.channel);
        for frame in self.frames {
            written.get(frame.into()).inc();
        }
        tracing::trace!(frames = self.frames.len(), "Frames written.");
    }
}

/// An object failed in a job.
#[derive(Debug)]
pub struct ObjectFailed<'a> {
    /// The failure.
    pub failure: &'a ObjectFailure,
}

impl ObjectFailed<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let ObjectFailure { object, name, cluster, owner, count, error } = self.failure;
        tracing::warn!(
            object = object.as_str(),
            name,
            cluster = cluster.as_deref(),
            owner = owner.as_deref(),
            count,
            error,
            "Object failed."
        );
    }
}

/// More objects failed in a job than have a line in the log.
#[derive(Debug)]
pub struct MoreObjectsFailed {
    /// The number of objects without a line.
    pub more: u64,
    /// How many of them are not in the ledger either.
    pub left_out: u64,
}

impl MoreObjectsFailed {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { more, left_out } = self;
        tracing::warn!(
            more,
            left_out = (left_out > 0).then_some(left_out),
            "More objects failed: GET /jobs/{{id}}/failed on the admin listener lists all that are kept \
             (jobs.failed_objects)."
        );
    }
}

/// A job ended.
#[derive(Debug)]
pub struct JobEnded<'a> {
    /// The kind of objects.
    pub kind: Kind,
    /// The metrics of its backend.
    pub backend: Arc<BackendMetrics>,
    /// The channel, if the backend was driven.
    pub channel: Option<Channel>,
    /// The result.
    pub report: &'a RunReport,
    /// The time between its start and its end.
    pub duration: Duration,
    /// Whether it drove its backend.
    pub has_started: bool,
    /// Counts it as running.
    pub running: Option<GaugeGuard>,
    /// Whether its clients got a stream, and not a refusal.
    pub has_stream: bool,
}

impl JobEnded<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let RunReport { outcome, cause, failure, counts, failed_objects: _, dropped, unreadable } =
            self.report;
        let total = counts.total();
        self.count();
        METRICS.frames.dropped.inc_by(*dropped);
        METRICS.frames.unreadable.inc_by(*unreadable);
        macro_rules! line {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    outcome = outcome.as_str(),
                    duration_seconds = self.duration.as_secs_f64(),
                    cause = cause.map(Cause::as_str),
                    source = cause.map(|cause| cause.source().as_str()),
                    detail =
                        failure.as_ref().filter(|_| cause.is_some()).map(|failure| failure.detail.as_str()),
                    seen = total.seen,
                    completed = total.completed,
                    failed = total.failed,
                    unconfirmed = total.unconfirmed,
                    dropped,
                    unreadable,
                    $message
                )
            };
        }
        match cause {
            Some(Cause::CancelRequested) => line!(info, "Job cancelled."),
            Some(Cause::ClientGone) => line!(warn, "Job cancelled."),
            // Normal for an old backend.
            Some(Cause::Unsupported) => line!(info, "Sync not supported."),
            Some(_) => line!(warn, "Job failed."),
            None if total.failed > 0 => line!(warn, "Job completed with failures."),
            None if total.unconfirmed > 0 => line!(info, "Job completed with unconfirmed objects."),
            None => line!(info, "Job completed."),
        }
    }

    fn count(&self) {
        let cause = self.report.cause;
        let result = JobResult::from_report(self.report);
        let duration = self.has_started.then_some(self.duration.as_secs_f64());
        jobs::ended(self.backend.name(), self.kind, result, self.report.counts.total(), duration);
        match cause {
            // The backend sent the end of the stream.
            None | Some(Cause::BackendFailed | Cause::ObjectsFailed) => {}
            Some(_) if self.has_stream => METRICS.frames.terminals.get(self.channel).inc(),
            Some(_) => {}
        }
    }
}

/// The task of a job panicked.
#[derive(Debug)]
pub struct JobCrashed<'a> {
    /// The kind of objects.
    pub kind: Kind,
    /// The metrics of its backend.
    pub backend: &'a BackendMetrics,
    /// Whether no outcome of it was counted before.
    pub is_uncounted: bool,
    /// Whether its clients got the end of their streams.
    pub has_terminal: bool,
}

impl JobCrashed<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        if self.is_uncounted {
            let result = JobResult::Failed(Cause::Crashed);
            jobs::ended(self.backend.name(), self.kind, result, Count::default(), None);
        }
        if !self.has_terminal {
            METRICS.frames.terminals.get(None).inc();
        }
        tracing::error!(
            outcome = Outcome::Interrupted.as_str(),
            source = ErrorSource::Bridge.as_str(),
            "The bridge crashed in a job. This is a bug: please report it with the log lines before this one."
        );
    }
}

/// The record of a job was not written within the limit.
#[derive(Debug)]
pub struct RecordOverdue {
    /// The limit.
    pub limit: Duration,
}

impl RecordOverdue {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.ledger.overdue.inc();
        tracing::warn!(
            limit_seconds = self.limit.as_secs_f64(),
            "The record of the job was not written in time (limits.ledger). The job continues."
        );
    }
}

/// Writing the recording of a job failed.
#[derive(Debug)]
pub struct RecordingFailed<'a> {
    /// The error of the system.
    pub error: &'a std::io::Error,
}

impl RecordingFailed<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(error = %self.error, "Writing the recording of the job failed. The recording ends here.");
    }
}

/// Expired records, logs and recordings were removed.
#[derive(Debug)]
pub struct LedgerCleaned {
    /// The number of records.
    pub jobs: usize,
    /// The number of logs.
    pub logs: usize,
    /// The number of files with recordings.
    pub recordings: usize,
    /// The number of jobs with expired data that this cleaning kept.
    pub left: u64,
}

impl LedgerCleaned {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { jobs, logs, recordings, left } = self;
        if left == 0 {
            tracing::info!(jobs, logs, recordings, "Expired records and logs removed.");
        } else {
            tracing::warn!(
                jobs,
                logs,
                recordings,
                left,
                "Expired records and logs removed, up to the share for one cleaning (limits.clean_share). The next \
                 cleanings remove the rest; POST /clean on the admin listener removes it now. Check the clock of this \
                 machine."
            );
        }
    }
}

/// The bridge refused a request on behalf of the backend, or because of it.
#[derive(Debug)]
pub struct RequestRefused<'a> {
    /// The path of the request.
    pub path: &'a str,
    /// The answer.
    pub refusal: &'a Refusal,
}

impl RequestRefused<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.front.refusals.get(self.refusal.cause).inc();
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    path = self.path,
                    status = self.refusal.status,
                    cause = self.refusal.cause.as_str(),
                    detail = self.refusal.text(),
                    "Request refused."
                )
            };
        }
        match self.refusal.cause {
            Cause::Unsupported => line!(info),
            _ => line!(warn),
        }
    }
}
