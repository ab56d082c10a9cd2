//! The queue of notifications.
//!
//! A notification is queued in the transaction that writes the outcome which it reports. So a crash in between loses
//! none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{JobId, Record, Timestamp};
use crate::core::domain::kind::Kind;
use crate::core::domain::notification::NotificationEvent;
use crate::core::http::url::BackendUrl;

/// How long a notification is kept that its target does not accept.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum number of queued notifications for one target. The oldest ones are dropped.
pub const MAX_QUEUED: usize = 500;

/// What a target is notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationRule {
    /// The name of the target.
    pub target: String,
    /// The events.
    pub events: Vec<NotificationEvent>,
    /// The kinds. If there is none, all kinds.
    pub kinds: Vec<Kind>,
    /// The backends.
    pub backends: Vec<BackendUrl>,
    /// How long a kind may be without a completed run. It is set if the events contain [`NotificationEvent::Stale`].
    pub stale_after: Option<Duration>,
}

impl NotificationRule {
    /// Whether it is for runs of `kind` on `backend`.
    pub(super) fn matches(&self, backend: &str, kind: &str) -> bool {
        let is_kind = self.kinds.is_empty() || self.kinds.iter().any(|known| known.as_str() == kind);
        is_kind && self.backends.iter().any(|known| known.to_string() == backend)
    }
}

/// The rules in force, and the signal that the queue has changed.
#[derive(Clone, Debug)]
pub(super) struct NotificationRules(watch::Sender<Arc<[NotificationRule]>>);

impl NotificationRules {
    pub(super) fn new(rules: Vec<NotificationRule>) -> Self {
        Self(watch::Sender::new(rules.into()))
    }

    pub(super) fn rules(&self) -> Arc<[NotificationRule]> {
        Arc::clone(&self.0.borrow())
    }

    /// Applies `rules` from now on.
    pub(super) fn set(&self, rules: Vec<NotificationRule>) {
        self.0.send_replace(rules.into());
    }

    /// Signals that a notification was queued.
    pub(super) fn wake(&self) {
        self.0.send_modify(|_| {});
    }

    /// A receiver that changes with the rules and the queue.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<[NotificationRule]>> {
        self.0.subscribe()
    }
}

/// A queued notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedNotification {
    /// The name of its target.
    pub target: String,
    /// Its id. It stays the same if the notification is sent again.
    pub id: String,
    /// Its subject.
    pub event: NotificationEvent,
    /// The URL of the backend.
    pub backend: String,
    /// The kind of sync.
    pub kind: String,
    /// The id of the virtual machine, for a sync of a single one.
    pub vm: Option<u64>,
    /// When the event happened.
    pub at: Timestamp,
    /// When the problem began, for a problem. For [`NotificationEvent::Stale`], the last completed run, if there is one.
    pub since: Option<Timestamp>,
    /// The problems that the run resolves.
    pub resolved: Vec<ResolvedProblem>,
    /// The job, unless the event is [`NotificationEvent::Stale`].
    pub job: Option<JobId>,
    /// The record of the job, as long as it is kept.
    pub record: Option<Record>,
    /// How often it was sent in vain.
    pub attempts: u32,
}

/// A problem that a target was notified of, and that is over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResolvedProblem {
    /// The name of its [`NotificationEvent`].
    pub event: String,
    /// The id of the virtual machine, for a sync of a single one.
    pub vm: Option<u64>,
    /// When it began.
    pub since: u64,
}
