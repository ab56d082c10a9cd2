//! Operations on the table of jobs: start a job or attach to a running one, and remove old records.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::handle::{Job, NewJob, Watcher};
use super::log::{FIRST, JobLog};
use super::registry::{AdmitError, AttachOptions, Attached, Registry};
use super::request::{JobKey, SyncRequest};
use super::{lifecycle, recordings};
use crate::backend::Backend;
use crate::core::text::plain;
use crate::ledger::{Cleaning, CleaningResult, JobUpdate, LedgerUnavailable};
use crate::telemetry;

/// How much of an invalid id is repeated in an error, in characters.
const MAX_ID: usize = 64;
/// The interval between two attempts to restore the state of an earlier process.
const RETRY: Duration = Duration::from_secs(5);

impl Registry {
    /// Attaches a client to the job that it requests, and starts the job if there is none. A running job is never
    /// started again.
    ///
    /// # Errors
    ///
    /// See [`AdmitError`].
    pub async fn attach(
        self: &Arc<Self>,
        request: SyncRequest,
        options: AttachOptions,
    ) -> Result<Attached, AdmitError> {
        request.backend.locate().await;
        let key = JobKey::new(&request, &self.salt);
        let last = options.last_event.as_deref().filter(|last| !last.is_empty());
        if let Some(last) = last {
            let resumed = self.resume(&key, &request, last).await;
            let from = match &resumed {
                None => telemetry::ResumeSource::Unknown,
                Some(Attached::Watching(_)) => telemetry::ResumeSource::Memory,
                Some(Attached::Replay(_)) => telemetry::ResumeSource::Ledger,
                Some(Attached::Seen) => telemetry::ResumeSource::Seen,
            };
            telemetry::StreamResumed { from, event: &plain(last, MAX_ID) }.emit();
            if let Some(entered) = resumed {
                return Ok(entered);
            }
        }
        let mut watching = self.start_or_attach(key, request, &options)?;
        if let Some(last) = last {
            let lost = format!(
                "This stream starts at event {FIRST} of job {}: event {:?} is unknown here, has expired, or is of another job.",
                watching.job.id,
                plain(last, MAX_ID),
            );
            let notice = watching.notice.take();
            watching.notice = Some(notice.map_or_else(|| lost.clone(), |more| format!("{lost} {more}")));
        }
        Ok(Attached::Watching(watching))
    }

    /// Starts the requested job, or finds the running one, and makes it run to its end without watchers.
    ///
    /// # Errors
    ///
    /// See [`AdmitError`].
    pub async fn queue(
        self: &Arc<Self>,
        request: SyncRequest,
        options: &AttachOptions,
    ) -> Result<Arc<Job>, AdmitError> {
        request.backend.locate().await;
        let key = JobKey::new(&request, &self.salt);
        let watching = self.start_or_attach(key, request, options)?;
        // Before the watcher is dropped.
        watching.job.keep_running();
        Ok(Arc::clone(&watching.job))
    }

    fn start_or_attach(
        self: &Arc<Self>,
        key: JobKey,
        request: SyncRequest,
        options: &AttachOptions,
    ) -> Result<Watcher, AdmitError> {
        let redactor = self.secrets.redactor_for(&request);
        let mut jobs = self.jobs();
        if let Some(job) = jobs.identical(&key, &request) {
            if options.fresh {
                return Err(AdmitError::Running(job.id));
            }
            let mut watching = job.attach(FIRST);
            watching.notice = job.selection.notice(request.selection);
            return Ok(watching);
        }
        let config = self.config.load_full();
        self.admit(&jobs, &config, &request)?;
        let log = JobLog::new(config.limits.job_log_bytes, Arc::clone(&self.memory));
        let selection = request.selection;
        let record = self.record(&request, &redactor);
        let span = telemetry::job_span(record.id, &request.backend.config().name, request.endpoint);
        telemetry::log::redact_span(&span, &redactor);
        // A job without a client is one of the command line.
        if request.address.is_some() {
            telemetry::Audited {
                user: record.requester.actor.as_deref(),
                client: request.client(),
                action: telemetry::AuditAction::Start {
                    job: record.id.to_string(),
                    backend: &request.backend.config().name,
                    kind: request.endpoint.kind.as_str(),
                    query: &record.query,
                },
            }
            .emit();
        }
        let backend = request.backend.id().clone();
        let job = Job::new(NewJob { key, backend, config, log, record, selection, redactor, span });
        let watching = job.watch(FIRST);
        jobs.unfinished.insert(job.id, Arc::clone(&job));
        jobs.by_id.insert(job.id, Arc::clone(&job));
        let life = lifecycle::run_job(Arc::clone(self), job, request);
        // Under the lock, so that no job starts unseen while all are being stopped.
        self.unfinished.send_modify(|count| *count += 1);
        self.spawn(life);
        Ok(watching)
    }

    /// Removes records and recordings that are past their retention, and returns what was removed.
    ///
    /// # Errors
    ///
    /// [`LedgerUnavailable`], if the ledger does not work.
    pub async fn clean(&self, cleaning: Cleaning) -> Result<CleaningResult, LedgerUnavailable> {
        let data_dir = self.config.load().data_dir.clone();
        if let Some(data_dir) = &data_dir {
            recordings::restrict_permissions(data_dir.clone()).await;
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
        telemetry::LedgerCleaned { jobs, logs, recordings, left }.emit();
        Ok(cleaned)
    }

    /// Restores the state of an earlier process: the history of backends, and a permit for every job that one of
    /// `backends` may still run. If the ledger does not answer, this is done once it does. Ends the recordings of that process.
    pub async fn restore(self: &Arc<Self>, backends: &[Arc<Backend>]) {
        let data_dir = self.config.load().data_dir.clone();
        if let Some(data_dir) = data_dir {
            recordings::end_unfinished(data_dir).await;
        }
        let (mut closing, mut health) = (self.closing(), self.ledger().health());
        if self.try_restore(backends).await.is_ok() {
            return;
        }
        let (registry, backends) = (Arc::clone(self), backends.to_vec());
        self.spawn(async move {
            // The ledger reports its own failures. A failed query does not always change its health.
            let restored = async {
                while !matches!(timeout(RETRY, health.changed()).await, Ok(Err(_)))
                    && registry.try_restore(&backends).await.is_err()
                {}
            };
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => {}
                () = restored => {}
            }
        });
    }

    async fn try_restore(self: &Arc<Self>, backends: &[Arc<Backend>]) -> Result<(), LedgerUnavailable> {
        self.history.load().await?;
        self.resume_cooldowns(backends).await
    }

    /// Spawns a task that records the jobs in memory and the history of backends again whenever the file of the ledger
    /// was lost.
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
                // The oldest first: the last success is the last one that is written.
                for job in registry.all().into_iter().rev() {
                    let frames = job.log.tail(0, frames);
                    job.lose_failures();
                    // The ledger keeps the update until it is written.
                    drop(registry.ledger.put(JobUpdate::new(job.record(), frames)));
                }
                registry.history.save();
            }
        });
    }
}
