//! One type for each thing that happens, which writes its log line and moves its metrics, so that the
//! two cannot drift apart.

mod front;
mod ledger;
mod metrics;

use std::time::Duration;

use crate::core::dialect::Dialect;
use crate::core::kind::Kind;
use crate::core::outcome::{Outcome, Report, Source};
use crate::core::refusal::Refusal;
use metrics::METRICS;

pub use front::{Answered, CertificateRead, Listening, OverLimit, Rejected, Reloaded};
pub use ledger::{LedgerClosed, LedgerCommitFailed, LedgerHealth, LedgerOpened, LedgerShed};
pub use metrics::text as metrics_text;

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

/// A client came to a job that was there already.
#[derive(Debug)]
pub struct Attached<I> {
    /// The job.
    pub id: I,
    /// What it synchronises.
    pub kind: Kind,
}

impl<I: std::fmt::Display> Attached<I> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.attaches.inc();
        tracing::info!(id = %self.id, kind = self.kind.as_str(), "Client came to a job that was there.");
    }
}

/// The last client of a job is gone.
#[derive(Debug)]
pub struct Deserted {
    /// How long the job goes on without one.
    pub grace: Duration,
}

impl Deserted {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(grace_seconds = self.grace.as_secs_f64(), "Nobody watches the job any more.");
    }
}

/// A job begins to drive its backend.
#[derive(Debug)]
pub struct JobStarted<'a> {
    /// How it drives the backend.
    pub channels: &'a [String],
    /// The dialect of the backend's `/ws`, if it is known.
    pub dialect: Option<Dialect>,
}

impl JobStarted<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.running.inc();
        tracing::info!(
            channels = self.channels.join(","),
            dialect = self.dialect.map(Dialect::as_str),
            "Job started."
        );
    }
}

/// A job has come to its end.
#[derive(Debug)]
pub struct JobEnded<'a> {
    /// What it synchronised.
    pub kind: Kind,
    /// What is left of it.
    pub report: &'a Report,
    /// How long it took.
    pub duration: Duration,
    /// Whether it has driven its backend.
    pub has_started: bool,
}

impl JobEnded<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let Report { outcome, cause, failure, counts, failed_objects: _, dropped, unreadable } = self.report;
        if self.has_started {
            METRICS.running.dec();
        }
        METRICS.jobs.with_label_values(&[self.kind.as_str(), outcome.as_str()]).inc();
        METRICS.dropped.inc_by(*dropped);
        METRICS.unreadable.inc_by(*unreadable);
        let total = counts.total();
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
}

/// The code of a job failed.
#[derive(Debug)]
pub struct JobBroke {
    /// What it synchronised.
    pub kind: Kind,
    /// Whether it counts as one that runs.
    pub was_running: bool,
}

impl JobBroke {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        if self.was_running {
            METRICS.running.dec();
        }
        METRICS.jobs.with_label_values(&[self.kind.as_str(), Outcome::Interrupted.as_str()]).inc();
        tracing::error!(
            outcome = Outcome::Interrupted.as_str(),
            source = Source::Bridge.as_str(),
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
        METRICS.records_overdue.inc();
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
pub struct Cleaned {
    /// How many jobs.
    pub jobs: usize,
    /// How many logs of jobs.
    pub logs: usize,
}

impl Cleaned {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(jobs = self.jobs, logs = self.logs, "Old records removed.");
    }
}

/// A request was refused in the place of the backend, or because of it.
#[derive(Debug)]
pub struct Refused<'a> {
    /// The path that was asked for.
    pub path: &'a str,
    /// The answer.
    pub refusal: &'a Refusal,
}

impl Refused<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.refusals.with_label_values(&[self.refusal.cause.as_str()]).inc();
        tracing::warn!(
            path = self.path,
            status = self.refusal.status,
            cause = self.refusal.cause.as_str(),
            detail = self.refusal.text(),
            "Request refused."
        );
    }
}
