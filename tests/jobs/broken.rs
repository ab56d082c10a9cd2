//! A job whose own code fails: it ends all the same, for its readers, in the record and on its backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use proxbox_bridge::backend::{Backend, RequestIdentity};
use proxbox_bridge::core::domain::kind::{Kind, SyncEndpoint};
use proxbox_bridge::core::domain::outcome::{Cause, Outcome};
use proxbox_bridge::job::{AttachOptions, Attached, EventSelection, Registry, SyncRequest};
use proxbox_bridge::ledger::{
    Cleaning, CleaningResult, Health, JobFilter, JobId, JobUpdate, Ledger, LedgerLoss, LedgerUnavailable,
    LoggedFrame, Record, Retention, Sqlite, Timestamp,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger;
use crate::support::bridge::config;
use crate::support::manual::ManualBackend;
use crate::support::session::stream;

/// A ledger that panics once, in the code of the job that writes into it.
#[derive(Debug)]
struct Trap {
    ledger: Arc<Sqlite>,
    is_set: AtomicBool,
    /// It panics at the end of the job, and not in the middle.
    at_end: bool,
}

impl Ledger for Trap {
    fn put(&self, entry: JobUpdate) -> BoxFuture<'static, Result<(), LedgerUnavailable>> {
        let is_it = if self.at_end { entry.record.end.is_some() } else { !entry.frames.is_empty() };
        assert!(!(is_it && self.is_set.swap(false, Ordering::Relaxed)), "the trap of the test");
        self.ledger.put(entry)
    }

    fn job(&self, id: JobId) -> BoxFuture<'static, Result<Option<Record>, LedgerUnavailable>> {
        self.ledger.job(id)
    }

    fn jobs(&self, filter: JobFilter) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>> {
        self.ledger.jobs(filter)
    }

    fn frames(
        &self,
        id: JobId,
        after: u64,
    ) -> BoxFuture<'static, Result<Vec<LoggedFrame>, LedgerUnavailable>> {
        self.ledger.frames(id, after)
    }

    fn cooling_down(&self, now: Timestamp) -> BoxFuture<'static, Result<Vec<Record>, LedgerUnavailable>> {
        self.ledger.cooling_down(now)
    }

    fn without_log(
        &self,
        jobs: Vec<JobId>,
        how: Cleaning,
    ) -> BoxFuture<'static, Result<Vec<JobId>, LedgerUnavailable>> {
        self.ledger.without_log(jobs, how)
    }

    fn clean(&self, how: Cleaning) -> BoxFuture<'static, Result<CleaningResult, LedgerUnavailable>> {
        self.ledger.clean(how)
    }

    fn set_retention(&self, retention: Retention) {
        self.ledger.set_retention(retention);
    }

    fn cleaning_held(&self) -> Option<String> {
        self.ledger.cleaning_held()
    }

    fn lost(&self) -> watch::Receiver<Option<LedgerLoss>> {
        self.ledger.lost()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.ledger.health()
    }

    fn secret(&self) -> [u8; 32] {
        self.ledger.secret()
    }

    fn secrets(&self) -> Vec<[u8; 32]> {
        self.ledger.secrets()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.ledger.close()
    }
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

/// Everything that a reader of the next job is given.
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
        // A backend that goes on for a while when it is let go of.
        let mut puppet = ManualBackend::with_release("0.0.6.post4").await;
        let config = Arc::new(config(puppet.address, &[]));
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path()).await;
        let trap = Trap { ledger: Arc::clone(&ledger), is_set: AtomicBool::new(true), at_end };
        let registry = Registry::new(Arc::clone(&config), Arc::new(trap));
        let backend = Arc::new(Backend::new(config.backends[0].clone()).unwrap());
        let play = async {
            let mut played = puppet.played().await;
            played.device("pve1", "completed").await;
            match (at_end, fails) {
                (false, _) => return Some(played),
                (true, false) => played.complete().await,
                (true, true) => played.fail().await,
            }
            None
        };
        let ((job, text), _played) = tokio::join!(watched(&registry, &backend), play);
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
        let next = async { puppet.played().await.complete().await };
        let ((_, text), ()) = tokio::join!(watched(&registry, &backend), next);
        assert!(text.contains("\"ok\": true"), "{text}");
        let waited = if at_end && !fails { 0..2 } else { 10..40 };
        assert!(waited.contains(&began.elapsed().as_secs()), "{at_end}: {:?}", began.elapsed());
        registry.close().await;
    }
}
