//! Runs a job: waits for a permit, drives the session, feeds it the events of the connection, and records its output.

mod prepare;
mod queue;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::clients::ClientId;
use super::connection::{self, ConnectionEvent, LegConnection};
use super::handle::{Job, StartResult, StopSignal};
use super::record_writer::RecordWriter;
use super::recorder::Recorder;
use super::registry::{AdmitError, Registry};
use super::request::SyncRequest;
use crate::backend::{AuthFailure, KeyAttempt};
use crate::config::{JobRecording, WithoutLedger};
use crate::core::compat::{Shim, ShimAction, with_vm_ids};
use crate::core::domain::channel::Channel;
use crate::core::domain::outcome::{Cause, Outcome, RunReport};
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::run::normalizer::Normalizer;
use crate::core::run::plan::Leg;
use crate::core::run::session::PendingRun;
use crate::core::run::session::{
    CloseReason, NOTICE_GAP, Session, SessionEvent, SessionOutput, SessionSetup,
};
use crate::core::wire::sse::frame::Frame;
use crate::core::wire::traffic::FrameCounts;
use crate::deadline::{DeadlineTimer, timeout};
use crate::ledger::{Cooldown, JobEnd, LoggedFrame, Stored, Timestamp};
use crate::recording::RecordedKey;
use crate::telemetry::{self, GaugeGuard};
use prepare::Preparation;
use work::LegWork;

/// A running job.
pub(super) struct Runner {
    registry: Arc<Registry>,
    job: Arc<Job>,
    stopping: StopSignal,
    request: SyncRequest,
    record_writer: RecordWriter,
    /// Records the bytes of the backend, if recording is enabled.
    recorder: Option<Recorder>,
    /// The release of the backend, if known.
    release: Option<Release>,
    /// The query for the backend, in the vocabulary of its release.
    query: String,
    /// Notices for readers when the backend has accepted the work.
    notices: Vec<String>,
    /// The trial of a key that may be wrong, until the backend has answered it.
    key_attempt: Option<KeyAttempt>,
    connection: LegConnection,
    channel: Option<Channel>,
    /// The work that the backend may be running.
    work: Option<LegWork>,
    /// The job may be driven again if the capabilities of the backend prove to be wrong.
    may_retry: bool,
    /// The frames from the backend that are counted in the metrics so far.
    counted_frames: FrameCounts,
    /// The generation of the backend's keys at the last request.
    generation: u64,
    /// When the job began to drive the backend; before that, when it was queued.
    began: Instant,
    /// Counts the job as running in the metrics.
    running: Option<GaugeGuard>,
    /// The deadline of the session.
    deadline: DeadlineTimer,
    clock: (Timestamp, Instant),
}

/// The result of one attempt.
enum AttemptResult {
    /// The job has ended.
    Done,
    /// The capabilities of the backend have changed, and no work has begun.
    Retry,
}

impl Runner {
    pub(super) fn new(registry: Arc<Registry>, job: Arc<Job>, request: SyncRequest) -> Self {
        let config = &job.config;
        let ledger = Arc::clone(&registry.ledger);
        let record_writer =
            RecordWriter::new(ledger, Arc::clone(&job), config.limits.ledger, config.jobs.log_frames);
        let now = Instant::now();
        let clock = (job.record_lock().queued, now);
        let connection = LegConnection::default();
        let is_recorded = config.jobs.recording != JobRecording::Off;
        let recording = config.data_dir.as_deref().filter(|_| is_recorded);
        let room = config.limits.recording_bytes;
        let recorder = recording.map(|folder| Recorder::new(folder, job.id, room, job.redactor.clone()));
        Self {
            registry,
            stopping: job.stopping(),
            job,
            request,
            record_writer,
            recorder,
            release: None,
            query: String::new(),
            notices: Vec::new(),
            key_attempt: None,
            connection,
            channel: None,
            work: None,
            may_retry: true,
            counted_frames: FrameCounts::default(),
            generation: 0,
            began: now,
            running: None,
            deadline: DeadlineTimer::new(now),
            clock,
        }
    }

    pub(super) async fn run(mut self) {
        let recorded = self.record_writer.persist(&[]).await;
        let query = self.job.record_lock().query.clone();
        telemetry::JobQueued { query: &query }.emit();
        let mut waiting = self.pending_run();
        let mut out = SessionOutput::default();
        if let (Err(why), Some(WithoutLedger::Refuse)) = (recorded, self.job.config.jobs.without_ledger) {
            // The failure was unknown when the job was admitted.
            let reason = AdmitError::LedgerUnavailable(why.0).to_string();
            waiting.refuse(Refusal::no_record(&reason, self.retry_after()), &mut out);
            self.apply(&mut out).await;
            return;
        }
        if let Err(cause) = self.acquire_permit(&mut waiting).await {
            waiting.stop(cause, self.retry_after(), &mut out);
            self.apply(&mut out).await;
            return;
        }
        if let AttemptResult::Retry = self.attempt(waiting).await {
            // The cached capabilities were wrong, and have been dropped. A refused socket is not tried again.
            self.request.over_socket = false;
            self.attempt(self.pending_run()).await;
        }
    }

    fn pending_run(&self) -> PendingRun {
        PendingRun::new(self.request.endpoint.kind, prepare::options(&self.job, &self.request))
    }

    async fn attempt(&mut self, waiting: PendingRun) -> AttemptResult {
        let mut out = SessionOutput::default();
        self.generation = self.request.backend.gate.generation();
        let Self { registry, job, stopping, request, key_attempt, .. } = self;
        let preparation = prepare::prepare(registry, job, stopping, request, key_attempt).await;
        registry.history.note_capabilities(&request.backend);
        match preparation {
            Preparation::Drive { setup, release, query } => {
                self.release = release;
                self.query = query;
                return self.drive(waiting, *setup).await;
            }
            Preparation::Refuse(refusal) => waiting.refuse(refusal, &mut out),
            Preparation::Skip { why } => {
                let mut waiting = waiting;
                waiting.start(&mut out);
                self.apply(&mut out).await;
                tokio::select! {
                    biased;
                    cause = self.stopping.cause() => waiting.stop(cause, self.retry_after(), &mut out),
                    () = sleep(NOTICE_GAP) => waiting.skip(why, &mut out),
                }
            }
            Preparation::Stop(cause) => waiting.stop(cause, self.retry_after(), &mut out),
        }
        self.apply(&mut out).await;
        AttemptResult::Done
    }

    async fn drive(&mut self, waiting: PendingRun, setup: SessionSetup) -> AttemptResult {
        let may_retry = std::mem::take(&mut self.may_retry) && !waiting.has_begun();
        self.start(&setup);
        self.counted_frames = FrameCounts::default();
        self.notices.clone_from(&setup.notices);
        let mut out = SessionOutput::default();
        let mut session = waiting.drive(setup, &mut out);
        loop {
            // A missing path or a refused handshake has started no work. (A 404 for a single virtual machine may be
            // genuine.)
            if may_retry
                && self.request.endpoint.vm.is_none()
                && out.refused.as_ref().is_some_and(|refusal| matches!(refusal.status, 403..=405))
            {
                self.connection = LegConnection::default();
                self.key_attempt = None;
                return AttemptResult::Retry;
            }
            if out.accepted {
                // These notices are sent whatever happens next.
                let client = ClientId::from_request(&self.request, &self.job.key);
                self.registry.clients.mark_notified(client, std::mem::take(&mut self.notices));
            }
            if out.end.is_some() {
                self.progress(&session);
            }
            if let Some(broken) = self.apply(&mut out).await {
                session.handle(self.now(), SessionEvent::Closed(CloseReason::Broken(&broken)), &mut out);
                continue;
            }
            let Some(due) = session.deadline() else { return AttemptResult::Done };
            let arrived = self.wait(self.began + due, &session).await;
            let now = self.now();
            match arrived {
                NextEvent::Write => {
                    self.progress(&session);
                    self.record_writer.write();
                    if let Some(recorder) = &mut self.recorder {
                        recorder.write().await;
                    }
                    continue;
                }
                NextEvent::Tick => session.handle(now, SessionEvent::Tick, &mut out),
                NextEvent::Stop(cause) => session.handle(now, SessionEvent::Stopped(cause), &mut out),
                NextEvent::Arrived(first) => {
                    let mut next = Some(first);
                    while let Some(arrived) = next {
                        if let Some(recorder) = &mut self.recorder {
                            recorder.record_event(&arrived, self.channel);
                        }
                        session.handle(now, self.event(&arrived), &mut out);
                        // The other actions come before the next event.
                        let is_alone = session.has_notices() || !out.has_only_frames();
                        next = if is_alone { None } else { self.connection.read() };
                    }
                }
            }
            self.count(&session);
            self.record_writer.mark_dirty();
        }
    }

    fn event<'a>(&mut self, arrived: &'a ConnectionEvent) -> SessionEvent<'a> {
        match arrived {
            ConnectionEvent::Opened { .. } => {
                // The backend opens a socket before it checks the key.
                if self.channel != Some(Channel::Websocket) {
                    self.accept_key();
                }
                SessionEvent::Opened
            }
            ConnectionEvent::Answered(exchange, body) => {
                let answer = exchange.error_response(body);
                if (200..300).contains(&answer.status) {
                    self.accept_key();
                }
                self.work = self.work.filter(|work| work.may_precede(answer.status));
                // These statuses indicate that the backend was replaced by another release.
                if matches!(answer.status, 403..=405) {
                    self.request.backend.capabilities_cache.invalidate();
                }
                SessionEvent::Answered(answer)
            }
            ConnectionEvent::Unreachable(why) => {
                self.work = None;
                self.request.backend.capabilities_cache.invalidate();
                SessionEvent::Unreachable(why)
            }
            ConnectionEvent::Bytes(bytes) => SessionEvent::Bytes(bytes),
            ConnectionEvent::Text(text) => SessionEvent::Text(text.as_str()),
            ConnectionEvent::Cleanly => SessionEvent::Closed(CloseReason::Cleanly),
            ConnectionEvent::Broken(why) => SessionEvent::Closed(CloseReason::Broken(why)),
            ConnectionEvent::Close { code, reason } => {
                SessionEvent::Closed(CloseReason::Frame { code: *code, reason })
            }
        }
    }

    async fn wait(&mut self, due: Instant, session: &Session) -> NextEvent {
        let has_notices = session.has_notices();
        let deadline = async {
            if has_notices {
                // No grace period: nothing is read from the backend.
                return sleep_until(due).await;
            }
            self.deadline.set(due);
            self.deadline.expired().await;
        };
        tokio::select! {
            biased;
            cause = self.stopping.cause() => NextEvent::Stop(cause),
            // Checked before the connection: a backend that sends without pause must not escape its limits.
            () = deadline => NextEvent::Tick,
            () = self.record_writer.due() => NextEvent::Write,
            arrived = self.connection.next(), if !has_notices => NextEvent::Arrived(arrived),
        }
    }

    /// Notes that the job begins to drive its backend.
    fn start(&mut self, setup: &SessionSetup) {
        let mut channels: Vec<Channel> = Vec::new();
        for leg in &setup.plan.legs {
            if !channels.contains(&leg.channel) {
                channels.push(leg.channel);
            }
        }
        self.began = Instant::now();
        {
            let mut record = self.job.record_lock();
            if record.started.is_none() {
                record.started = Some(self.time());
                let kind = setup.endpoint.kind;
                let started = telemetry::JobStarted {
                    kind,
                    backend: &self.request.backend.metrics,
                    channels: &channels,
                    dialect: setup.dialect,
                    query: &record.query,
                    request: self.request.id(),
                    client: record.requester.address.as_deref(),
                    user: record.requester.actor.as_deref(),
                };
                self.running = started.emit();
            }
            record.channels = channels.into_iter().map(Stored::Known).collect();
            record.dialect = setup.dialect.map(Stored::Known);
        }
        // It is written with the first leg, or at the next interval.
        self.record_writer.mark_dirty();
    }

    /// Counts the frames received since the last call.
    fn count(&mut self, session: &Session) {
        let frames = session.received().frames;
        let new = frames.since(&self.counted_frames);
        if new.total() > 0 {
            self.counted_frames = frames;
            self.job.note_frame(self.time());
            self.accept_key();
            telemetry::FramesReceived { channel: self.channel, frames: new }.emit();
        }
    }

    /// Updates the progress of the job.
    fn progress(&self, session: &Session) {
        let received = session.received();
        let updated = self.time();
        let mut record = self.job.record_lock();
        let progress = &mut record.progress;
        progress.updated = Some(updated);
        progress.first_frame = received.first;
        progress.counts = session.counts();
        progress.frames_in = received.frames.total();
        progress.bytes_in = received.bytes;
    }

    /// Applies the output of the session. Returns the reason if the socket could not be written to.
    async fn apply(&mut self, out: &mut SessionOutput) -> Option<String> {
        let SessionOutput {
            invalidate_capabilities: doubtful,
            accepted,
            refusal,
            refused,
            mut frames,
            failed,
            close,
            open,
            send,
            end,
        } = std::mem::take(out);
        if doubtful {
            self.request.backend.capabilities_cache.invalidate();
        }
        if let Some(refusal) = &refusal {
            if matches!(refusal.cause, Cause::BackendLost | Cause::Unreachable) {
                self.request.backend.capabilities_cache.invalidate();
            }
            self.note_auth_failure(refusal);
            self.key_attempt = None;
        }
        if let Some(refusal) = &refused {
            // Clients get a status instead of these frames, but they are kept in the log.
            frames = Normalizer::refusal_frames(self.request.endpoint.kind, refusal, &self.job.redactor);
        }
        if close || end.is_some() {
            self.connection = LegConnection::default();
            if let Some(recorder) = &mut self.recorder {
                recorder.close();
            }
        }
        self.record_writer.add_failures(self.time(), failed).await;
        let logged = self.number(frames);
        let started = refused.map(StartResult::Refused).or(accepted.then_some(StartResult::Accepted));
        let has_ended = end.is_some();
        if let Some(mut report) = end {
            report.redact(&self.job.redactor);
            let ended = self.end(&report, started.as_ref());
            if let Some(recorder) = &mut self.recorder {
                let limit = self.job.config.limits.ledger;
                recorder.end(limit).await;
                // An interrupted job keeps its recording, because it never gets here.
                let is_failed_only = self.job.config.jobs.recording == JobRecording::Failed;
                if is_failed_only && report.outcome == Outcome::Completed {
                    recorder.discard(limit).await;
                }
            }
            // Persist before clients see the end, so that every outcome they see is recorded. If persisting fails,
            // clients get it all the same: the ledger reports that it is unavailable.
            let _ = self.record_writer.persist(&logged).await;
            if self.job.mark_counted() {
                self.record_writer.log_more_failures();
                self.registry.history.note_success(&self.job.record());
                ended.emit();
            }
            self.registry.mark_ended(&self.job);
        }
        if let Some(started) = started {
            self.job.set_started(started);
        }
        self.job.log.append(logged);
        if has_ended {
            self.job.log.end();
            return None;
        }
        if let Some(leg) = open {
            self.expect_work(&leg).await;
            let SyncRequest { backend, identity, .. } = &self.request;
            let target = self.target(&leg);
            if let Some(recorder) = &mut self.recorder {
                let release = self.release.map(|release| release.to_string());
                let key = if identity.key.is_some() { RecordedKey::Sent } else { RecordedKey::None };
                recorder.open(&leg, release.as_deref(), &target, key);
            }
            self.channel = Some(leg.channel);
            self.connection = LegConnection::open(Arc::clone(backend), &leg, target, identity.clone());
        }
        if send.is_empty() {
            return None;
        }
        // A command is small: a backend that does not accept it accepts nothing.
        let limit = self.request.backend.limits().probe;
        match timeout(limit, self.connection.send(&send)).await {
            Ok(Ok(has_command)) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.record_sent(&send);
                }
                if let Some(work) = &mut self.work {
                    work.has_begun |= has_command;
                }
                None
            }
            Ok(Err(broken)) => Some(broken),
            Err(_) => {
                // What was written may still arrive.
                if let Some(work) = &mut self.work {
                    work.has_begun = true;
                }
                Some("it does not take what it is sent".to_owned())
            }
        }
    }

    /// The request target of `leg`.
    fn target(&self, leg: &Leg) -> String {
        let shim = Shim::VmIds;
        let is_on = leg.channel == Channel::Native && self.job.config.shims.is_on(shim);
        let with_ids = || with_vm_ids(&self.query, leg.endpoint, self.release);
        let Some(query) = is_on.then(with_ids).flatten() else {
            return connection::target(leg, &self.query);
        };
        telemetry::RequestShimmed { shim, action: ShimAction::Translated, path: &leg.path() }.emit();
        connection::target(leg, &query)
    }

    /// Marks the key as accepted by the backend.
    fn accept_key(&mut self) {
        if self.key_attempt.take().is_some() {
            self.request.backend.gate.accept(self.job.key.credential());
        }
    }

    /// Notes a refusal of the key, so that the key is not sent to the backend again.
    fn note_auth_failure(&self, refusal: &Refusal) {
        let SyncRequest { backend, .. } = &self.request;
        let (client, key) = (self.request.client(), self.job.key.credential());
        // Not for refusals by the bridge itself: they are noted already, or there is no key.
        if backend.gate.backoff_for(client, key).is_some() || (key.is_none() && !refusal.is_from_backend()) {
            return;
        }
        let text = refusal.text();
        let retry_after = refusal.retry_after.as_deref();
        let generation = self.generation;
        let failure = AuthFailure { status: refusal.status, retry_after, text: &text, generation };
        backend.note_auth_failure(failure, client, key);
    }

    /// Numbers frames for the log, and counts them.
    fn number(&self, frames: Vec<Frame>) -> Vec<LoggedFrame> {
        // Many frames of a backend produce no output.
        if frames.is_empty() {
            return Vec::new();
        }
        let logged = self.job.log.assign_sequence(frames, self.time());
        telemetry::FramesWritten { channel: self.channel, frames: &logged }.emit();
        let mut record = self.job.record_lock();
        record.progress.frames_out += logged.len() as u64;
        record.progress.bytes_out += logged.iter().map(|frame| frame.frame.bytes.len() as u64).sum::<u64>();
        logged
    }

    /// Ends the job, and releases its permit at once or after a cool-down. The returned event is to be logged once
    /// the end is recorded.
    fn end<'a>(&mut self, report: &'a RunReport, started: Option<&StartResult>) -> telemetry::JobEnded<'a> {
        self.registry.clients.ended(ClientId::from_request(&self.request, &self.job.key));
        let finished = self.time();
        let rest = self.remaining_work(report.cause);
        let reporter = self.reporter();
        let mut record = self.job.record_lock();
        let ended = telemetry::JobEnded {
            kind: self.request.endpoint.kind,
            backend: Arc::clone(&self.request.backend.metrics),
            channel: self.channel,
            has_stream: !matches!(started, Some(StartResult::Refused(_))),
            report,
            duration: finished.since(record.started.unwrap_or(record.queued)),
            has_started: record.started.is_some(),
            running: self.running.take(),
        };
        let RunReport { outcome, cause, failure, counts, failed_objects, .. } = report.clone();
        record.progress.updated = Some(finished);
        record.progress.counts = counts;
        record.cooldown = rest.map(|rest| Cooldown { least: Duration::ZERO, until: finished.after(rest) });
        record.end = Some(JobEnd { finished, outcome, cause, failure, failed_objects });
        drop(record);
        self.registry.release_permit(&self.job, rest, reporter);
        ended
    }

    /// The time since the job began to drive the backend.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn time(&self) -> Timestamp {
        let (then, at) = self.clock;
        Timestamp(then.0 + u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn retry_after(&self) -> u64 {
        self.request.backend.limits().retry_after.as_secs()
    }
}

/// The next input of a session.
enum NextEvent {
    /// Its deadline has passed.
    Tick,
    /// The job must end.
    Stop(Cause),
    /// The progress is due to be written.
    Write,
    /// An event of its connection.
    Arrived(ConnectionEvent),
}
