//! A job, as those see it who watch it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::Span;

use super::concurrency::Permit;
use super::log::{Cursor, FIRST, JobLog};
use super::request::{JobKey, SyncRequest};
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
    pub key: JobKey,
    /// Where it runs.
    pub(super) backend: BackendId,
    /// The configuration that was in force when it was asked for, and is for it until it ends.
    pub(super) config: Arc<Config>,
    /// What its watchers are given.
    pub log: Arc<JobLog>,
    /// What the first client wanted to have kept.
    pub selection: EventSelection,
    started: watch::Sender<Option<StartResult>>,
    stop: watch::Sender<Option<Cause>>,
    watchers: watch::Sender<WatcherCounts>,
    record: Mutex<Record>,
    /// What may be neither stored nor logged.
    pub(super) redactor: Redactor,
    /// What every line of the log that is about it says.
    pub(super) span: Span,
    /// When its backend said something last, in milliseconds since 1970.
    last_frame_at: AtomicU64,
    /// What became of it has been counted.
    counted: AtomicBool,
    permit: Mutex<PermitState>,
    ended: AtomicBool,
}

/// How far a job has come on its way to a place to run in.
#[derive(Debug, Default)]
enum PermitState {
    /// It waits for one.
    #[default]
    Waiting,
    /// It has one.
    Held(Permit),
    /// It needs none any more.
    Released,
}

/// What a job is made of.
#[derive(Debug)]
pub(super) struct NewJob {
    /// What it does, for whom.
    pub(super) key: JobKey,
    /// Where it runs.
    pub(super) backend: BackendId,
    /// The configuration that is in force.
    pub(super) config: Arc<Config>,
    /// What its watchers will be given.
    pub(super) log: Arc<JobLog>,
    /// What is recorded of it.
    pub(super) record: Record,
    /// What the first client wants to have kept.
    pub(super) selection: EventSelection,
    /// What may be neither stored nor logged.
    pub(super) redactor: Redactor,
    /// What every line of the log that is about it says.
    pub(super) span: Span,
}

/// What a job keeps, or a client wants, beside what every reader is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSelection {
    /// Events of the backend's own types.
    pub all_events: bool,
    /// The backend's own account of objects.
    pub payloads: bool,
}

impl EventSelection {
    pub(super) fn for_request(request: &SyncRequest) -> Self {
        Self { all_events: request.all_events, payloads: request.payloads }
    }

    /// What a client must be told that wants what is not kept: the first client of the job did not ask for it.
    pub fn notice(self, requested: Self) -> Option<String> {
        let missing = self.missing(requested)?;
        Some(format!("This job was there already, and keeps no {missing}."))
    }

    /// What a client must be told that wants `wanted` of a job of which only the ledger has something: `frames`.
    pub fn ledger_notice(requested: Self, frames: &[StoredFrame]) -> Option<String> {
        let all_events = frames.iter().any(|frame| is_extra(&frame.bytes));
        let missing = Self { all_events, payloads: false }.missing(requested)?;
        Some(format!("This job has ended, and the rest of its record has no {missing}."))
    }

    fn missing(self, requested: Self) -> Option<&'static str> {
        match (requested.payloads && !self.payloads, requested.all_events && !self.all_events) {
            (false, false) => None,
            (true, false) => Some("payloads"),
            (false, true) => Some("events of the backend's own types"),
            (true, true) => Some("payloads or events of the backend's own types"),
        }
    }
}

/// What came of the beginning of a job.
#[derive(Clone, Debug)]
pub enum StartResult {
    /// The backend has accepted the work, or takes so long that clients must be told something.
    Accepted,
    /// It was refused.
    Refused(Refusal),
}

/// Who watches a job.
#[derive(Clone, Copy, Debug, Default)]
struct WatcherCounts {
    now: u64,
    /// The most at once.
    most: u64,
    /// How many came when it was there already.
    attached: u64,
    /// It goes on without any.
    keeps_running: bool,
}

impl Job {
    pub(super) fn new(new: NewJob) -> Arc<Self> {
        let NewJob { key, backend, config, log, record, selection: kept, redactor, span } = new;
        Arc::new(Self {
            span,
            last_frame_at: AtomicU64::new(0),
            id: record.id,
            key,
            backend,
            config,
            log,
            selection: kept,
            redactor,
            started: watch::Sender::new(None),
            stop: watch::Sender::new(None),
            watchers: watch::Sender::new(WatcherCounts::default()),
            record: Mutex::new(record),
            counted: AtomicBool::new(false),
            permit: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Whether a request with `key` on `backend` is for this job.
    pub(super) fn is_for(&self, key: &JobKey, backend: &BackendId) -> bool {
        self.key == *key && self.backend.is_identical(backend)
    }

    /// What others are told of it. Its end only when that is recorded, or cannot be.
    pub fn public_record(&self) -> Record {
        let has_ended = self.ended.load(Ordering::Relaxed);
        let mut record = self.record();
        record.end = record.end.filter(|_| has_ended);
        record
    }

    /// What is recorded of it, as far as that is known now.
    pub(super) fn record(&self) -> Record {
        let mut record = self.record_lock().clone();
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
    pub(super) fn mark_ended(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// Notes that what became of it is counted, and says whether that is new.
    pub(super) fn mark_counted(&self) -> bool {
        !self.counted.swap(true, Ordering::Relaxed)
    }

    /// Makes it go on to its end without watchers.
    pub(super) fn keep_running(&self) {
        self.watchers.send_modify(|watchers| watchers.keeps_running = true);
    }

    /// Watches it, from the frame with the number `next` on.
    pub(super) fn watch(self: &Arc<Self>, next: u64, is_new: bool) -> Watcher {
        self.watchers.send_modify(|watchers| {
            watchers.now += 1;
            watchers.most = watchers.most.max(watchers.now);
            watchers.attached += u64::from(!is_new);
        });
        if !is_new {
            self.span.in_scope(|| telemetry::JobAttached.emit());
        }
        Watcher { cursor: self.log.watch(next), job: Arc::clone(self), notice: None }
    }

    /// Notes that its backend has said something.
    pub(super) fn note_frame(&self, at: Timestamp) {
        self.last_frame_at.store(at.0, Ordering::Relaxed);
    }

    /// Since when its backend has said nothing, if it drives it now.
    pub fn silent_since(&self) -> Option<Timestamp> {
        let record = self.record_lock();
        let started = record.started.filter(|_| record.end.is_none())?;
        Some(started.max(Timestamp(self.last_frame_at.load(Ordering::Relaxed))))
    }

    /// Does `work` in its span.
    pub fn in_span<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// Gives it a place to run in.
    pub(super) fn hold_permit(&self, place: Permit) {
        *self.permit() = PermitState::Held(place);
    }

    /// Takes its place away, if it has one.
    pub(super) fn release_permit(&self) -> Option<Permit> {
        match std::mem::replace(&mut *self.permit(), PermitState::Released) {
            PermitState::Held(place) => Some(place),
            PermitState::Waiting | PermitState::Released => None,
        }
    }

    /// Whether it has a place to run in.
    pub(super) fn has_permit(&self) -> bool {
        matches!(*self.permit(), PermitState::Held(_))
    }

    /// Whether it waits for a place to run in.
    pub(super) fn awaits_permit(&self) -> bool {
        matches!(*self.permit(), PermitState::Waiting)
    }

    fn permit(&self) -> MutexGuard<'_, PermitState> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record_lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what came of its beginning. What was told first stays.
    pub(super) fn set_started(&self, started: StartResult) {
        self.started.send_if_modified(|result| {
            let first = result.is_none();
            result.get_or_insert(started);
            first
        });
    }

    /// Where it is heard that it is to end.
    pub(super) fn stopping(&self) -> StopSignal {
        StopSignal(self.stop.subscribe())
    }

    /// Done when nobody watches it and it does not go on without watchers.
    pub(super) async fn abandoned(&self) {
        let mut watchers = self.watchers.subscribe();
        // The sender is a part of this job.
        let _ = watchers.wait_for(|watchers| watchers.now == 0 && !watchers.keeps_running).await;
    }

    /// Done when that is over.
    pub(super) async fn attached(&self) {
        let mut watchers = self.watchers.subscribe();
        let _ = watchers.wait_for(|watchers| watchers.now > 0 || watchers.keeps_running).await;
    }
}

/// The end of a job, as something to wait for.
#[derive(Debug)]
pub(super) struct StopSignal(watch::Receiver<Option<Cause>>);

impl StopSignal {
    /// Done when the job is to end. Dropping the future loses nothing.
    pub(super) async fn cause(&mut self) -> Cause {
        let stopped = self.0.wait_for(Option::is_some).await.ok().and_then(|cause| *cause);
        // Whoever could say it being gone says it too.
        stopped.unwrap_or(Cause::Stopping)
    }
}

/// A client that watches a job. Dropping it is going away.
#[derive(Debug)]
pub struct Watcher {
    /// The job.
    pub job: Arc<Job>,
    /// The client's place in its log.
    pub cursor: Cursor,
    /// What the client must be told about where its stream starts.
    pub notice: Option<String>,
}

impl Watcher {
    /// Waits until there is a stream.
    ///
    /// # Errors
    ///
    /// The answer that the client should get instead.
    pub async fn started(&self) -> Result<(), Refusal> {
        if self.cursor.position() > FIRST {
            return Ok(());
        }
        let mut started = self.job.started.subscribe();
        let result = started.wait_for(Option::is_some).await;
        match result.ok().as_deref() {
            Some(Some(StartResult::Refused(refusal))) => Err(refusal.clone()),
            // The sender is a part of the job.
            _ => Ok(()),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.job.watchers.send_modify(|watchers| watchers.now -= 1);
    }
}
