//! The one writer: it takes what is asked of the ledger, in order, and runs it in batches.
//!
//! What blocks runs on another thread, one batch at a time. Meanwhile everything that comes is taken in,
//! so that what waits stays within the bounds of [`Pending`], however long a disk hangs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::pending::Pending;
use super::store::{Store, WriteError};
use crate::ledger::{Entry, Health, Unavailable};
use crate::telemetry::{LedgerClosed, LedgerCommitFailed, LedgerCommitted, LedgerHealth};

/// How long it takes until what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How long a batch may take until the ledger counts as unavailable: longer than SQLite waits for a lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether the file is the one that was opened, and whether the clock is to be believed.
const LOOK: Duration = Duration::from_secs(15);
/// How many questions wait at most. Those that come then are not answered.
const QUESTIONS: usize = 256;

/// What is told whoever wrote something.
pub(super) type Answer = oneshot::Sender<Result<(), Unavailable>>;
/// Something to be done with the connection, or without if there is none.
pub(super) type Question = Box<dyn FnOnce(Result<&mut Connection, Unavailable>) + Send>;

/// What is asked of the ledger.
pub(super) enum Request {
    /// Write this.
    Put(Box<Entry>, Answer),
    /// Answer this, with everything in it that was put before.
    Ask(Question),
    /// Write what is left, and end.
    Close,
}

/// Who does it.
pub(super) struct Actor {
    store: Arc<Mutex<Store>>,
    requests: mpsc::UnboundedReceiver<Request>,
    health: watch::Sender<Health>,
    /// What is to be written in the next batch.
    pending: Pending,
    /// Who waits for that.
    answers: Vec<Answer>,
    questions: Vec<Question>,
    /// When writing is tried again, if it has failed.
    retry: Option<Instant>,
    /// When the batch that runs has taken too long.
    overdue: Option<Instant>,
    /// The files are to be looked at in the next batch.
    look: bool,
    closing: bool,
}

/// A batch that has been run.
struct Done {
    /// What it was to write, if it was to write at all.
    pending: Option<Arc<Pending>>,
    answers: Vec<Answer>,
    /// Whether it could.
    written: Option<Result<(), WriteError>>,
    /// How long that took.
    duration: Duration,
}

impl Actor {
    pub(super) fn new(
        store: Arc<Mutex<Store>>,
        pending: Pending,
        requests: mpsc::UnboundedReceiver<Request>,
        health: watch::Sender<Health>,
    ) -> Self {
        let unavailable = matches!(&*health.borrow(), Health::Unavailable(_));
        Self {
            store,
            requests,
            health,
            pending,
            answers: Vec::new(),
            questions: Vec::new(),
            retry: unavailable.then(|| Instant::now() + RETRY),
            overdue: None,
            look: false,
            closing: false,
        }
    }

    /// Works until it is told to close, or nobody is left to tell it.
    pub(super) async fn run(mut self) {
        let mut running: Option<BoxFuture<'static, Done>> = None;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if running.is_none() {
                running = self.begin();
                self.overdue = running.is_some().then(|| Instant::now() + PATIENCE);
            }
            let idle = running.is_none();
            if idle && self.closing {
                break;
            }
            tokio::select! {
                request = self.requests.recv(), if !self.closing => {
                    self.take(request.unwrap_or(Request::Close));
                }
                done = ended(&mut running) => self.end(done),
                () = at(self.retry), if idle => self.retry = None,
                _ = looks.tick() => self.look = true,
                () = at(self.overdue), if !idle => {
                    self.overdue = None;
                    let patience = humantime::format_duration(PATIENCE);
                    self.now(Health::Unavailable(format!("the disk has not answered for {patience}")));
                }
            }
        }
        self.last().await;
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Put(entry, answer) => {
                self.pending.add(*entry);
                match self.problem() {
                    // The one who asked may be gone, and it is written all the same.
                    Some(problem) => drop(answer.send(Err(Unavailable(problem)))),
                    None => self.answers.push(answer),
                }
            }
            Request::Ask(question) if self.questions.len() < QUESTIONS => self.questions.push(question),
            Request::Ask(_) => {}
            Request::Close => self.closing = true,
        }
    }

    fn problem(&self) -> Option<String> {
        match &*self.health.borrow() {
            Health::Available => None,
            Health::Unavailable(problem) => Some(problem.clone()),
        }
    }

    /// Sets everything in motion that is there to be done, if there is anything.
    fn begin(&mut self) -> Option<BoxFuture<'static, Done>> {
        while let Ok(request) = self.requests.try_recv() {
            self.take(request);
        }
        let problem = self.problem();
        let write = self.retry.is_none() && (problem.is_some() || !self.pending.is_empty());
        let look = std::mem::take(&mut self.look);
        if !write && !look && self.questions.is_empty() {
            return None;
        }
        let pending = write.then(|| Arc::new(self.pending.take()));
        let answers = if write { std::mem::take(&mut self.answers) } else { Vec::new() };
        let questions = std::mem::take(&mut self.questions);
        let (store, batch) = (self.store.clone(), pending.clone());
        let task = spawn_blocking(move || {
            with(&store, |store| {
                let began = Instant::now();
                let written = match batch {
                    Some(batch) => Some(store.write(&batch)),
                    None => store.look().err().map(Err),
                };
                let duration = began.elapsed();
                let problem = match &written {
                    Some(Err(WriteError::Failed(problem) | WriteError::Lost(problem))) => {
                        Some(problem.clone())
                    }
                    _ => problem,
                };
                for question in questions {
                    let none = || Unavailable(problem.clone().unwrap_or_else(|| "it is not open".to_owned()));
                    question(store.connection().ok_or_else(none));
                }
                (written, duration)
            })
        });
        Some(Box::pin(async move {
            // The hook of the process has said more about a panic than is known here.
            let panicked = |error| {
                let failed = WriteError::Failed(format!("something panicked: {error}"));
                (Some(Err(failed)), Duration::ZERO)
            };
            let (written, duration) = task.await.unwrap_or_else(panicked);
            Done { pending, answers, written, duration }
        }))
    }

    /// Says how a batch went, and keeps what it could not write.
    fn end(&mut self, Done { pending, answers, written, duration }: Done) {
        match written {
            None => {}
            Some(Ok(())) => {
                let jobs = pending.map_or(0, |pending| pending.len());
                LedgerCommitted { duration, jobs }.emit();
                self.now(Health::Available);
                answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
            }
            Some(Err(error)) => {
                let (problem, retry) = match error {
                    WriteError::Failed(problem) => (problem, Some(Instant::now() + RETRY)),
                    WriteError::Lost(problem) => (problem, None),
                };
                if let Some(pending) = pending {
                    LedgerCommitFailed { problem: &problem, jobs: pending.len() }.emit();
                    self.pending.restore(Arc::unwrap_or_clone(pending));
                }
                self.retry = retry;
                self.now(Health::Unavailable(problem.clone()));
                // Those who came while it was tried would wait for a batch that is not coming soon.
                for answer in answers.into_iter().chain(std::mem::take(&mut self.answers)) {
                    drop(answer.send(Err(Unavailable(problem.clone()))));
                }
            }
        }
    }

    fn now(&self, health: Health) {
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            if changed {
                publish(&health);
                *known = health;
            }
            changed
        });
    }

    /// Tries once more to write what is left, and closes the file.
    async fn last(mut self) {
        self.requests.close();
        self.retry = None;
        if let Some(batch) = self.begin() {
            self.end(batch.await);
        }
        let unwritten = self.pending.len();
        let store = self.store;
        // If this panics there is nothing left to be done about it.
        let _ = spawn_blocking(move || with(&store, Store::close)).await;
        LedgerClosed { unwritten }.emit();
    }
}

/// Logs and counts what is published.
pub(super) fn publish(health: &Health) {
    let problem = match health {
        Health::Available => None,
        Health::Unavailable(problem) => Some(problem.as_str()),
    };
    LedgerHealth { problem }.emit();
}

/// Does something with the store. After a panic in the middle of something, its connection is not
/// trusted any more.
pub(super) fn with<T>(store: &Mutex<Store>, work: impl FnOnce(&mut Store) -> T) -> T {
    let mut store = store.lock().unwrap_or_else(|poisoned| {
        let mut inner = poisoned.into_inner();
        inner.suspect();
        store.clear_poison();
        inner
    });
    work(&mut store)
}

/// Waits for the end of the batch that runs; for ever if none does.
async fn ended(running: &mut Option<BoxFuture<'static, Done>>) -> Done {
    match running {
        Some(batch) => {
            let done = batch.await;
            *running = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Waits until that time; for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
