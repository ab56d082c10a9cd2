//! The table of the jobs of this process.

mod resume;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::clients::{ClientId, Clients};
use super::concurrency::ConcurrencyLimit;
use super::handle::{Job, Watcher};
use super::history::History;
use super::log::LogMemory;
use super::request::{JobKey, SyncRequest, fingerprint, hash};
use super::secrets::SecretStore;
use crate::backend::{Backend, BackendId};
use crate::config::{Config, Limits, WithoutLedger};
use crate::core::compat::Shim;
use crate::core::compat::plugin::Inventory;
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::text::redact::Redactor;
use crate::ledger::{Health, JobId, Ledger, LoggedFrame, Record, Requester, Retention, Timestamp};
use crate::telemetry;

/// The jobs of this process.
#[derive(Debug)]
pub struct Registry {
    pub(super) config: ArcSwap<Config>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) salt: [u8; 32],
    pub(super) memory: Arc<LogMemory>,
    jobs: Mutex<JobTable>,
    pub(super) concurrency: ConcurrencyLimit,
    pub(super) clients: Clients,
    /// What is known of backends across restarts.
    pub history: History,
    /// The secrets that are neither stored nor logged.
    pub secrets: SecretStore,
    /// Backends that must be restarted before the next sync, by their URL at the time, with the reason.
    blocked: Mutex<HashMap<String, (BackendId, String)>>,
    /// Notified when a cool-down begins.
    pub(super) cooldowns: watch::Sender<()>,
    /// How many jobs have not ended.
    pub(super) unfinished: watch::Sender<usize>,
    /// No new job is admitted.
    pub(super) draining: watch::Sender<bool>,
    /// Ended jobs are no longer kept for returning clients.
    pub(super) closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
pub(super) struct JobTable {
    /// The jobs that have not ended.
    pub(super) unfinished: BTreeMap<JobId, Arc<Job>>,
    /// These, and the recently ended jobs. Ids sort by time.
    pub(super) by_id: BTreeMap<JobId, Arc<Job>>,
    /// The recently ended jobs, in the order of their ends.
    ended: VecDeque<JobId>,
}

impl JobTable {
    /// The unfinished jobs on `backend`.
    fn on<'a>(&'a self, backend: &'a BackendId) -> impl Iterator<Item = &'a Arc<Job>> {
        self.unfinished.values().filter(|job| job.backend.is_same(backend))
    }

    /// The unfinished job that `request` with `key` is for. A job that is being cancelled does not match.
    pub(super) fn identical(&self, key: &JobKey, request: &SyncRequest) -> Option<&Arc<Job>> {
        self.unfinished.values().find(|job| job.is_for(key, request.backend.id()) && !job.is_stopping())
    }

    /// Notes that a job has ended. Beyond [`MAX_ENDED`], the oldest one is removed.
    fn end(&mut self, id: JobId) {
        self.unfinished.remove(&id);
        self.ended.push_back(id);
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    /// Removes an ended job.
    fn forget(&mut self, id: JobId) {
        self.by_id.remove(&id);
        self.ended.retain(|ended| *ended != id);
    }
}

/// The maximum number of ended jobs in memory.
const MAX_ENDED: usize = 256;

/// How a client attaches.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// The client requires a new job.
    pub fresh: bool,
    /// The `Last-Event-ID` of the client.
    pub last_event: Option<String>,
}

/// The result of attaching a client.
#[derive(Debug)]
pub enum Attached {
    /// A queued, running or recently ended job.
    Watching(Watcher),
    /// The remaining frames of an ended job.
    Replay(Replay),
    /// An ended job whose final event the client has already received.
    Seen,
}

/// The rest of the log of an ended job.
#[derive(Debug)]
pub struct Replay {
    /// The job.
    pub id: JobId,
    /// How many frames before them are gone.
    pub missed: u64,
    /// The remaining frames.
    pub frames: Vec<LoggedFrame>,
    /// The notice for the client, such as that of events that the ledger does not keep.
    pub notice: Option<String>,
}

/// The load of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendLoad {
    /// Jobs that hold a permit.
    pub running: usize,
    /// Jobs that wait for a permit.
    pub waiting: usize,
    /// Permits held by cool-downs.
    pub cooling_down: usize,
}

/// What a queued job waits for.
#[derive(Debug)]
pub(super) struct QueuePosition {
    /// The kinds of the jobs that run on its backend.
    pub(super) running: Vec<Kind>,
    /// How many jobs are queued before it.
    pub(super) waiting: usize,
    /// The job whose cool-down ends first, with its end.
    pub(super) cooling_down: Option<(JobId, Instant)>,
}

/// Why a client was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The client requires a new job, and an identical one runs.
    #[error("job {0} runs already")]
    Running(JobId),
    /// The queue of the backend is full.
    #[error("{waiting} syncs are queued for this backend, the most that may be (backend.queue)")]
    QueueFull {
        /// How many jobs are queued.
        waiting: usize,
    },
    /// The bridge is stopping.
    #[error("the bridge is stopping, and begins no sync any more")]
    Draining,
    /// The backend must be restarted first.
    #[error("{0}")]
    AwaitsRestart(String),
    /// The ledger is unavailable, and jobs must not run without it.
    #[error("no sync may begin without a record of it (jobs.without_ledger): {0}")]
    LedgerUnavailable(String),
}

impl Registry {
    /// Creates a registry without jobs.
    pub fn new(config: Arc<Config>, ledger: Arc<Ledger>) -> Arc<Self> {
        let mut salt = [0; 32];
        salt[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        salt[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        let secrets = SecretStore::default();
        secrets.configure(&config);
        Arc::new(Self {
            memory: LogMemory::new(config.limits.all_logs_bytes),
            salt,
            concurrency: ConcurrencyLimit::new(Arc::clone(&config)),
            config: ArcSwap::new(config),
            jobs: Mutex::default(),
            clients: Clients::default(),
            history: History::new(Arc::clone(&ledger)),
            ledger,
            secrets,
            blocked: Mutex::default(),
            cooldowns: watch::Sender::new(()),
            unfinished: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            tasks: Mutex::default(),
        })
    }

    /// Applies `config` to new jobs and to the concurrency limits. Existing jobs keep their configuration.
    pub fn configure(&self, config: Arc<Config>) {
        self.memory.resize(config.limits.all_logs_bytes);
        self.secrets.configure(&config);
        self.ledger.set_retention(retention(&config.limits));
        self.config.store(Arc::clone(&config));
        self.concurrency.configure(config);
    }

    /// The ledger of these jobs.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Spawns `task`, which ends when the registry closes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Checks whether one more job may start.
    pub(super) fn admit(
        &self,
        jobs: &JobTable,
        config: &Config,
        request: &SyncRequest,
    ) -> Result<(), AdmitError> {
        if *self.draining.borrow() {
            return Err(AdmitError::Draining);
        }
        if config.jobs.without_ledger == Some(WithoutLedger::Refuse)
            && let Health::Unavailable(why) = &*self.ledger.health().borrow()
        {
            return Err(AdmitError::LedgerUnavailable(why.clone()));
        }
        if let Some(why) = self.blocked(&request.backend) {
            return Err(AdmitError::AwaitsRestart(why));
        }
        let BackendLoad { running, waiting, cooling_down } = self.load_in(jobs, request.backend.id());
        let config = request.backend.config();
        // After a reload, more permits may be taken than the limit allows.
        let free = config.concurrency.saturating_sub(running + cooling_down);
        if waiting >= free + config.queue {
            return Err(AdmitError::QueueFull { waiting: waiting.saturating_sub(free) });
        }
        Ok(())
    }

    /// A salted hash of `key` that identifies it in this process and does not reveal it.
    pub fn key_hash(&self, key: &ApiKey) -> [u8; 32] {
        hash(&self.salt, key)
    }

    /// Notes that the client with this key and address made the request that starts a plugin job.
    pub fn begins_job(&self, backend: &Backend, key: Option<&ApiKey>, address: IpAddr) {
        self.clients.begins_job(self.client(backend, key, address));
    }

    /// Notes that that client received an empty list for `missing`, which the backend cannot read.
    pub fn note_missing(&self, backend: &Backend, key: Option<&ApiKey>, address: IpAddr, missing: Inventory) {
        self.clients.note_missing(self.client(backend, key, address), missing);
    }

    /// Notes that that client received `inventory` from the backend.
    pub fn note_read(&self, backend: &Backend, key: Option<&ApiKey>, address: IpAddr, inventory: Inventory) {
        self.clients.note_read(self.client(backend, key, address), inventory);
    }

    fn client(&self, backend: &Backend, key: Option<&ApiKey>, address: IpAddr) -> ClientId {
        // The same key as for its streams.
        let key = backend.config().api_key.as_ref().or(key).map(|key| self.key_hash(key));
        ClientId::new(backend.url().clone(), key, Some(address))
    }

    /// Blocks syncs on `backend` with the reason `why`, until `url` is unblocked.
    pub fn block(&self, url: String, backend: BackendId, why: String) {
        self.blocked_map().insert(url, (backend, why));
    }

    /// The reason why syncs are blocked on `backend`, if they are. Resolves the addresses of `backend` and of the
    /// blocked backends.
    pub async fn resolve_blocked(&self, backend: &Backend) -> Option<String> {
        let held: Vec<_> = self.blocked_map().values().map(|(id, _)| id.clone()).collect();
        if !held.is_empty() {
            backend.resolve().await;
        }
        for id in &held {
            // A backend that does not resolve cannot be matched by address.
            let _ = id.resolve().await;
        }
        self.blocked(backend)
    }

    /// The reason why syncs are blocked on `backend`, as far as its addresses are known.
    fn blocked(&self, backend: &Backend) -> Option<String> {
        let is_on = self.config.load().shims.is_on(Shim::NetboxEndpoint);
        let holds = self.blocked_map();
        let mut there = holds.values().filter(|(held, _)| is_on && held.is_at(backend.id()));
        there.next().map(|(_, why)| why.clone())
    }

    /// Allows syncs again on the backend that was blocked as `url`.
    pub fn unblock(&self, url: &str) {
        self.blocked_map().remove(url);
    }

    fn blocked_map(&self) -> MutexGuard<'_, HashMap<String, (BackendId, String)>> {
        self.blocked.lock()
    }

    /// The fingerprint of the client's credential in the ledger.
    fn fingerprint(&self, request: &SyncRequest) -> Option<String> {
        let credential = request.identity.key.as_ref();
        credential.map(|key| fingerprint(&self.ledger.secret(), key))
    }

    pub(super) fn record(&self, request: &SyncRequest, redactor: &Redactor) -> Record {
        Record {
            vm: request.endpoint.vm.map(|vm| vm.0),
            query: redactor.query(&request.query),
            requester: Requester {
                fingerprint: self.fingerprint(request),
                address: request.address.clone(),
                actor: request.actor.as_ref().map(|actor| redactor.text(actor).into_owned()),
            },
            ..Record::new(request.backend.url().clone(), request.endpoint.kind, Timestamp::now())
        }
    }

    /// A queued, running or recently ended job.
    pub fn find(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs().by_id.get(&id).cloned()
    }

    /// All these jobs, newest first.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.jobs().by_id.values().rev().cloned().collect()
    }

    /// The load of `backend`.
    pub fn load(&self, backend: &Backend) -> BackendLoad {
        self.load_in(&self.jobs(), backend.id())
    }

    fn load_in(&self, jobs: &JobTable, backend: &BackendId) -> BackendLoad {
        let cooling_down = self.concurrency.cooling_down(backend).len();
        let mut load = BackendLoad { running: 0, waiting: 0, cooling_down };
        for job in jobs.on(backend) {
            load.running += usize::from(job.has_permit());
            load.waiting += usize::from(job.awaits_permit());
        }
        load
    }

    /// A receiver for the close of the registry.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The longest time since the last frame from `backend` for a running job, at `now`; zero if none runs.
    pub fn frame_age(&self, backend: &Backend, now: Timestamp) -> Duration {
        let jobs = self.jobs();
        let silent = jobs.on(backend.id()).filter_map(|job| job.silent_since());
        silent.map(|since| now.since(since)).max().unwrap_or_default()
    }

    /// The gauges of the jobs in memory, and of the runtime. Must be called in the runtime.
    pub fn reading(&self) -> telemetry::GaugeReadings {
        let jobs = self.all();
        telemetry::GaugeReadings {
            lag: jobs.iter().map(|job| job.log.lag()).max().unwrap_or_default(),
            log_bytes: self.memory.used(),
            log_bytes_limit: self.memory.limit(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// Attaches one more watcher after the event numbered `after`.
    pub fn watch(&self, id: JobId, after: u64) -> Option<Watcher> {
        Some(self.find(id)?.attach(after + 1))
    }

    /// What `job` waits for.
    pub(super) fn queue_position(&self, job: &Job) -> QueuePosition {
        let jobs = self.jobs();
        let others: Vec<_> = jobs.on(&job.backend).filter(|other| other.id != job.id).collect();
        let running = others.iter().filter(|other| other.has_permit());
        let running = running.map(|other| other.key.endpoint().kind).collect();
        let waiting = others.iter().filter(|other| other.id < job.id && other.awaits_permit()).count();
        let cooling_down = self.concurrency.cooling_down(&job.backend).first().copied();
        QueuePosition { running, waiting, cooling_down }
    }

    /// Ends the cool-down of a job. Returns whether there was one.
    pub fn end_cooldown(&self, id: JobId) -> bool {
        self.concurrency.end_cooldown(id)
    }

    /// Returns whether a job runs a full update on `backend`.
    pub(super) fn drives_full_update(&self, backend: &BackendId) -> bool {
        let jobs = self.jobs();
        jobs.on(backend).any(|job| job.has_permit() && job.key.endpoint().kind == Kind::FullUpdate)
    }

    /// Marks `job` as ended: the next identical request starts a new one.
    pub(super) fn mark_ended(&self, job: &Job) {
        if !job.mark_ended() {
            return;
        }
        let mut jobs = self.jobs();
        jobs.end(job.id);
        self.unfinished.send_modify(|count| *count -= 1);
    }

    /// Removes an ended job from memory.
    pub(super) fn forget(&self, id: JobId) {
        self.jobs().forget(id);
    }

    /// Stops the admission of jobs, and ends the queued ones.
    pub fn drain(&self) {
        let _no_job_begins = self.jobs();
        self.draining.send_replace(true);
    }

    /// Returns whether the admission of jobs has stopped.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until every job has ended.
    pub async fn idle(&self) {
        let mut unfinished = self.unfinished.subscribe();
        // The sender is a field of this registry.
        let _ = unfinished.wait_for(|count| *count == 0).await;
    }

    /// Interrupts the running jobs, and waits until each has ended and is recorded.
    pub async fn close(&self) {
        self.drain();
        let running: Vec<_> = self.jobs().by_id.values().cloned().collect();
        for job in running {
            job.stop(Cause::Stopping);
        }
        self.closing.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }

    pub(super) fn jobs(&self) -> MutexGuard<'_, JobTable> {
        self.jobs.lock()
    }
}

/// The retention of the ledger under `limits`.
pub fn retention(limits: &Limits) -> Retention {
    Retention {
        jobs: limits.retention,
        logs: limits.log_retention,
        clock_jump: limits.clock_jump,
        clock_hold: limits.clock_hold,
        share: limits.clean_share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::handle::tests::job;

    #[test]
    fn only_so_many_ended_jobs_stay_in_memory_and_one_that_is_forgotten_makes_room() {
        let (mut jobs, job) = (JobTable::default(), job());
        let ids: Vec<JobId> = (0..MAX_ENDED + 3).map(|_| JobId::new()).collect();
        let (first, further) = ids.split_at(MAX_ENDED + 1);
        let end = |jobs: &mut JobTable, id: JobId| {
            jobs.unfinished.insert(id, Arc::clone(&job));
            jobs.by_id.insert(id, Arc::clone(&job));
            jobs.end(id);
        };
        first.iter().for_each(|id| end(&mut jobs, *id));
        assert!(jobs.by_id.keys().eq(&first[1..]) && jobs.unfinished.is_empty());
        jobs.forget(first[2]);
        end(&mut jobs, further[0]);
        assert_eq!(jobs.by_id.keys().next(), Some(&first[1]));
        end(&mut jobs, further[1]);
        assert!(jobs.by_id.keys().eq(ids[3..].iter()));
    }
}
