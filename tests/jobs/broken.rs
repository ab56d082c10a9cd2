//! A job whose own code panics: it ends for its readers, in its record and on its backend.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proxbox_bridge::backend::{Backend, RequestIdentity};
use proxbox_bridge::core::domain::kind::{Kind, SyncEndpoint};
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::job::{AttachOptions, Attached, EventSelection, Registry, SyncRequest};
use proxbox_bridge::ledger::JobId;
use tokio::time::Instant;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::ledger;
use crate::support::bridge::config;
use crate::support::manual::ManualBackend;
use crate::support::session::stream;

/// A subscriber that panics once, in the code of the job that logs `message`.
struct PanickingSubscriber {
    message: &'static str,
    is_set: AtomicBool,
}

impl Subscriber for PanickingSubscriber {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut is_it = false;
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            is_it |= field.name() == "message" && format!("{value:?}") == self.message;
        });
        assert!(!(is_it && self.is_set.swap(false, Ordering::Relaxed)), "the trap of the test");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn request(backend: &Arc<Backend>) -> SyncRequest {
    SyncRequest {
        backend: Arc::clone(backend),
        endpoint: SyncEndpoint::for_kind(Kind::Devices),
        query: String::new(),
        selection: EventSelection::default(),
        over_socket: false,
        to_stream: true,
        identity: RequestIdentity::default(),
        address: None,
        actor: None,
    }
}

/// The id of the next job, and all that its reader receives.
async fn watched(registry: &Arc<Registry>, backend: &Arc<Backend>) -> (JobId, String) {
    let entered = registry.attach(request(backend), AttachOptions::default()).await.unwrap();
    let Attached::Watching(mut watching) = entered else { panic!("{entered:?}") };
    let mut text = String::new();
    while let Some(batch) = watching.cursor.next().await {
        text.extend(batch.frames.iter().map(|frame| std::str::from_utf8(&frame.frame.bytes).unwrap()));
    }
    (watching.job.id, text)
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_own_code_fails_ends_for_its_readers_in_the_record_and_on_its_backend() {
    for (at_end, fails) in [(false, false), (true, false), (true, true)] {
        // A backend that continues for a while after a disconnect.
        let mut manual = ManualBackend::with_release("0.0.6.post4").await;
        let config = Arc::new(config(manual.address, &[]));
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path()).await;
        let message = match (at_end, fails) {
            (false, _) => "Frames received.",
            (true, false) => "Job completed.",
            (true, true) => "Job failed.",
        };
        let trap = Dispatch::new(PanickingSubscriber { message, is_set: AtomicBool::new(true) });
        // If there is one dispatcher alone, the first thread that logs an event decides who gets it.
        let _another = Dispatch::new(NoSubscriber::default());
        let _default = tracing::dispatcher::set_default(&trap);
        let registry = Registry::new(Arc::clone(&config), Arc::clone(&ledger));
        let backend = Arc::new(Backend::new(config.backends[0].clone()).unwrap());
        let backend_side = async {
            let mut stream = manual.next_stream().await;
            stream.device("pve1", "completed").await;
            match (at_end, fails) {
                (false, _) => return Some(stream),
                (true, false) => stream.complete().await,
                (true, true) => stream.fail().await,
            }
            None
        };
        let ((job, text), _stream) = tokio::join!(watched(&registry, &backend), backend_side);
        let events = stream::read(text.as_bytes());
        let [.., error, complete] = events.as_slice() else { panic!("{text}") };
        assert_eq!((error.name.as_str(), complete.data["ok"].as_bool()), ("error", Some(false)), "{text}");
        assert_eq!(text.contains("The bridge failed in the middle of this job."), !fails, "{text}");
        let record = ledger.job(job).await.unwrap().unwrap();
        let end = record.end.unwrap();
        // A failure of the backend stays the cause.
        let expected = match fails {
            false => (Outcome::Interrupted, Cause::Crashed),
            true => (Outcome::Errored, Cause::BackendFailed),
        };
        assert_eq!((end.outcome, end.cause), (expected.0, Some(expected.1)), "{at_end}");

        let began = Instant::now();
        let next = async { manual.next_stream().await.complete().await };
        let ((_, text), ()) = tokio::join!(watched(&registry, &backend), next);
        assert!(text.contains("\"ok\": true"), "{text}");
        let waited = if at_end && !fails { 0..2 } else { 10..40 };
        assert!(waited.contains(&began.elapsed().as_secs()), "{at_end}: {:?}", began.elapsed());
        registry.close().await;
    }
}
