//! A job, as those see it who watch it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::Span;

use super::concurrency::Place;
use super::log::{Cursor, FIRST, Log};
use super::request::{Key, Request};
use crate::backend::BackendId;
use crate::config::Config;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::text::redact::Redactor;
use crate::core::wire::sse::encoder::is_extra;
use crate::ledger::{JobId, Record, StoredFrame, Timestamp};
use crate::telemetry;

/// A job, whether it waits, runs, or has ended.
#[derive(Debug)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What it does, for whom.
    pub key: Key,
    /// Where it runs.
    pub(super) backend: BackendId,
    /// The configuration that was in force when it was asked for, and is for it until it ends.
    pub(super) config: Arc<Config>,
    /// What its watchers are given.
    pub log: Arc<Log>,
    /// What the first client wanted to have kept.
    pub kept: Kept,
    started: watch::Sender<Option<Started>>,
    stop: watch::Sender<Option<Cause>>,
    watchers: watch::Sender<Watchers>,
    record: Mutex<Record>,
    /// What may be neither stored nor logged.
    pub(super) redactor: Redactor,
    /// What every line of the log that is about it says.
    pub(super) span: Span,
    /// When its backend said something last, in milliseconds since 1970.
    heard: AtomicU64,
    /// What became of it has been counted.
    counted: AtomicBool,
    place: Mutex<Stage>,
    ended: AtomicBool,
}

/// How far a job has come on its way to a place to run in.
#[derive(Debug, Default)]
enum Stage {
    /// It waits for one.
    #[default]
    Awaited,
    /// It has one.
    Taken(Place),
    /// It needs none any more.
    Left,
}

/// What a job is made of.
#[derive(Debug)]
pub(super) struct NewJob {
    /// What it does, for whom.
    pub(super) key: Key,
    /// Where it runs.
    pub(super) backend: BackendId,
    /// The configuration that is in force.
    pub(super) config: Arc<Config>,
    /// What its watchers will be given.
    pub(super) log: Arc<Log>,
    /// What is recorded of it.
    pub(super) record: Record,
    /// What the first client wants to have kept.
    pub(super) kept: Kept,
    /// What may be neither stored nor logged.
    pub(super) redactor: Redactor,
    /// What every line of the log that is about it says.
    pub(super) span: Span,
}

/// What a job keeps, or a client wants, beside what every reader is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Events of the backend's own types.
    pub all_events: bool,
    /// The backend's own account of objects.
    pub payloads: bool,
}

impl Kept {
    pub(super) fn wanted_by(request: &Request) -> Self {
        Self { all_events: request.all_events, payloads: request.payloads }
    }

    /// What a client must be told that wants what is not kept: the first client of the job did not ask for it.
    pub fn notice(self, wanted: Self) -> Option<String> {
        let missing = self.missing(wanted)?;
        Some(format!("This job was there already, and keeps no {missing}."))
    }

    /// What a client must be told that wants `wanted` of a job of which only the ledger has something: `frames`.
    pub fn ledger_notice(wanted: Self, frames: &[StoredFrame]) -> Option<String> {
        let all_events = frames.iter().any(|frame| is_extra(&frame.bytes));
        let missing = Self { all_events, payloads: false }.missing(wanted)?;
        Some(format!("This job has ended, and the rest of its record has no {missing}."))
    }

    fn missing(self, wanted: Self) -> Option<&'static str> {
        match (wanted.payloads && !self.payloads, wanted.all_events && !self.all_events) {
            (false, false) => None,
            (true, false) => Some("payloads"),
            (false, true) => Some("events of the backend's own types"),
            (true, true) => Some("payloads or events of the backend's own types"),
        }
    }
}

/// What came of the beginning of a job.
#[derive(Clone, Debug)]
pub enum Started {
    /// The backend has accepted the work, or takes so long that clients must be told something.
    Accepted,
    /// It was refused.
    Refused(Refusal),
}

/// Who watches a job.
#[derive(Clone, Copy, Debug, Default)]
struct Watchers {
    now: u64,
    /// The most at once.
    most: u64,
    /// How many came when it was there already.
    attached: u64,
    /// It goes on without any.
    stays: bool,
}

impl Job {
    pub(super) fn new(new: NewJob) -> Arc<Self> {
        let NewJob { key, backend, config, log, record, kept, redactor, span } = new;
        Arc::new(Self {
            span,
            heard: AtomicU64::new(0),
            id: record.id,
            key,
            backend,
            config,
            log,
            kept,
            redactor,
            started: watch::Sender::new(None),
            stop: watch::Sender::new(None),
            watchers: watch::Sender::new(Watchers::default()),
            record: Mutex::new(record),
            counted: AtomicBool::new(false),
            place: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Whether a request with `key` on `backend` is for this job.
    pub(super) fn is_for(&self, key: &Key, backend: &BackendId) -> bool {
        self.key == *key && self.backend.is_identical(backend)
    }

    /// What others are told of it. Its end only when that is recorded, or cannot be.
    pub fn told(&self) -> Record {
        let has_ended = self.ended.load(Ordering::Relaxed);
        let mut record = self.record();
        record.end = record.end.filter(|_| has_ended);
        record
    }

    /// What is recorded of it, as far as that is known now.
    pub(super) fn record(&self) -> Record {
        let mut record = self.recorded().clone();
        let watchers = *self.watchers.borrow();
        record.progress.watchers = watchers.most;
        record.progress.attaches = watchers.attached;
        record
    }

    /// Ends it. The first reason counts.
    pub fn stop(&self, cause: Cause) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(cause);
            first
        });
    }

    /// Whether it is to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Notes that it has ended, and says whether that is new.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// Notes that what became of it is counted, and says whether that is new.
    pub(super) fn count(&self) -> bool {
        !self.counted.swap(true, Ordering::Relaxed)
    }

    /// Makes it go on to its end without watchers.
    pub(super) fn stay(&self) {
        self.watchers.send_modify(|watchers| watchers.stays = true);
    }

    /// Watches it, from the frame with the number `next` on.
    pub(super) fn watch(self: &Arc<Self>, next: u64, is_new: bool) -> Watching {
        self.watchers.send_modify(|watchers| {
            watchers.now += 1;
            watchers.most = watchers.most.max(watchers.now);
            watchers.attached += u64::from(!is_new);
        });
        if !is_new {
            self.span.in_scope(|| telemetry::Attached.emit());
        }
        Watching { cursor: self.log.watch(next), job: Arc::clone(self), notice: None }
    }

    /// Notes that its backend has said something.
    pub(super) fn hear(&self, at: Timestamp) {
        self.heard.store(at.0, Ordering::Relaxed);
    }

    /// Since when its backend has said nothing, if it drives it now.
    pub fn silent_since(&self) -> Option<Timestamp> {
        let record = self.recorded();
        let started = record.started.filter(|_| record.end.is_none())?;
        Some(started.max(Timestamp(self.heard.load(Ordering::Relaxed))))
    }

    /// Does `work` in its span.
    pub fn in_span<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// Gives it a place to run in.
    pub(super) fn take_place(&self, place: Place) {
        *self.place() = Stage::Taken(place);
    }

    /// Takes its place away, if it has one.
    pub(super) fn leave_place(&self) -> Option<Place> {
        match std::mem::replace(&mut *self.place(), Stage::Left) {
            Stage::Taken(place) => Some(place),
            Stage::Awaited | Stage::Left => None,
        }
    }

    /// Whether it has a place to run in.
    pub(super) fn has_place(&self) -> bool {
        matches!(*self.place(), Stage::Taken(_))
    }

    /// Whether it waits for a place to run in.
    pub(super) fn awaits_place(&self) -> bool {
        matches!(*self.place(), Stage::Awaited)
    }

    fn place(&self) -> MutexGuard<'_, Stage> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recorded(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what came of its beginning. What was told first stays.
    pub(super) fn begin(&self, started: Started) {
        self.started.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(started);
            first
        });
    }

    /// Where it is heard that it is to end.
    pub(super) fn stopping(&self) -> Stopping {
        Stopping(self.stop.subscribe())
    }

    /// Done when nobody watches it and it does not go on without watchers.
    pub(super) async fn deserted(&self) {
        let mut watchers = self.watchers.subscribe();
        // The sender is a part of this job.
        let _ = watchers.wait_for(|watchers| watchers.now == 0 && !watchers.stays).await;
    }

    /// Done when that is over.
    pub(super) async fn visited(&self) {
        let mut watchers = self.watchers.subscribe();
        let _ = watchers.wait_for(|watchers| watchers.now > 0 || watchers.stays).await;
    }
}

/// The end of a job, as something to wait for.
#[derive(Debug)]
pub(super) struct Stopping(watch::Receiver<Option<Cause>>);

impl Stopping {
    /// Done when the job is to end. Dropping the future loses nothing.
    pub(super) async fn cause(&mut self) -> Cause {
        let stopped = self.0.wait_for(Option::is_some).await.ok().and_then(|cause| *cause);
        // Whoever could say it being gone says it too.
        stopped.unwrap_or(Cause::Stopping)
    }
}

/// A client that watches a job. Dropping it is going away.
#[derive(Debug)]
pub struct Watching {
    /// The job.
    pub job: Arc<Job>,
    /// The client's place in its log.
    pub cursor: Cursor,
    /// What the client must be told about where its stream starts.
    pub notice: Option<String>,
}

impl Watching {
    /// Waits until there is a stream.
    ///
    /// # Errors
    ///
    /// The answer that the client should get instead.
    pub async fn begun(&self) -> Result<(), Refusal> {
        if self.cursor.place() > FIRST {
            return Ok(());
        }
        let mut started = self.job.started.subscribe();
        let known = started.wait_for(Option::is_some).await;
        match known.ok().as_deref() {
            Some(Some(Started::Refused(refusal))) => Err(refusal.clone()),
            // The sender is a part of the job.
            _ => Ok(()),
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.job.watchers.send_modify(|watchers| watchers.now -= 1);
    }
}
