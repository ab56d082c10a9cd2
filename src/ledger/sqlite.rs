//! A ledger in one file of SQLite.
//!
//! | part | what it is |
//! |---|---|
//! | [`actor`] | the one writer, which gathers what comes into transactions |
//! | [`pending`] | what is yet to be written |
//! | [`store`] | the file, its lock and its connection |
//! | [`schema`] | the tables |
//! | [`rows`], [`queries`] | records in them |
//! | [`damage`] | rows that cannot be read |
//! | [`mod@inspect`] | what can be said of the file without opening the ledger |
//! | [`interrupted`], [`clean`] | what the last process left, and what is too old |
//! | [`aging`] | the time by which that is too old |

mod actor;
mod damage;
mod inspect;
mod pending;
mod queries;
mod record_clock;
mod recovery;
mod retention;
mod rows;
mod schema;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Cleaned, Cleaning, Entry, Filter, Health, JobId, Ledger, Lost, Options, Record, Retention, StoredFrame,
    Timestamp, Unavailable,
};
pub use inspect::{has_ledger, inspect};

use actor::{Actor, Request};
use damage::Damage;
use pending::Pending;
use record_clock::Aging;
use rows::Unreadable;
use store::{Secrets, Store, Trouble};

/// Why a ledger is not opened. Waiting does not help: somebody has to do something about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, and would be told that its jobs have ended.
    #[error("another bridge is using {}: stop it, or set another data_dir", .directory.display())]
    Held {
        /// Where it is.
        directory: PathBuf,
    },
    /// A later release wrote it.
    #[error(
        "{} was written by a newer bridge (version {found} of the tables; this bridge knows {known}): \
         use that bridge again, or set another data_dir",
        .file.display()
    )]
    Newer {
        /// Its file.
        file: PathBuf,
        /// The version of its tables.
        found: i64,
        /// The newest version that this bridge knows.
        known: i64,
    },
}

/// A ledger in one file of SQLite, or in memory.
pub struct Sqlite {
    requests: Requests,
    never_worked: Option<String>,
    health: watch::Receiver<Health>,
    lost: watch::Receiver<Option<Lost>>,
    secrets: Secrets,
    aging: Aging,
    damage: Damage,
    in_memory: bool,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

/// `retention` as it is configured; what is in memory alone is kept for less, and all that is due goes
/// at once.
fn kept_for(retention: Retention, in_memory: bool) -> Retention {
    if !in_memory {
        return retention;
    }
    let Retention { jobs, logs, .. } = retention;
    Retention { jobs: jobs.min(JOBS_IN_MEMORY), logs: logs.min(LOGS_IN_MEMORY), share: 100, ..retention }
}

impl Sqlite {
    /// Opens the ledger, or makes it. One that cannot be opened now is there all the same, as
    /// unavailable, and opened as soon as that is possible.
    ///
    /// What an earlier process left without an end has one from then on.
    ///
    /// # Errors
    ///
    /// [`OpenError`], if another bridge uses it, or a newer one wrote it.
    pub async fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let Options { directory, retention, mut log_frames, clock } = options;
        let in_memory = directory.is_none();
        if in_memory {
            log_frames = log_frames.min(FRAMES_IN_MEMORY);
        }
        let aging = Aging::new(clock, kept_for(retention, in_memory));
        let (loses, lost) = watch::channel(None);
        let wanted = directory.clone();
        let store = Store::new(directory, log_frames, random(), aging.clone(), loses);
        let place = store.place();
        let store = Arc::new(Mutex::new(store));
        let opening = store.clone();
        let opened = spawn_blocking(move || actor::with(&opening, |store| store.open().map(|_| ()))).await;
        let health = match opened {
            Ok(Ok(())) => Health::Available,
            Ok(Err(Trouble::Lasting(error))) => return Err(error),
            Ok(Err(Trouble::Passing(problem))) => Health::Unavailable(problem),
            Err(error) => Health::Unavailable(format!("{place}: something panicked: {error}")),
        };
        let secrets = actor::with(&store, |store| store.secrets.clone());
        let never_worked = match &health {
            Health::Unavailable(problem) if wanted.is_some_and(|directory| !has_ledger(&directory)) => {
                Some(problem.clone())
            }
            _ => None,
        };
        actor::publish(&health);
        let (requests, queue) = mpsc::unbounded_channel();
        let (publisher, health) = watch::channel(health);
        let actor = Actor::new(store, Pending::new(log_frames), queue, publisher);
        let task = Arc::new(tokio::sync::Mutex::new(Some(tokio::spawn(actor.run()))));
        let requests = Requests { requests, place };
        let damage = Damage::default();
        Ok(Arc::new(Self { requests, health, lost, secrets, aging, damage, in_memory, never_worked, task }))
    }
}

impl Sqlite {
    /// Why it could not be opened, if its directory holds no ledger of an earlier process either.
    pub fn never_worked(&self) -> Option<&str> {
        self.never_worked.as_deref()
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("place", &self.requests.place).finish_non_exhaustive()
    }
}

impl Ledger for Sqlite {
    fn put(&self, entry: Entry) -> BoxFuture<'static, Result<(), Unavailable>> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Put(Box::new(entry), answer), answered)
    }

    fn job(&self, id: JobId) -> BoxFuture<'static, Result<Option<Record>, Unavailable>> {
        self.requests.ask(move |connection| queries::job(connection, id))
    }

    fn jobs(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        let damage = self.damage.clone();
        self.requests.ask(move |connection| queries::jobs(connection, &filter, &damage))
    }

    fn frames(&self, id: JobId, after: u64) -> BoxFuture<'static, Result<Vec<StoredFrame>, Unavailable>> {
        let damage = self.damage.clone();
        self.requests.ask(move |connection| queries::frames(connection, (id, after), &damage))
    }

    fn cooling_down(&self, now: Timestamp) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        let damage = self.damage.clone();
        self.requests.ask(move |connection| queries::cooling_down(connection, now, &damage))
    }

    fn without_log(
        &self,
        jobs: Vec<JobId>,
        cleaning: Cleaning,
    ) -> BoxFuture<'static, Result<Vec<JobId>, Unavailable>> {
        let (aging, lost) = (self.aging.clone(), self.lost.clone());
        self.requests.ask(move |connection| {
            let most = match cleaning {
                _ if lost.borrow().is_some() => 0,
                Cleaning::Usual => retention::share_of(jobs.len(), aging.retention().share),
                Cleaning::Ordered => jobs.len(),
            };
            Ok(retention::without_log(connection, &aging, &jobs, most)?)
        })
    }

    fn keep_for(&self, retention: Retention) {
        self.aging.keep_for(kept_for(retention, self.in_memory));
    }

    fn clean(&self, cleaning: Cleaning) -> BoxFuture<'static, Result<Cleaned, Unavailable>> {
        let (requests, aging) = (self.requests.clone(), self.aging.clone());
        async move {
            let mut all = Cleaned::default();
            let plan =
                requests.ask(move |connection| Ok(retention::plan(connection, &aging, cleaning)?)).await?;
            let plan = match plan {
                Ok(plan) => plan,
                Err(held) => return Ok(Cleaned { held: Some(held), ..all }),
            };
            let mut rest = Some(plan);
            while let Some(plan) = rest {
                let step = requests.ask(move |connection| Ok(retention::step(connection, plan)?)).await?;
                all.jobs.extend(step.cleaned.jobs);
                all.logs.extend(step.cleaned.logs);
                rest = step.rest;
            }
            all.left = requests.ask(move |connection| Ok(retention::left(connection, plan)?)).await?;
            Ok(all)
        }
        .boxed()
    }

    fn cleaning_held(&self) -> Option<String> {
        self.aging.held()
    }

    fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.lost.clone()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn secret(&self) -> [u8; 32] {
        self.secrets.all().first().copied().unwrap_or_default()
    }

    fn secrets(&self) -> Vec<[u8; 32]> {
        self.secrets.all()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        // This fails if it is closed already. Whoever closes it twice waits for the first time.
        let _ = self.requests.requests.send(Request::Close);
        let task = self.task.clone();
        async move {
            let mut task = task.lock().await;
            if let Some(task) = task.take() {
                // It fails by a panic alone, and that was reported where it happened.
                let _ = task.await;
            }
        }
        .boxed()
    }
}

/// How long a question waits for its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// What is kept in memory alone is kept for less: frames, and all else.
const LOGS_IN_MEMORY: Duration = Duration::from_secs(60 * 60);
const JOBS_IN_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many frames of a job.
const FRAMES_IN_MEMORY: usize = 200;

/// The way to the writer.
#[derive(Clone)]
struct Requests {
    requests: mpsc::UnboundedSender<Request>,
    /// The name of the file, for messages.
    place: String,
}

impl Requests {
    /// Does something with the connection, after everything that was put before.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> Result<T, Unreadable> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Unavailable>> {
        let (answer, answered) = oneshot::channel();
        let place = self.place.clone();
        let question = move |connection: Result<&mut Connection, Unavailable>| {
            let found = connection.and_then(|connection| {
                question(connection).map_err(|error| Unavailable(format!("{place}: {error}")))
            });
            // Whoever asked may be gone.
            drop(answer.send(found));
        };
        let answered = self.send(Request::Ask(Box::new(question)), answered);
        let place = self.place.clone();
        let overdue = move |_| Err(Unavailable(format!("{place} has not answered in time")));
        async move { timeout(ANSWER, answered).await.unwrap_or_else(overdue) }.boxed()
    }

    /// Sends at once, so that what is asked is done in the order of the calls, and also if nobody waits
    /// for the answer.
    fn send<T: Send + 'static>(
        &self,
        request: Request,
        answered: oneshot::Receiver<Result<T, Unavailable>>,
    ) -> BoxFuture<'static, Result<T, Unavailable>> {
        let sent = self.requests.send(request);
        let place = self.place.clone();
        async move {
            sent.map_err(|_| Unavailable(format!("{place} is closed")))?;
            answered.await.map_err(|_| Unavailable(format!("{place} ended before it answered")))?
        }
        .boxed()
    }
}

/// What nobody can guess: all but twelve of these bits are random.
fn random() -> [u8; 32] {
    let mut random = [0; 32];
    let (first, second) = random.split_at_mut(16);
    first.copy_from_slice(Uuid::new_v4().as_bytes());
    second.copy_from_slice(Uuid::new_v4().as_bytes());
    random
}
