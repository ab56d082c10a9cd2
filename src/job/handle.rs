//! The handle of a job, as its watchers use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tracing::Span;

use super::concurrency::Permit;
use super::log::{Cursor, FIRST, JobLog};
use super::request::{EventSelection, JobKey};
use crate::backend::BackendId;
use crate::config::Config;
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::text::redact::Redactor;
use crate::ledger::{JobId, Record, Timestamp};
use crate::telemetry;

/// A job: queued, running or ended.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its work and its client.
    pub key: JobKey,
    /// The backend that it runs on.
    pub(super) backend: BackendId,
    /// The configuration at the time of the request. It applies until the job ends.
    pub(super) config: Arc<Config>,
    /// The log that its watchers read.
    pub log: Arc<JobLog>,
    /// The events that the first client selected.
    pub selection: EventSelection,
    started: watch::Sender<Option<StartResult>>,
    stop: watch::Sender<Option<Cause>>,
    watchers: watch::Sender<WatcherCounts>,
    record: Mutex<Record>,
    /// Removes secrets from all that is stored or logged.
    pub(super) redactor: Redactor,
    /// The span of all its log lines.
    pub(super) span: Span,
    /// The time of the last frame from the backend, in milliseconds since 1970.
    last_frame_at: AtomicU64,
    /// The job is counted in the metrics.
    counted: AtomicBool,
    permit: Mutex<PermitState>,
    ended: AtomicBool,
}

/// The state of a job's concurrency permit.
#[derive(Debug, Default)]
enum PermitState {
    /// It waits for a permit.
    #[default]
    Waiting,
    /// It holds a permit.
    Held(Permit),
    /// It needs no permit any more.
    Released,
}

/// The parts of a new job.
#[derive(Debug)]
pub(super) struct NewJob {
    /// Its work and its client.
    pub(super) key: JobKey,
    /// The backend that it runs on.
    pub(super) backend: BackendId,
    /// The configuration in force.
    pub(super) config: Arc<Config>,
    /// The log that its watchers will read.
    pub(super) log: Arc<JobLog>,
    /// Its record.
    pub(super) record: Record,
    /// The events that the first client selected.
    pub(super) selection: EventSelection,
    /// Removes secrets from all that is stored or logged.
    pub(super) redactor: Redactor,
    /// The span of all its log lines.
    pub(super) span: Span,
}

/// The result of starting a job.
#[derive(Clone, Debug)]
pub enum StartResult {
    /// The backend accepted the work, or took so long that clients need an event first.
    Accepted,
    /// The job was refused.
    Refused(Refusal),
}

/// The watchers of a job.
#[derive(Clone, Copy, Debug, Default)]
struct WatcherCounts {
    now: u64,
    /// The highest number at one time.
    most: u64,
    /// How many attached to the existing job.
    attached: u64,
    /// The job runs on without watchers.
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

    /// Returns whether a request with `key` on `backend` is for this job.
    pub(super) fn is_for(&self, key: &JobKey, backend: &BackendId) -> bool {
        self.key == *key && self.backend.is_identical(backend)
    }

    /// The record as shown to API clients. The outcome stays hidden until it is persisted, or persisting failed.
    pub fn public_record(&self) -> Record {
        let has_ended = self.ended.load(Ordering::Relaxed);
        let mut record = self.record();
        record.end = record.end.filter(|_| has_ended);
        record
    }

    /// The current record.
    pub(super) fn record(&self) -> Record {
        let mut record = self.record_lock().clone();
        let watchers = *self.watchers.borrow();
        record.progress.watchers = watchers.most;
        record.progress.attaches = watchers.attached;
        record
    }

    /// Requests the end of the job. The first cause wins.
    pub fn stop(&self, cause: Cause) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(cause);
            first
        });
    }

    /// Cancels the job on the request of the user `by`.
    pub fn cancel(&self, by: Option<&str>) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            if is_first {
                *stop = Some(Cause::CancelRequested);
                // Before the runner knows: it records the end.
                self.record_lock().cancelled_by = by.map(|by| self.redactor.text(by).into_owned());
            }
            is_first
        });
    }

    /// Returns whether the job was stopped.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Marks the job as ended. Returns whether it was not before.
    pub(super) fn mark_ended(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// Marks the job as counted. Returns whether it was not before.
    pub(super) fn mark_counted(&self) -> bool {
        !self.counted.swap(true, Ordering::Relaxed)
    }

    /// Makes the job run on without watchers.
    pub(super) fn keep_running(&self) {
        self.watchers.send_modify(|watchers| watchers.keeps_running = true);
    }

    /// Attaches another client to the job, from the frame numbered `next`.
    pub(super) fn attach(self: &Arc<Self>, next: u64) -> Watcher {
        self.watchers.send_modify(|watchers| watchers.attached += 1);
        self.span.in_scope(|| telemetry::JobAttached.emit());
        self.watch(next)
    }

    /// Watches the job from the frame numbered `next`.
    pub(super) fn watch(self: &Arc<Self>, next: u64) -> Watcher {
        self.watchers.send_modify(|watchers| {
            watchers.now += 1;
            watchers.most = watchers.most.max(watchers.now);
        });
        Watcher { cursor: self.log.watch(next), job: Arc::clone(self), notice: None }
    }

    /// Notes the time of a frame from the backend.
    pub(super) fn note_frame(&self, at: Timestamp) {
        self.last_frame_at.store(at.0, Ordering::Relaxed);
    }

    /// The time of the last frame from the backend, if the job drives it now.
    pub fn silent_since(&self) -> Option<Timestamp> {
        let record = self.record_lock();
        let started = record.started.filter(|_| record.end.is_none())?;
        Some(started.max(Timestamp(self.last_frame_at.load(Ordering::Relaxed))))
    }

    /// Runs `work` in the span of the job.
    pub fn in_span<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// Stores the permit of the job.
    pub(super) fn hold_permit(&self, permit: Permit) {
        *self.permit() = PermitState::Held(permit);
    }

    /// Takes the permit from the job, if it holds one.
    pub(super) fn release_permit(&self) -> Option<Permit> {
        match std::mem::replace(&mut *self.permit(), PermitState::Released) {
            PermitState::Held(permit) => Some(permit),
            PermitState::Waiting | PermitState::Released => None,
        }
    }

    /// Returns whether the job holds a permit.
    pub(super) fn has_permit(&self) -> bool {
        matches!(*self.permit(), PermitState::Held(_))
    }

    /// Returns whether the job waits for a permit.
    pub(super) fn awaits_permit(&self) -> bool {
        matches!(*self.permit(), PermitState::Waiting)
    }

    fn permit(&self) -> MutexGuard<'_, PermitState> {
        self.permit.lock()
    }

    pub(super) fn record_lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }

    /// Notes that the failed objects in the ledger are lost. They are not in memory.
    pub(super) fn lose_failures(&self) {
        let progress = &mut self.record_lock().progress;
        progress.failed_left_out = progress.counts.total().failed;
    }

    /// Publishes the result of the start. Only the first one counts.
    pub(super) fn set_started(&self, started: StartResult) {
        self.started.send_if_modified(|result| {
            let first = result.is_none();
            result.get_or_insert(started);
            first
        });
    }

    /// A signal for the end of the job.
    pub(super) fn stopping(&self) -> StopSignal {
        StopSignal(self.stop.subscribe())
    }

    /// Waits until the job has no watchers and must not run on without them.
    pub(super) async fn abandoned(&self) {
        let mut watchers = self.watchers.subscribe();
        // The sender is a field of this job.
        let _ = watchers.wait_for(|watchers| watchers.now == 0 && !watchers.keeps_running).await;
    }

    /// Waits until the job has a watcher again, or must run on without them.
    pub(super) async fn attached(&self) {
        let mut watchers = self.watchers.subscribe();
        let _ = watchers.wait_for(|watchers| watchers.now > 0 || watchers.keeps_running).await;
    }
}

/// Signals that the job must end.
#[derive(Debug)]
pub(super) struct StopSignal(watch::Receiver<Option<Cause>>);

impl StopSignal {
    /// Waits until the job must end. Cancel safe.
    pub(super) async fn cause(&mut self) -> Cause {
        let stopped = self.0.wait_for(Option::is_some).await.ok().and_then(|cause| *cause);
        // A dropped sender means that the bridge is stopping.
        stopped.unwrap_or(Cause::Stopping)
    }
}

/// A client that watches a job. Dropping it detaches the client.
#[derive(Debug)]
pub struct Watcher {
    /// The job.
    pub job: Arc<Job>,
    /// The client's position in the log.
    pub cursor: Cursor,
    /// The notice to send before the stream.
    pub notice: Option<String>,
}

impl Watcher {
    /// Waits until there is a stream.
    ///
    /// # Errors
    ///
    /// The refusal to answer the client with.
    pub async fn started(&self) -> Result<(), Refusal> {
        if self.cursor.position() > FIRST {
            return Ok(());
        }
        let mut started = self.job.started.subscribe();
        let result = started.wait_for(Option::is_some).await;
        match result.ok().as_deref() {
            Some(Some(StartResult::Refused(refusal))) => Err(refusal.clone()),
            // The sender is a field of the job.
            _ => Ok(()),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.job.watchers.send_modify(|watchers| watchers.now -= 1);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::{Backend, RequestIdentity};
    use crate::config::Flags;
    use crate::core::domain::kind::{Kind, SyncEndpoint};
    use crate::job::log::LogMemory;
    use crate::job::request::SyncRequest;

    /// A queued job.
    pub(in crate::job) fn job() -> Arc<Job> {
        let flags = Flags { backend: Some("http://127.0.0.1:1".to_owned()), ..Flags::default() };
        let config = Arc::new(Config::load(&flags, []).unwrap());
        let request = request(&config);
        job_for(&request, config)
    }

    /// A request to the backend of `config`.
    pub(in crate::job) fn request(config: &Config) -> SyncRequest {
        SyncRequest {
            backend: Arc::new(Backend::new(config.backends[0].clone()).unwrap()),
            endpoint: SyncEndpoint::for_kind(Kind::Devices),
            query: String::new(),
            selection: EventSelection::default(),
            over_socket: false,
            to_stream: false,
            identity: RequestIdentity::default(),
            address: None,
            actor: None,
        }
    }

    /// The queued job for `request`.
    pub(in crate::job) fn job_for(request: &SyncRequest, config: Arc<Config>) -> Arc<Job> {
        let record = Record::new(request.backend.url().clone(), Kind::Devices, Timestamp(0));
        let log = JobLog::new(1 << 20, LogMemory::new(1 << 20));
        let (key, backend) = (JobKey::new(request, &[0; 32]), request.backend.id().clone());
        let (redactor, span) = (Redactor::default(), Span::none());
        Job::new(NewJob {
            key,
            backend,
            config,
            log,
            record,
            selection: EventSelection::default(),
            redactor,
            span,
        })
    }

    #[test]
    fn the_outcome_of_a_job_is_counted_once() {
        let job = job();
        assert_eq!([job.mark_counted(), job.mark_counted(), job.mark_counted()], [true, false, false]);
    }
}
