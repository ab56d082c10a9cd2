//! Notifications: the delivery of what the ledger has queued to the targets of `[[notify]]`.
//!
//! | part | what it is |
//! |---|---|
//! | `message` | the text of a notification |
//! | `form` | the request for a target, in its form |
//! | `delivery` | the connection to a target, and its answer |
//!
//! Each target gets its notifications in order, one at a time, and each of them at least once: a notification stays
//! queued until the target accepts or refuses it. The delivery runs in a task of its own and holds up no job.

mod delivery;
mod form;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::config::{Config, NotifyConfig};
use crate::core::domain::notification::NotificationEvent;
use crate::ledger::{Ledger, MAX_AGE, NotificationRule, QueuedNotification, Timestamp};
use crate::telemetry::{NotificationDropReason, NotificationFailed, NotificationSent, NotificationsDropped};
use delivery::{DeliveryError, deliver};
use message::Message;

/// The delay before the second attempt. It doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest delay between two attempts, unless a target asks for more.
const MAX_RETRY: Duration = Duration::from_secs(10 * 60);
/// The longest `Retry-After` that is respected.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// How many delivered or dropped notifications per target are remembered. After a loss of its file, the ledger
/// queues those of the jobs in memory again, which are at most as many.
const MAX_FINISHED: usize = 256;
/// The interval between checks for syncs that are overdue.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The rules by which the ledger queues notifications for the targets of `config`.
pub fn rules(config: &Config) -> Vec<NotificationRule> {
    let all = || config.backends.iter().map(|backend| backend.url.clone()).collect();
    let rule = |target: &NotifyConfig| NotificationRule {
        target: target.name.clone(),
        events: target.on.clone(),
        kinds: target.kinds.clone(),
        backends: target.backends.clone().unwrap_or_else(all),
        stale_after: target.stale_after,
    };
    config.notify.iter().map(rule).collect()
}

/// Delivers notifications under the current configuration until the task is aborted.
pub async fn run(ledger: Arc<Ledger>, config: impl Fn() -> Arc<Config>) {
    let mut changed = ledger.notifications_changed();
    let mut sender = Sender::new(ledger, config());
    loop {
        changed.mark_unchanged();
        sender.configure(config());
        let wake = sender.send_due().await;
        tokio::select! {
            // It does not fail: the ledger holds the sending half.
            _ = changed.changed() => {}
            Some(ended) = sender.deliveries.join_next_with_id() => match ended {
                Ok((task, result)) => sender.end(task, result).await,
                // The panic hook has logged the panic.
                Err(panicked) => sender.end(panicked.id(), Err(DeliveryError::panicked())).await,
            },
            () = sleep_until(wake) => {}
        }
    }
}

/// Sends a test notification to `target`. Returns what it answered.
///
/// # Errors
///
/// Why it did not accept the notification.
pub async fn test(config: &Config, target: &NotifyConfig) -> Result<String, String> {
    let notification = QueuedNotification {
        target: target.name.clone(),
        id: format!("{}_{}", Uuid::now_v7(), NotificationEvent::Test),
        event: NotificationEvent::Test,
        backend: String::new(),
        kind: String::new(),
        vm: None,
        at: Timestamp::now(),
        since: None,
        resolved: Vec::new(),
        job: None,
        record: None,
        attempts: 0,
    };
    deliver(target, &Message::new(&notification, config)).await.map_err(|error| error.to_string())
}

/// The running deliveries.
struct Sender {
    ledger: Arc<Ledger>,
    config: Arc<Config>,
    deliveries: JoinSet<Result<(), DeliveryError>>,
    /// Their notifications, at most one for each target.
    running: HashMap<task::Id, QueuedNotification>,
    /// When targets may be tried again.
    retries: HashMap<String, Instant>,
    /// The targets and ids of delivered and dropped notifications, the oldest first. The ledger may have them still, because it
    /// could not remove them, or again.
    finished: VecDeque<(String, String)>,
}

impl Sender {
    fn new(ledger: Arc<Ledger>, config: Arc<Config>) -> Self {
        Self {
            ledger,
            config,
            deliveries: JoinSet::new(),
            running: HashMap::new(),
            retries: HashMap::new(),
            finished: VecDeque::new(),
        }
    }

    /// Applies `config`. Under a new one, all targets are tried at once.
    fn configure(&mut self, config: Arc<Config>) {
        if !Arc::ptr_eq(&self.config, &config) {
            self.retries.clear();
            self.config = config;
        }
    }

    /// Starts to deliver the first notification of each target that may be tried. Returns when to call this again.
    async fn send_due(&mut self) -> Instant {
        // Without a target, there is nothing to wait for but a reload.
        let limits = self.config.notify.iter().map(|target| target.stale_after.unwrap_or(CHECK_INTERVAL));
        let interval = limits.map(|limit| limit.min(CHECK_INTERVAL)).min().unwrap_or(MAX_AGE);
        let mut wake = Instant::now() + interval;
        // An unavailable ledger reports itself.
        for queued in self.ledger.first_notifications().await.unwrap_or_default() {
            if self.finished.iter().any(|(target, id)| *target == queued.target && *id == queued.id) {
                if self.ledger.remove_notification(&queued.target, &queued.id).await.is_ok() {
                    // The next one of the target is due.
                    wake = Instant::now();
                }
                continue;
            }
            let target = self.config.notify.iter().find(|target| target.name == queued.target);
            let Some(target) =
                target.filter(|_| self.running.values().all(|other| other.target != queued.target))
            else {
                continue;
            };
            if let Some(retry) = self.retries.get(&target.name).filter(|retry| **retry > Instant::now()) {
                wake = wake.min(*retry);
                continue;
            }
            let (target, config, notification) = (target.clone(), Arc::clone(&self.config), queued.clone());
            let delivery = self.deliveries.spawn(async move {
                deliver(&target, &Message::new(&notification, &config)).await.map(drop)
            });
            self.running.insert(delivery.id(), queued);
        }
        wake
    }

    /// Handles the result of a delivery.
    async fn end(&mut self, task: task::Id, result: Result<(), DeliveryError>) {
        let Some(QueuedNotification { target, id, attempts, .. }) = self.running.remove(&task) else {
            return;
        };
        self.retries.remove(&target);
        match result {
            Ok(()) => {
                NotificationSent { target: &target, id: &id }.emit();
                self.remove(target, id).await;
            }
            Err(DeliveryError::Refused(problem)) => {
                let reason = NotificationDropReason::Refused;
                NotificationsDropped { target: &target, count: 1, reason }.emit_with(Some(&problem));
                self.remove(target, id).await;
            }
            Err(DeliveryError::Transient { problem, retry_after }) => {
                let attempts = attempts.saturating_add(1);
                let retry = delay(attempts, retry_after, Uuid::new_v4().as_bytes()[0]);
                NotificationFailed { target: &target, id: &id, problem: &problem, attempts, retry }.emit();
                // The number of attempts determines delays only.
                let _ = self.ledger.count_attempt(&target, &id).await;
                self.retries.insert(target, Instant::now() + retry);
            }
        }
    }

    /// Removes a delivered or dropped notification. If that fails, it is removed later instead of being sent again.
    async fn remove(&mut self, target: String, id: String) {
        let _ = self.ledger.remove_notification(&target, &id).await;
        if self.finished.len() >= MAX_FINISHED * self.config.notify.len() {
            self.finished.pop_front();
        }
        self.finished.push_back((target, id));
    }
}

/// The delay after this number of failed attempts: half of a doubling time, and a share of the other half that `random`
/// determines, so that bridges do not retry all at once. A `Retry-After` makes it longer.
fn delay(attempts: u32, retry_after: Option<Duration>, random: u8) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(MAX_RETRY);
    let jittered = doubled.mul_f64(0.5 + f64::from(random) / 512.0);
    jittered.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}
