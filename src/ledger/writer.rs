//! The single writer: it receives the requests to the ledger in order, and runs them in batches.
//!
//! Blocking work runs on another thread, one batch at a time. Meanwhile new requests are received into [`Pending`],
//! so that the queue stays bounded, however long a disk hangs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::pending::Pending;
use super::store::{Store, StoreError};
use super::{Health, JobUpdate, LedgerUnavailable};
use crate::telemetry::{LedgerClosed, LedgerCommitFailed, LedgerCommitted, LedgerHealthChanged};

/// The delay before a failed write is retried.
const RETRY: Duration = Duration::from_secs(2);

/// How long a batch may take before the ledger counts as unavailable. It is longer than SQLite waits for a lock.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);
/// The interval between checks of the store.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// How long a query waits for its result.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of queued queries. Further ones are not answered.
const MAX_QUERIES: usize = 256;

/// The channel for the result of a write.
pub(super) type Reply = oneshot::Sender<Result<(), LedgerUnavailable>>;
/// A query of the store, or of the reason why it is not open.
pub(super) type Query = Box<dyn FnOnce(Result<&mut dyn Store, LedgerUnavailable>) + Send>;

/// A request to the ledger.
pub(super) enum WriterRequest {
    /// Write this update.
    Put(Box<JobUpdate>, Reply),
    /// Run this query, with all earlier updates visible.
    Query(Query),
    /// Write what is pending, and stop.
    Close,
}

/// A handle to the writer.
#[derive(Clone)]
pub(super) struct WriterHandle {
    pub(super) sender: mpsc::UnboundedSender<WriterRequest>,
    /// The location of the store, for messages.
    pub(super) place: String,
}

impl WriterHandle {
    /// Runs a query on the store, after all earlier updates.
    pub(super) fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LedgerUnavailable>> {
        let (answer, reply) = oneshot::channel();
        let query = move |store: Result<&mut dyn Store, LedgerUnavailable>| {
            let failed = |error: StoreError| LedgerUnavailable(error.to_string());
            let result = store.and_then(|store| query(store).map_err(failed));
            // The caller may have gone.
            drop(answer.send(result));
        };
        let reply = self.send(WriterRequest::Query(Box::new(query)), reply);
        let place = self.place.clone();
        let overdue = move |_| Err(LedgerUnavailable(format!("{place} has not answered in time")));
        async move { timeout(QUERY_TIMEOUT, reply).await.unwrap_or_else(overdue) }.boxed()
    }

    /// Sends the request at once, so that requests run in the order of the calls, even if their futures are dropped.
    pub(super) fn send<T: Send + 'static>(
        &self,
        request: WriterRequest,
        reply: oneshot::Receiver<Result<T, LedgerUnavailable>>,
    ) -> BoxFuture<'static, Result<T, LedgerUnavailable>> {
        let sent = self.sender.send(request);
        let place = self.place.clone();
        async move {
            sent.map_err(|_| LedgerUnavailable(format!("{place} is closed")))?;
            reply.await.map_err(|_| LedgerUnavailable(format!("{place} ended before it answered")))?
        }
        .boxed()
    }
}

/// The writer task.
pub(super) struct LedgerWriter {
    store: Arc<Mutex<dyn Store>>,
    requests: mpsc::UnboundedReceiver<WriterRequest>,
    health: watch::Sender<Health>,
    /// What the next batch will write.
    pending: Pending,
    /// The callers that wait for it.
    replies: Vec<Reply>,
    queries: Vec<Query>,
    /// When a failed write is retried.
    retry: Option<Instant>,
    /// When the running batch becomes overdue.
    overdue: Option<Instant>,
    /// The store is checked in the next batch.
    check_due: bool,
    closing: bool,
}

/// A finished batch.
struct BatchResult {
    /// The updates of the batch, if it had any to write.
    pending: Option<Arc<Pending>>,
    replies: Vec<Reply>,
    /// The result of the write, if there was one.
    written: Option<Result<(), StoreError>>,
    /// The duration of the write.
    duration: Duration,
}

impl LedgerWriter {
    pub(super) fn new(
        store: Arc<Mutex<dyn Store>>,
        pending: Pending,
        requests: mpsc::UnboundedReceiver<WriterRequest>,
        health: watch::Sender<Health>,
    ) -> Self {
        let unavailable = matches!(&*health.borrow(), Health::Unavailable(_));
        Self {
            store,
            requests,
            health,
            pending,
            replies: Vec::new(),
            queries: Vec::new(),
            retry: unavailable.then(|| Instant::now() + RETRY),
            overdue: None,
            check_due: false,
            closing: false,
        }
    }

    /// Runs until it is closed, or all handles are dropped.
    pub(super) async fn run(mut self) {
        let mut running: Option<BoxFuture<'static, BatchResult>> = None;
        let mut looks = interval(CHECK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if running.is_none() {
                running = self.begin();
                self.overdue = running.is_some().then(|| Instant::now() + OVERDUE_AFTER);
            }
            let idle = running.is_none();
            if idle && self.closing {
                break;
            }
            tokio::select! {
                request = self.requests.recv(), if !self.closing => {
                    self.take(request.unwrap_or(WriterRequest::Close));
                }
                done = ended(&mut running) => self.end(done),
                () = at(self.retry), if idle => self.retry = None,
                _ = looks.tick() => self.check_due = true,
                () = at(self.overdue), if !idle => {
                    self.overdue = None;
                    let timeout = humantime::format_duration(OVERDUE_AFTER);
                    self.set_health(Health::Unavailable(format!("the disk has not answered for {timeout}")));
                }
            }
        }
        self.shut_down().await;
    }

    fn take(&mut self, request: WriterRequest) {
        match request {
            WriterRequest::Put(entry, answer) => {
                self.pending.add(*entry);
                match self.problem() {
                    // The caller may have gone; the update is written all the same.
                    Some(problem) => drop(answer.send(Err(LedgerUnavailable(problem)))),
                    None => self.replies.push(answer),
                }
            }
            WriterRequest::Query(question) if self.queries.len() < MAX_QUERIES => self.queries.push(question),
            WriterRequest::Query(_) => {}
            WriterRequest::Close => self.closing = true,
        }
    }

    fn problem(&self) -> Option<String> {
        match &*self.health.borrow() {
            Health::Available => None,
            Health::Unavailable(problem) => Some(problem.clone()),
        }
    }

    /// Starts a batch of everything that is due, if there is anything.
    fn begin(&mut self) -> Option<BoxFuture<'static, BatchResult>> {
        while let Ok(request) = self.requests.try_recv() {
            self.take(request);
        }
        let problem = self.problem();
        let write = self.retry.is_none() && (problem.is_some() || !self.pending.is_empty());
        let look = std::mem::take(&mut self.check_due);
        if !write && !look && self.queries.is_empty() {
            return None;
        }
        let pending = write.then(|| Arc::new(self.pending.take()));
        let answers = if write { std::mem::take(&mut self.replies) } else { Vec::new() };
        let questions = std::mem::take(&mut self.queries);
        let (store, batch) = (self.store.clone(), pending.clone());
        let task = spawn_blocking(move || {
            with_store(&store, |store| {
                let began = Instant::now();
                let written = match batch {
                    // A write to a database that was deleted must not be reported as successful.
                    Some(batch) => {
                        Some(store.check().and_then(|()| store.open()).and_then(|()| store.write(&batch)))
                    }
                    None => store.check().err().map(Err),
                };
                let duration = began.elapsed();
                let failed = written.as_ref().and_then(|written| written.as_ref().err());
                let problem = failed.map(StoreError::to_string).or(problem);
                for query in questions {
                    query(match &problem {
                        Some(problem) if !store.is_open() => Err(LedgerUnavailable(problem.clone())),
                        _ => Ok(store),
                    });
                }
                (written, duration)
            })
        });
        Some(Box::pin(async move {
            // The panic hook of the process has logged the details.
            let panicked = |error| {
                let failed = StoreError::Transient(format!("something panicked: {error}"));
                (Some(Err(failed)), Duration::ZERO)
            };
            let (written, duration) = task.await.unwrap_or_else(panicked);
            BatchResult { pending, replies: answers, written, duration }
        }))
    }

    /// Publishes the result of a batch, and keeps the updates that were not written.
    fn end(&mut self, BatchResult { pending, replies: answers, written, duration }: BatchResult) {
        match written {
            None => {}
            Some(Ok(())) => {
                let jobs = pending.map_or(0, |pending| pending.len());
                LedgerCommitted { duration, jobs }.emit();
                self.set_health(Health::Available);
                answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
            }
            Some(Err(error)) => {
                let problem = error.to_string();
                if let Some(pending) = pending {
                    LedgerCommitFailed { problem: &problem, jobs: pending.len() }.emit();
                    self.pending.restore(Arc::unwrap_or_clone(pending));
                }
                let is_lost = matches!(error, StoreError::Lost(_));
                self.retry = (!is_lost).then(|| Instant::now() + RETRY);
                self.set_health(Health::Unavailable(problem.clone()));
                // Later callers would otherwise wait for a batch that is not due soon.
                for answer in answers.into_iter().chain(std::mem::take(&mut self.replies)) {
                    drop(answer.send(Err(LedgerUnavailable(problem.clone()))));
                }
            }
        }
    }

    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            if changed {
                publish(&health);
                *current = health;
            }
            changed
        });
    }

    /// Makes a last attempt to write what is pending, and closes the store.
    async fn shut_down(mut self) {
        self.requests.close();
        self.retry = None;
        if let Some(batch) = self.begin() {
            self.end(batch.await);
        }
        let unwritten = self.pending.len();
        let store = self.store;
        // A panic here has no further consequence.
        let _ = spawn_blocking(move || with_store(&store, |store| store.close())).await;
        LedgerClosed { unwritten }.emit();
    }
}

/// Logs and counts the published health.
pub(super) fn publish(health: &Health) {
    let problem = match health {
        Health::Available => None,
        Health::Unavailable(problem) => Some(problem.as_str()),
    };
    LedgerHealthChanged { problem }.emit();
}

/// Runs `work` on the store. After a panic its connection is dropped, because its state is unknown.
pub(super) fn with_store<T>(store: &Mutex<dyn Store>, work: impl FnOnce(&mut dyn Store) -> T) -> T {
    let mut store = store.lock().unwrap_or_else(|poisoned| {
        let mut inner = poisoned.into_inner();
        inner.disconnect();
        store.clear_poison();
        inner
    });
    work(&mut *store)
}

/// Waits for the end of the running batch; pends forever if there is none.
async fn ended(running: &mut Option<BoxFuture<'static, BatchResult>>) -> BatchResult {
    match running {
        Some(batch) => {
            let done = batch.await;
            *running = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Waits until `time`; pends forever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
