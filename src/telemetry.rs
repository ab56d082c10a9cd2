//! One type for each thing that happens, which writes its log line.

use std::time::Duration;

use crate::core::dialect::Dialect;
use crate::core::outcome::Report;
use crate::core::plan::Plan;

/// A job was started.
#[derive(Debug)]
pub struct JobStarted<'a> {
    /// How it drives the backend.
    pub plan: &'a Plan,
    /// The dialect of the backend's `/ws`, if it is known.
    pub dialect: Option<Dialect>,
}

impl JobStarted<'_> {
    /// Writes the log line.
    pub fn emit(self) {
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
    /// What is left of it.
    pub report: &'a Report,
    /// How long it took.
    pub duration: Duration,
}

impl JobEnded<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let Report { outcome, cause, failure, counts, dropped, unreadable } = self.report;
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
    /// How long it ran.
    pub duration: Duration,
}

impl JobCancelled {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(
            outcome = crate::core::outcome::Outcome::Cancelled.as_str(),
            duration_seconds = self.duration.as_secs_f64(),
            source = crate::core::outcome::Source::Client.as_str(),
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
    pub refusal: &'a crate::core::refusal::Refusal,
}

impl Refused<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(
            path = self.path,
            status = self.refusal.status,
            cause = self.refusal.cause.as_str(),
            detail = self.refusal.text(),
            "Stream refused."
        );
    }
}
