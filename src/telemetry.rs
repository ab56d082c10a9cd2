//! One type for each thing that happens, which writes its log line and moves its metrics, so that the
//! two cannot drift apart.

mod ledger;
mod metrics;

use std::time::Duration;

use crate::core::dialect::Dialect;
use crate::core::kind::Kind;
use crate::core::outcome::{Outcome, Report, Source};
use crate::core::plan::Plan;
use crate::core::refusal::Refusal;
use metrics::METRICS;

pub use ledger::{LedgerClosed, LedgerCommitFailed, LedgerHealth, LedgerOpened, LedgerShed};
pub use metrics::text as metrics_text;

/// A job was started.
#[derive(Debug)]
pub struct JobStarted<'a> {
    /// How it drives the backend.
    pub plan: &'a Plan,
    /// The dialect of the backend's `/ws`, if it is known.
    pub dialect: Option<Dialect>,
}

impl JobStarted<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.running.inc();
        let channels: Vec<&str> = self.plan.legs.iter().map(|leg| leg.channel.as_str()).collect();
        tracing::info!(
            channels = channels.join(","),
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
}

impl JobEnded<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let Report { outcome, cause, failure, counts, failed_objects: _, dropped, unreadable } = self.report;
        METRICS.running.dec();
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

/// A job was ended by its client before it was done.
#[derive(Debug)]
pub struct JobCancelled {
    /// What it synchronised.
    pub kind: Kind,
    /// How long it ran.
    pub duration: Duration,
}

impl JobCancelled {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.running.dec();
        METRICS.jobs.with_label_values(&[self.kind.as_str(), Outcome::Cancelled.as_str()]).inc();
        tracing::warn!(
            outcome = Outcome::Cancelled.as_str(),
            duration_seconds = self.duration.as_secs_f64(),
            source = Source::Client.as_str(),
            "Job cancelled: its client is gone."
        );
    }
}

/// A run was refused before it became a stream.
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
            "Stream refused."
        );
    }
}
