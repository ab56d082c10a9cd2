//! The jobs of this process: a request starts one, or comes to the one that is there.

mod resume;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::clients::{ClientId, Clients};
use super::concurrency::Places;
use super::job::{Job, Kept, NewJob, Watching};
use super::log::{FIRST, Log, Memory};
use super::record_writer::stored;
use super::request::{Key, Request, fingerprint, hash};
use super::secrets::Secrets;
use super::{lifecycle, recordings};
use crate::backend::{Backend, BackendId};
use crate::config::{Config, Limits, WithoutLedger};
use crate::core::compat::Shim;
use crate::core::compat::plugin::Inventory;
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::text::plain;
use crate::core::text::redact::Redactor;
use crate::ledger::{
    Cleaned, Cleaning, Entry, Health, JobId, Ledger, Record, Retention, StoredFrame, Timestamp, Unavailable,
    Who,
};
use crate::telemetry;

/// The jobs of this process.
#[derive(Debug)]
pub struct Registry {
    config: ArcSwap<Config>,
    pub(super) ledger: Arc<dyn Ledger>,
    salt: [u8; 32],
    memory: Arc<Memory>,
    jobs: Mutex<Jobs>,
    pub(super) places: Places,
    pub(super) clients: Clients,
    /// What is neither stored nor logged.
    pub secrets: Secrets,
    /// Backends that must be restarted before a sync may run there, by the URL that they had then, and why.
    held: Mutex<HashMap<String, (BackendId, String)>>,
    /// Told when a cool-down begins.
    pub(super) cooldowns: watch::Sender<()>,
    /// How many have not ended.
    unfinished: watch::Sender<usize>,
    /// No job begins any more.
    pub(super) draining: watch::Sender<bool>,
    /// Nothing is kept for clients that come back any more.
    pub(super) closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct Jobs {
    /// Those that have not ended.
    by_key: HashMap<Key, Arc<Job>>,
    /// Those, and the ones that have ended not long ago. Ids sort by time.
    by_id: BTreeMap<JobId, Arc<Job>>,
    /// The latter, in the order in which they ended.
    ended: VecDeque<JobId>,
}

impl Jobs {
    /// Those on `backend` that have not ended.
    fn on<'a>(&'a self, backend: &'a BackendId) -> impl Iterator<Item = &'a Arc<Job>> {
        self.by_key.values().filter(|job| job.backend.is_same(backend))
    }
}

/// How much of an id that makes no sense is repeated, in characters.
const ID_LENGTH: usize = 64;
/// How many jobs that have ended are kept in memory at most.
const REMEMBERED: usize = 256;

/// How a client comes.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// It wants a job of its own.
    pub fresh: bool,
    /// The id of the last event that it has seen.
    pub last_event: Option<String>,
}

/// What a client came to.
#[derive(Debug)]
pub enum Entered {
    /// A job that waits, runs, or has ended not long ago.
    Watching(Watching),
    /// What is left of a job that has ended: its frames, and how many before them are gone.
    Replay {
        /// The job.
        id: JobId,
        /// How many frames are gone.
        missed: u64,
        /// The others.
        frames: Vec<StoredFrame>,
        /// What the client must be told about what the ledger does not keep.
        notice: Option<String>,
    },
    /// A job that has ended, and the client has seen its end.
    Seen,
}

/// How much there is to do on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Jobs that have a place to run in.
    pub running: usize,
    /// Jobs that wait for one.
    pub waiting: usize,
    /// Places that a cool-down takes.
    pub cooling_down: usize,
}

/// What a job waits for.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The kinds that run on its backend.
    pub(super) running: Vec<Kind>,
    /// How many jobs wait before it.
    pub(super) waiting: usize,
    /// The job whose cool-down is over first, and when.
    pub(super) cooling_down: Option<(JobId, Instant)>,
}

/// Why a client came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The client wants a job of its own, and there is one.
    #[error("job {0} runs already")]
    Running(JobId),
    /// So many wait already.
    #[error("{waiting} syncs wait for their turn on this backend, as many as may (backend.queue)")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// The bridge is stopping.
    #[error("the bridge is stopping, and begins no sync any more")]
    Draining,
    /// The backend must be restarted first.
    #[error("{0}")]
    AwaitsRestart(String),
    /// The ledger does not work, and nothing may run without it.
    #[error("no sync may begin without a record of it (jobs.without_ledger): {0}")]
    LedgerUnavailable(String),
}

impl Registry {
    /// A registry without jobs.
    pub fn new(config: Arc<Config>, ledger: Arc<dyn Ledger>) -> Arc<Self> {
        let mut salt = [0; 32];
        salt[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        salt[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        let secrets = Secrets::default();
        secrets.configure(&config);
        Arc::new(Self {
            memory: Memory::new(config.limits.all_logs_bytes),
            ledger,
            salt,
            places: Places::new(Arc::clone(&config)),
            config: ArcSwap::new(config),
            jobs: Mutex::default(),
            clients: Clients::default(),
            secrets,
            held: Mutex::default(),
            cooldowns: watch::Sender::new(()),
            unfinished: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            tasks: Mutex::default(),
        })
    }

    /// From now on jobs begin with `config`, and as many run at once as it says. Those that are there keep theirs.
    pub fn configure(&self, config: Arc<Config>) {
        self.memory.resize(config.limits.all_logs_bytes);
        self.secrets.configure(&config);
        self.ledger.keep_for(retention(&config.limits));
        self.config.store(Arc::clone(&config));
        self.places.configure(config);
    }

    /// The ledger of these jobs.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// Brings a client to the job that it asks for. One that runs is never started again.
    ///
    /// # Errors
    ///
    /// See [`Denied`].
    pub async fn enter(self: &Arc<Self>, request: Request, arrival: Arrival) -> Result<Entered, Denied> {
        let key = Key::of(&request, &self.salt);
        let last = arrival.last_event.filter(|last| !last.is_empty());
        if let Some(last) = &last {
            let resumed = self.resume(&key, &request, last).await;
            let from = match &resumed {
                None => telemetry::Origin::Unknown,
                Some(Entered::Watching(_)) => telemetry::Origin::Memory,
                Some(Entered::Replay { .. }) => telemetry::Origin::Ledger,
                Some(Entered::Seen) => telemetry::Origin::Seen,
            };
            telemetry::Resumed { from, event: &plain(last, ID_LENGTH) }.emit();
            if let Some(entered) = resumed {
                return Ok(entered);
            }
        }
        let mut watching = self.start_or_attach(key, request, arrival.fresh)?;
        if let Some(last) = last {
            let lost = format!(
                "This stream starts at event {FIRST} of job {}: event {:?} is unknown here, has expired, or is of another job.",
                watching.job.id,
                plain(&last, ID_LENGTH),
            );
            let notice = watching.notice.take();
            watching.notice = Some(notice.map_or_else(|| lost.clone(), |more| format!("{lost} {more}")));
        }
        Ok(Entered::Watching(watching))
    }

    /// Starts the job that is asked for, or finds the one that runs, and makes it go on to its end without
    /// clients.
    ///
    /// # Errors
    ///
    /// See [`Denied`].
    pub fn queue(self: &Arc<Self>, request: Request, fresh: bool) -> Result<Arc<Job>, Denied> {
        let key = Key::of(&request, &self.salt);
        let watching = self.start_or_attach(key, request, fresh)?;
        // Before this client goes, which is now.
        watching.job.stay();
        Ok(Arc::clone(&watching.job))
    }

    fn start_or_attach(
        self: &Arc<Self>,
        key: Key,
        request: Request,
        fresh: bool,
    ) -> Result<Watching, Denied> {
        let redactor = self.secrets.of(&request);
        let mut jobs = self.jobs();
        // One that is being cancelled is not what anybody asks for.
        if let Some(job) = jobs.by_key.get(&key).filter(|job| !job.is_stopping()) {
            if fresh {
                return Err(Denied::Running(job.id));
            }
            let mut watching = job.watch(FIRST, false);
            watching.notice = job.kept.notice(Kept::wanted_by(&request));
            return Ok(watching);
        }
        let config = self.config.load_full();
        self.admits(&jobs, &config, &request)?;
        let log = Log::new(config.limits.job_log_bytes, Arc::clone(&self.memory));
        let kept = Kept::wanted_by(&request);
        let record = self.record(&request, &redactor);
        let span = telemetry::job_span(record.id, &request.backend.config().name, request.endpoint);
        telemetry::log::hide_in(&span, &redactor);
        let (id, backend) = (key.clone(), request.backend.id().clone());
        let job = Job::new(NewJob { key: id, backend, config, log, record, kept, redactor, span });
        let watching = job.watch(FIRST, true);
        jobs.by_key.insert(key, Arc::clone(&job));
        jobs.by_id.insert(job.id, Arc::clone(&job));
        let life = lifecycle::live(Arc::clone(self), job, request);
        // With the jobs locked, so that no job begins behind the back of one who stops them all.
        self.unfinished.send_modify(|count| *count += 1);
        self.spawn(life);
        Ok(watching)
    }

    /// Runs `task`, which ends when the registry closes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Whether one more job may begin.
    fn admits(&self, jobs: &Jobs, config: &Config, request: &Request) -> Result<(), Denied> {
        if *self.draining.borrow() {
            return Err(Denied::Draining);
        }
        if config.jobs.without_ledger == Some(WithoutLedger::Refuse)
            && let Health::Unavailable(why) = &*self.ledger.health().borrow()
        {
            return Err(Denied::LedgerUnavailable(why.clone()));
        }
        if let Some(why) = self.held(&request.backend) {
            return Err(Denied::AwaitsRestart(why));
        }
        let Load { running, waiting, cooling_down } = self.load_of(jobs, request.backend.id());
        let config = request.backend.config();
        // There may be fewer places by now than are taken.
        let free = config.concurrency.saturating_sub(running + cooling_down);
        if waiting >= free + config.queue {
            return Err(Denied::QueueFull { waiting: waiting.saturating_sub(free) });
        }
        Ok(())
    }

    /// What tells one key from another in this process, and says nothing about it.
    pub fn key_hash(&self, key: &ApiKey) -> [u8; 32] {
        hash(&self.salt, key)
    }

    /// A client with this key, at this address, reads what the plugin reads at the beginning of a job.
    pub fn begins_job(&self, backend: &Backend, key: Option<&ApiKey>, address: IpAddr) {
        self.clients.begins_job(self.client(backend, key, address));
    }

    /// Whether that client was given an empty list in the place of `inventory`, which the backend cannot read.
    pub fn informs(
        &self,
        backend: &Backend,
        key: Option<&ApiKey>,
        address: IpAddr,
        missing: (Inventory, bool),
    ) {
        self.clients.informs(self.client(backend, key, address), missing.0, missing.1);
    }

    fn client(&self, backend: &Backend, key: Option<&ApiKey>, address: IpAddr) -> ClientId {
        // The same as that of its streams.
        let key = backend.config().api_key.as_ref().or(key).map(|key| self.key_hash(key));
        ClientId::new(backend.url().to_string(), key, Some(address))
    }

    /// No sync runs where `backend` is until `url` is released, because of `why`.
    pub fn hold(&self, url: String, backend: BackendId, why: String) {
        self.holds().insert(url, (backend, why));
    }

    /// Why no sync may run on `backend`, if that is so. It looks up where the backend is.
    pub async fn look_up_held(&self, backend: &Backend) -> Option<String> {
        if !self.holds().is_empty() {
            backend.resolve().await;
        }
        self.held(backend)
    }

    /// Why no sync may run on `backend`, if that is so, as far as it is known where the backend is.
    pub(super) fn held(&self, backend: &Backend) -> Option<String> {
        let is_on = self.config.load().shims.is_on(Shim::NetboxEndpoint);
        let holds = self.holds();
        let mut there = holds.values().filter(|(held, _)| is_on && held.is_at(backend.id()));
        there.next().map(|(_, why)| why.clone())
    }

    /// Syncs run again where a backend was held under `url`.
    pub fn release(&self, url: &str) {
        self.holds().remove(url);
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<String, (BackendId, String)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the ledger knows a client's credential by.
    fn fingerprint(&self, request: &Request) -> Option<String> {
        let credential = request.identity.key.as_ref();
        credential.map(|key| fingerprint(&self.ledger.secret(), key))
    }

    fn record(&self, request: &Request, redactor: &Redactor) -> Record {
        Record {
            vm: request.endpoint.vm.map(|vm| vm.0),
            query: redactor.query(&request.query),
            who: Who {
                fingerprint: self.fingerprint(request),
                address: request.address.clone(),
                actor: request.actor.as_ref().map(|actor| redactor.text(actor).into_owned()),
            },
            ..Record::new(request.backend.url().to_string(), request.endpoint.kind, Timestamp::now())
        }
    }

    /// A job that waits, runs, or has ended not long ago.
    pub fn find(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs().by_id.get(&id).cloned()
    }

    /// All of these, the newest first.
    pub fn known(&self) -> Vec<Arc<Job>> {
        self.jobs().by_id.values().rev().cloned().collect()
    }

    /// How much there is to do on `backend`.
    pub fn load(&self, backend: &Backend) -> Load {
        self.load_of(&self.jobs(), backend.id())
    }

    fn load_of(&self, jobs: &Jobs, backend: &BackendId) -> Load {
        let cooling_down = self.places.cooling_down(backend).len();
        let mut load = Load { running: 0, waiting: 0, cooling_down };
        for job in jobs.on(backend) {
            load.running += usize::from(job.has_place());
            load.waiting += usize::from(job.awaits_place());
        }
        load
    }

    /// Where it is heard that the bridge closes.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// What those who ask for metrics are told of the jobs in memory, at the time `now`.
    pub fn reading(&self, now: Timestamp) -> telemetry::Reading {
        let jobs = self.known();
        let silent = jobs.iter().filter_map(|job| job.silent_since()).map(|since| now.since(since)).max();
        telemetry::Reading {
            frame_age: silent.unwrap_or_default().as_secs_f64(),
            lag: jobs.iter().map(|job| job.log.lag()).max().unwrap_or_default(),
            log_bytes: self.memory.used(),
            log_bytes_limit: self.memory.limit(),
        }
    }

    /// Watches a job from behind the event with the number `after`, as one more client.
    pub fn watch(&self, id: JobId, after: u64) -> Option<Watching> {
        Some(self.find(id)?.watch(after + 1, false))
    }

    /// What `job` waits for.
    pub(super) fn ahead_of(&self, job: &Job) -> Ahead {
        let jobs = self.jobs();
        let others: Vec<_> = jobs.on(&job.backend).filter(|other| other.id != job.id).collect();
        let running = others.iter().filter(|other| other.has_place());
        let running = running.map(|other| other.key.endpoint().kind).collect();
        let waiting = others.iter().filter(|other| other.id < job.id && other.awaits_place()).count();
        let cooling_down = self.places.cooling_down(&job.backend).first().copied();
        Ahead { running, waiting, cooling_down }
    }

    /// Ends the cool-down of a job, and says whether there was one.
    pub fn end_cooldown(&self, id: JobId) -> bool {
        self.places.end_cooldown(id)
    }

    /// Whether a job runs a full update on `backend`.
    pub(super) fn drives_full_update(&self, backend: &BackendId) -> bool {
        let jobs = self.jobs();
        jobs.on(backend).any(|job| job.has_place() && job.key.endpoint().kind == Kind::FullUpdate)
    }

    /// A job has ended: the next request for the same starts a new one.
    pub(super) fn ended(&self, job: &Job) {
        if !job.end() {
            return;
        }
        let mut jobs = self.jobs();
        // Another one may have taken the place of one that was cancelled.
        if jobs.by_key.get(&job.key).is_some_and(|known| known.id == job.id) {
            jobs.by_key.remove(&job.key);
        }
        jobs.ended.push_back(job.id);
        if jobs.ended.len() > REMEMBERED
            && let Some(oldest) = jobs.ended.pop_front()
        {
            jobs.by_id.remove(&oldest);
        }
        self.unfinished.send_modify(|count| *count -= 1);
    }

    /// Forgets a job that has ended.
    pub(super) fn forget(&self, id: JobId) {
        let mut jobs = self.jobs();
        jobs.by_id.remove(&id);
        jobs.ended.retain(|ended| *ended != id);
    }

    /// Removes what is older than it is to be kept, recordings included, and says what.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], if the ledger does not work.
    pub async fn clean(&self, cleaning: Cleaning) -> Result<Cleaned, Unavailable> {
        let data_dir = self.config.load().data_dir.clone();
        if let Some(data_dir) = &data_dir {
            recordings::narrow(data_dir.clone()).await;
        }
        let cleaned = self.ledger.clean(cleaning).await?;
        if let Some(problem) = &cleaned.held {
            telemetry::LedgerCleaningHeld { problem }.emit();
            return Ok(cleaned);
        }
        let recordings = match data_dir {
            Some(data_dir) => self.remove_recordings(&data_dir, &cleaned, cleaning).await,
            None => 0,
        };
        let (jobs, logs, left) = (cleaned.jobs.len(), cleaned.logs.len(), cleaned.left);
        telemetry::Cleaned { jobs, logs, recordings, left }.emit();
        Ok(cleaned)
    }

    /// From now on, records the jobs that are in memory anew each time that the file of the ledger was lost.
    pub fn restore_lost_records(self: &Arc<Self>) {
        let registry = Arc::clone(self);
        let (mut lost, mut closing) = (self.ledger.lost(), self.closing());
        self.spawn(async move {
            loop {
                let is_lost = tokio::select! {
                    biased;
                    _ = closing.wait_for(|closing| *closing) => false,
                    changed = lost.changed() => changed.is_ok(),
                };
                if !is_lost {
                    return;
                }
                let frames = registry.config.load().jobs.log_frames;
                for job in registry.known() {
                    let frames = job.log.tail(0, frames).iter().map(stored).collect();
                    // The ledger keeps it until it is written.
                    drop(registry.ledger.put(Entry { record: job.record(), frames }));
                }
            }
        });
    }

    /// Begins no job any more; those that wait for their turn end.
    pub fn drain(&self) {
        let _no_job_begins = self.jobs();
        self.draining.send_replace(true);
    }

    /// Whether no job begins any more.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Done when every job has ended.
    pub async fn idle(&self) {
        let mut unfinished = self.unfinished.subscribe();
        // The sender is a part of this registry.
        let _ = unfinished.wait_for(|count| *count == 0).await;
    }

    /// Ends what runs, as interrupted, and waits until it has ended and is recorded.
    pub async fn close(&self) {
        self.drain();
        let running: Vec<_> = self.jobs().by_id.values().cloned().collect();
        for job in running {
            job.stop(Cause::Stopping);
        }
        self.closing.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long the ledger keeps what is in it, by `limits`.
pub fn retention(limits: &Limits) -> Retention {
    Retention {
        jobs: limits.retention,
        logs: limits.log_retention,
        clock_jump: limits.clock_jump,
        clock_hold: limits.clock_hold,
        share: limits.clean_share,
    }
}
