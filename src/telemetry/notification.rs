//! Events of notifications.

use std::time::Duration;

use super::metrics::{METRICS, NotificationResult};
use crate::core::text::string_enum::string_enum;

/// A target accepted a notification.
#[derive(Debug)]
pub struct NotificationSent<'a> {
    /// The name of the target.
    pub target: &'a str,
    /// The id of the notification.
    pub id: &'a str,
}

impl NotificationSent<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.notifications.results.get(NotificationResult::Sent).inc();
        tracing::info!(notify = self.target, notification = self.id, "Notification sent.");
    }
}

/// An attempt to send a notification failed.
#[derive(Debug)]
pub struct NotificationFailed<'a> {
    /// The name of the target.
    pub target: &'a str,
    /// The id of the notification.
    pub id: &'a str,
    /// The problem.
    pub problem: &'a str,
    /// The number of failed attempts.
    pub attempts: u32,
    /// The time until the next attempt.
    pub retry: Duration,
}

impl NotificationFailed<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let Self { target, id, problem, attempts, retry } = self;
        METRICS.notifications.results.get(NotificationResult::Failed).inc();
        tracing::warn!(
            notify = target,
            notification = id,
            problem,
            attempts,
            retry_seconds = retry.as_secs_f64(),
            "Notification not sent. It will be sent again."
        );
    }
}

string_enum! {
    /// Why a notification was dropped.
    pub enum NotificationDropReason {
        /// The target refused it for good.
        Refused = "refused",
        /// It was too old.
        Age = "age",
        /// Too many were queued for its target.
        Queue = "queue",
        /// Its target is not configured any more.
        Removed = "removed",
        /// Its row in the ledger is damaged.
        Damaged = "damaged",
    }
}

/// Notifications were dropped.
#[derive(Debug)]
pub struct NotificationsDropped<'a> {
    /// The name of their target.
    pub target: &'a str,
    /// Their number. For 0, nothing is logged.
    pub count: usize,
    /// The reason.
    pub reason: NotificationDropReason,
}

impl NotificationsDropped<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        self.emit_with(None);
    }

    /// [`NotificationsDropped::emit`] with the problem that the target stated.
    pub fn emit_with(self, problem: Option<&str>) {
        let Self { target, count, reason } = self;
        if count == 0 {
            return;
        }
        METRICS.notifications.results.get(NotificationResult::Dropped).inc_by(count as u64);
        tracing::error!(
            notify = target,
            count,
            reason = reason.as_str(),
            problem,
            "Notifications dropped: their target will not get them."
        );
    }
}
