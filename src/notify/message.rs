//! The text of a notification.

use serde_json::{Value, json};

use crate::config::Config;
use crate::core::domain::counts::Count;
use crate::core::domain::notification::NotificationEvent;
use crate::core::domain::outcome::Cause;
use crate::core::text::plain;
use crate::ledger::{QueuedNotification, Record};

/// The longest description of a failure, in characters.
const MAX_DETAIL: usize = 500;

/// A notification, with what its texts are made of. Secrets are redacted in the record of the job already.
pub(super) struct Message<'a> {
    /// The notification.
    pub(super) notification: &'a QueuedNotification,
    /// The name of the backend.
    pub(super) backend: String,
    /// The URL of the job on the page of the admin listener, if that is known.
    pub(super) link: Option<String>,
}

impl<'a> Message<'a> {
    /// The message of `notification` under `config`.
    pub(super) fn new(notification: &'a QueuedNotification, config: &Config) -> Self {
        let configured =
            config.backends.iter().find(|backend| backend.url.to_string() == notification.backend);
        let backend = configured.map_or_else(|| notification.backend.clone(), |backend| backend.name.clone());
        let page = config.admin_url.as_ref().map(|url| url.expose());
        let link = page.map(|page| {
            let page = page.trim_end_matches('/');
            notification.job.map_or_else(|| format!("{page}/"), |job| format!("{page}/#/jobs/{job}"))
        });
        Self { notification, backend, link }
    }

    /// One line without a full stop, in ASCII.
    pub(super) fn title(&self) -> String {
        let QueuedNotification { event, kind, vm, .. } = self.notification;
        let vm = vm.map(|vm| format!(" (virtual machine {vm})")).unwrap_or_default();
        let sync = format!("Sync {kind}{vm} on {}", self.backend);
        match event {
            NotificationEvent::Failed => format!("{sync} failed"),
            NotificationEvent::ObjectsFailed => {
                let failed = self.objects().failed;
                format!("{sync} completed with {failed} failed object{}", if failed == 1 { "" } else { "s" })
            }
            NotificationEvent::Interrupted => format!("{sync} was interrupted"),
            NotificationEvent::Recovered => format!("{sync} has recovered"),
            NotificationEvent::Stale => match self.notification.since {
                Some(since) => format!("{sync} has not completed since {since}"),
                None => format!("{sync} has never completed"),
            },
            NotificationEvent::Test => "Test of notifications from proxbox-bridge".to_owned(),
        }
    }

    /// What there is to know beside the title, one sentence a line.
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(end) = self.record().and_then(|record| record.end.as_ref()) {
            let cause = end.cause.map(|cause| format!(", cause {cause}")).unwrap_or_default();
            lines.push(format!("Outcome {}{cause}.", end.outcome));
            lines.extend(self.detail());
            let Count { seen, completed, failed, unconfirmed } = self.objects();
            let counts = format!("{completed} completed, {failed} failed, {unconfirmed} unconfirmed");
            lines.push(format!("Objects: {seen} seen, {counts}."));
        }
        match (&self.link, self.notification.job) {
            (Some(link), Some(_)) => lines.push(format!("Job: {link}")),
            (None, Some(job)) => lines.push(format!("Job: {job}")),
            (Some(link), None) => lines.push(link.clone()),
            (None, None) => {}
        }
        lines.join("\n")
    }

    /// The notification as JSON.
    pub(super) fn data(&self) -> Value {
        let QueuedNotification { event, backend, kind, vm, at, since, resolved, job, record, .. } =
            self.notification;
        let end = record.as_ref().and_then(|record| record.end.as_ref());
        let Count { seen, completed, failed, unconfirmed } = self.objects();
        json!({
            "event": event,
            "title": self.title(),
            "text": self.text(),
            "backend": self.backend,
            "backend_url": backend,
            "kind": kind,
            "vm": vm,
            "time": at.to_string(),
            "since": since.map(|since| since.to_string()),
            "job": job.map(|job| json!({
                "id": job.to_string(),
                "url": self.link,
                "outcome": end.map(|end| end.outcome),
                "cause": end.and_then(|end| end.cause),
                "source": end.and_then(|end| end.cause).map(Cause::source),
                "detail": self.detail(),
                "objects": end.map(|_| json!({
                    "seen": seen, "completed": completed, "failed": failed, "unconfirmed": unconfirmed,
                })),
            })),
            "resolved": resolved.iter().map(|problem| &problem.event).collect::<Vec<_>>(),
        })
    }

    fn record(&self) -> Option<&Record> {
        self.notification.record.as_ref()
    }

    fn objects(&self) -> Count {
        self.record().map(|record| record.progress.counts.total()).unwrap_or_default()
    }

    fn detail(&self) -> Option<String> {
        let failure = self.record()?.end.as_ref()?.failure.as_ref()?;
        Some(plain(&failure.detail, MAX_DETAIL).into_owned()).filter(|detail| !detail.is_empty())
    }
}
