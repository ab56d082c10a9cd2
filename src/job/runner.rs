//! Runs a job: waits for its turn, drives its session, hands it what arrives, and writes what it says.

mod prepare;
mod queue;
mod work;

pub use prepare::held_back;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::clients::ClientId;
use super::connection::{self, Arrived, Connection};
use super::handle::{Job, Started, Stopping};
use super::log::Logged;
use super::record_writer::Chronicle;
use super::recorder::Tape;
use super::registry::{Denied, Registry};
use super::request::Request;
use crate::backend::{Lesson, Trial};
use crate::config::WithoutLedger;
use crate::core::compat::{Action, Shim, with_vm_ids};
use crate::core::domain::channel::Channel;
use crate::core::domain::outcome::{Cause, Report};
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::run::normalizer::Normalizer;
use crate::core::run::plan::Leg;
use crate::core::run::session::Waiting;
use crate::core::run::session::{Closed, Event, NOTICE_GAP, Output, Session, Setup};
use crate::core::upstream::dialect::Dialect;
use crate::core::wire::sse::encoder::Frame;
use crate::core::wire::traffic::Traffic;
use crate::deadline::{Timer, timeout};
use crate::ledger::{Cooldown, End, Timestamp};
use crate::telemetry;
use prepare::Approach;
use work::Work;

/// One job at work.
pub(super) struct Runner {
    registry: Arc<Registry>,
    job: Arc<Job>,
    stopping: Stopping,
    request: Request,
    chronicle: Chronicle,
    /// Where the backend's own words are kept, if they are.
    tape: Option<Tape>,
    /// The backend's release, if it is known.
    release: Option<Release>,
    /// What the backend is asked, in the words of that release.
    query: String,
    /// What readers are told when the backend has accepted the work.
    notices: Vec<String>,
    /// Its key may be wrong, until the backend has answered it.
    trial: Option<Trial>,
    connection: Connection,
    channel: Option<Channel>,
    /// What the backend may be at work on.
    work: Option<Work>,
    /// What has come from the backend, as far as it was counted.
    counted: Traffic,
    /// How often keys of the backend had changed when it was last asked for.
    generation: u64,
    /// When it began to drive the backend; before that, when it was queued.
    began: Instant,
    /// The session's deadline.
    deadline: Timer,
    clock: (Timestamp, Instant),
}

/// What came of one attempt.
enum Attempt {
    /// The job has ended.
    Done,
    /// The backend is not the one that it was, and nothing has begun.
    Again,
}

impl Runner {
    pub(super) fn new(registry: Arc<Registry>, job: Arc<Job>, request: Request) -> Self {
        let config = &job.config;
        let ledger = Arc::clone(&registry.ledger);
        let chronicle =
            Chronicle::new(ledger, Arc::clone(&job), config.limits.ledger, config.jobs.log_frames);
        let now = Instant::now();
        let clock = (job.recorded().queued, now);
        let connection = Connection::None;
        let recording = config.jobs.recording.then_some(config.data_dir.as_deref()).flatten();
        let room = config.limits.recording_bytes;
        let tape = recording.map(|folder| Tape::new(folder, job.id, room, job.redactor.clone()));
        Self {
            registry,
            stopping: job.stopping(),
            job,
            request,
            chronicle,
            tape,
            release: None,
            query: String::new(),
            notices: Vec::new(),
            trial: None,
            connection,
            channel: None,
            work: None,
            counted: Traffic::default(),
            generation: 0,
            began: now,
            deadline: Timer::new(now),
            clock,
        }
    }

    pub(super) async fn run(mut self) {
        let recorded = self.chronicle.keep(&[]).await;
        let query = self.job.recorded().query.clone();
        telemetry::JobQueued { query: &query }.emit();
        let mut waiting = self.waiting();
        let mut out = Output::default();
        if let (Err(why), Some(WithoutLedger::Refuse)) = (recorded, self.job.config.jobs.without_ledger) {
            // Nobody knew it when the job was let in.
            let denied = Denied::LedgerUnavailable(why.0).to_string();
            waiting.refuse(Refusal::no_record(&denied, self.retry_after()), &mut out);
            self.follow(&mut out).await;
            return;
        }
        if let Err(cause) = self.turn(&mut waiting).await {
            waiting.stop(cause, self.retry_after(), &mut out);
            self.follow(&mut out).await;
            return;
        }
        if let Attempt::Again = self.attempt(waiting, true).await {
            // What was known of the backend was wrong, and has been forgotten. A socket that was denied is no way.
            self.request.over_socket = false;
            self.attempt(self.waiting(), false).await;
        }
    }

    fn waiting(&self) -> Waiting {
        Waiting::new(self.request.endpoint.kind, prepare::options(&self.job, &self.request))
    }

    async fn attempt(&mut self, waiting: Waiting, may_repeat: bool) -> Attempt {
        let mut out = Output::default();
        self.generation = self.request.backend.shield.generation();
        let Self { registry, job, stopping, request, trial, .. } = self;
        match prepare::approach(registry, job, stopping, request, trial).await {
            Approach::Drive { setup, release, query } => {
                self.release = release;
                self.query = query;
                let may_repeat = may_repeat && !waiting.has_told();
                return self.drive(waiting, *setup, may_repeat).await;
            }
            Approach::Refuse(refusal) => waiting.refuse(refusal, &mut out),
            Approach::Skip { why } => {
                let mut waiting = waiting;
                waiting.start(&mut out);
                self.follow(&mut out).await;
                tokio::select! {
                    biased;
                    cause = self.stopping.cause() => waiting.stop(cause, self.retry_after(), &mut out),
                    () = sleep(NOTICE_GAP) => waiting.skip(why, &mut out),
                }
            }
            Approach::Stop(cause) => waiting.stop(cause, self.retry_after(), &mut out),
        }
        self.follow(&mut out).await;
        Attempt::Done
    }

    async fn drive(&mut self, waiting: Waiting, setup: Setup, may_repeat: bool) -> Attempt {
        self.start(&setup);
        self.counted = Traffic::default();
        self.notices.clone_from(&setup.notices);
        let mut out = Output::default();
        let mut session = waiting.drive(setup, &mut out);
        loop {
            // A path that is not there and a handshake that was refused have started nothing. (A single
            // virtual machine may really not be there.)
            if may_repeat
                && self.request.endpoint.vm.is_none()
                && out.refused.as_ref().is_some_and(|refusal| matches!(refusal.status, 403..=405))
            {
                self.connection = Connection::None;
                self.trial = None;
                return Attempt::Again;
            }
            if out.accepted {
                // From now on they will be told, whatever happens.
                let client = ClientId::of(&self.request, &self.job.key);
                self.registry.clients.told(client, std::mem::take(&mut self.notices));
            }
            if out.end.is_some() {
                self.progress(&session);
            }
            if let Some(broken) = self.follow(&mut out).await {
                session.handle(self.now(), Event::Closed(Closed::Broken(&broken)), &mut out);
                continue;
            }
            let Some(due) = session.deadline() else { return Attempt::Done };
            let arrived = self.wait(self.began + due, &session).await;
            let event = match &arrived {
                Next::Write => {
                    self.progress(&session);
                    self.chronicle.write();
                    if let Some(tape) = &mut self.tape {
                        tape.write().await;
                    }
                    continue;
                }
                Next::Tick => Event::Tick,
                Next::Stop(cause) => Event::Stopped(*cause),
                Next::Arrived(arrived) => {
                    if let Some(tape) = &mut self.tape {
                        tape.arrived(arrived, self.channel);
                    }
                    self.event(arrived)
                }
            };
            session.handle(self.now(), event, &mut out);
            self.count(&session);
            self.chronicle.note();
        }
    }

    fn event<'a>(&mut self, arrived: &'a Arrived) -> Event<'a> {
        match arrived {
            Arrived::Opened { .. } => {
                // A socket is opened before its key is looked at.
                if self.channel != Some(Channel::Websocket) {
                    self.accept_key();
                }
                Event::Opened
            }
            Arrived::Answered(exchange, body) => {
                let answer = exchange.answer(body);
                if (200..300).contains(&answer.status) {
                    self.accept_key();
                }
                self.work = self.work.filter(|work| work.may_precede(answer.status));
                // A backend that turned out to be another one.
                if matches!(answer.status, 403..=405) {
                    self.request.backend.knowledge.forget();
                }
                Event::Answered(answer)
            }
            Arrived::Unreachable(why) => {
                self.work = None;
                self.request.backend.knowledge.forget();
                Event::Unreachable(why)
            }
            Arrived::Bytes(bytes) => Event::Bytes(bytes),
            Arrived::Text(text) => Event::Text(text.as_str()),
            Arrived::Cleanly => Event::Closed(Closed::Cleanly),
            Arrived::Broken(why) => Event::Closed(Closed::Broken(why)),
            Arrived::Close { code, reason } => Event::Closed(Closed::Frame { code: *code, reason }),
        }
    }

    async fn wait(&mut self, due: Instant, session: &Session) -> Next {
        let is_telling = session.is_telling();
        if !is_telling {
            self.deadline.set(due);
        }
        tokio::select! {
            biased;
            cause = self.stopping.cause() => Next::Stop(cause),
            // Before the connection: a backend that never stops talking must not outrun its limits.
            () = self.deadline.expired(), if !is_telling => Next::Tick,
            () = sleep_until(due), if is_telling => Next::Tick,
            () = self.chronicle.due() => Next::Write,
            arrived = self.connection.next(), if !is_telling => Next::Arrived(arrived),
        }
    }

    /// Notes that the job begins to drive its backend.
    fn start(&mut self, setup: &Setup) {
        let mut channels: Vec<String> = Vec::new();
        for leg in &setup.plan.legs {
            let channel = leg.channel.as_str();
            if !channels.iter().any(|known| known == channel) {
                channels.push(channel.to_owned());
            }
        }
        self.began = Instant::now();
        {
            let mut record = self.job.recorded();
            if record.started.is_none() {
                record.started = Some(self.time());
                let kind = setup.endpoint.kind;
                telemetry::JobStarted { kind, channels: &channels, dialect: setup.dialect }.emit();
            }
            record.channels = channels;
            record.dialect = setup.dialect.map(|dialect| dialect.as_str().to_owned());
        }
        self.chronicle.write();
    }

    /// Counts what has come since that was done last.
    fn count(&mut self, session: &Session) {
        let frames = session.received().frames;
        let new = frames.since(&self.counted);
        if new.total() > 0 {
            self.counted = frames;
            self.job.hear(self.time());
            self.accept_key();
            telemetry::FramesReceived { channel: self.channel, frames: new }.emit();
        }
    }

    /// Notes how far the job has come.
    fn progress(&self, session: &Session) {
        let received = session.received();
        let updated = self.time();
        let mut record = self.job.recorded();
        let progress = &mut record.progress;
        progress.updated = Some(updated);
        progress.first_frame = received.first;
        progress.counts = session.normalizer().tally().counts();
        progress.frames_in = received.frames.total();
        progress.bytes_in = received.bytes;
    }

    /// Does what the session says. Gives the reason if a socket could not be written to.
    async fn follow(&mut self, out: &mut Output) -> Option<String> {
        let Output { doubtful, accepted, refusal, refused, mut frames, close, open, send, end } =
            std::mem::take(out);
        if doubtful {
            self.request.backend.knowledge.forget();
        }
        if let Some(refusal) = &refusal {
            if matches!(refusal.cause, Cause::BackendLost | Cause::Unreachable) {
                self.request.backend.knowledge.forget();
            }
            self.heed(refusal);
            self.trial = None;
        }
        if let Some(refusal) = &refused {
            // Nobody is given these instead of a status, but whoever reads the log later is.
            frames = Normalizer::refused(self.request.endpoint.kind, refusal, &self.job.redactor);
        }
        if close || end.is_some() {
            self.connection = Connection::None;
            if let Some(tape) = &mut self.tape {
                tape.close();
            }
        }
        let logged = self.number(frames);
        if let Some(mut report) = end {
            report.redact(&self.job.redactor);
            let ended = self.end(&report, refused.is_none());
            if let Some(tape) = &mut self.tape {
                tape.end(self.job.config.limits.ledger).await;
            }
            // Before anybody is told of the end, so that an outcome that was told is one that is recorded.
            // What cannot be recorded is told all the same: the ledger says loudly that it does not work.
            let _ = self.chronicle.keep(&logged).await;
            if self.job.count() {
                ended.emit();
            }
            self.registry.ended(&self.job);
            self.begin(accepted, refused);
            self.job.log.append(logged);
            self.job.log.end();
            return None;
        }
        self.begin(accepted, refused);
        self.job.log.append(logged);
        if let Some(leg) = open {
            self.expect_work(&leg).await;
            let Request { backend, identity, .. } = &self.request;
            let target = self.target(&leg);
            if let Some(tape) = &mut self.tape {
                let release = self.release.map(|release| release.to_string());
                tape.open(&leg, release.as_deref(), &target, identity.key.is_some());
            }
            self.channel = Some(leg.channel);
            self.connection = Connection::open(Arc::clone(backend), &leg, target, identity.clone());
        }
        if send.is_empty() {
            return None;
        }
        if let Some(tape) = &mut self.tape {
            tape.sent(&send);
        }
        if let Some(work) = &mut self.work {
            work.has_begun |= send.iter().any(|frame| !Dialect::is_key_frame(frame));
        }
        // A command is tiny: a backend that does not take it takes nothing.
        let limit = self.request.backend.limits().probe;
        let sent = timeout(limit, self.connection.send(send)).await;
        sent.unwrap_or_else(|_| Err("it does not take what it is sent".to_owned())).err()
    }

    /// What the backend is asked for in `leg`.
    fn target(&self, leg: &Leg) -> String {
        let shim = Shim::VmIds;
        let is_on = leg.channel == Channel::Native && self.job.config.shims.is_on(shim);
        let with_ids = || with_vm_ids(&self.query, leg.endpoint, self.release);
        let Some(query) = is_on.then(with_ids).flatten() else {
            return connection::target(leg, &self.query);
        };
        telemetry::Shimmed { shim, action: Action::Translated, path: &leg.path() }.emit();
        connection::target(leg, &query)
    }

    /// The backend works for the key, which is right.
    fn accept_key(&mut self) {
        if self.trial.take().is_some() {
            self.request.backend.shield.accept(self.job.key.credential());
        }
    }

    /// Remembers what the backend does not want to be asked again.
    fn heed(&self, refusal: &Refusal) {
        let Request { backend, .. } = &self.request;
        let (client, key) = (self.request.client(), self.job.key.credential());
        // Not what the bridge says itself, because it knows it already, or because there is no key to ask with.
        if backend.shield.knows(client, key).is_some() || (key.is_none() && !refusal.is_theirs()) {
            return;
        }
        let text = refusal.text();
        let retry_after = refusal.retry_after.as_deref();
        let lesson = Lesson { status: refusal.status, retry_after, text: &text };
        backend.learn_refusal(lesson, client, key, self.generation);
    }

    /// Numbers frames for the log, and counts them.
    fn number(&self, frames: Vec<Frame>) -> Vec<Logged> {
        // Much of what a backend says is nothing to readers.
        if frames.is_empty() {
            return Vec::new();
        }
        let logged = self.job.log.number(frames, self.time());
        telemetry::FramesWritten { channel: self.channel, frames: &logged }.emit();
        let mut record = self.job.recorded();
        record.progress.frames_out += logged.len() as u64;
        record.progress.bytes_out += logged.iter().map(|frame| frame.bytes.len() as u64).sum::<u64>();
        logged
    }

    fn begin(&self, accepted: bool, refused: Option<Refusal>) {
        match refused {
            Some(refusal) => self.job.begin(Started::Refused(refusal)),
            None if accepted => self.job.begin(Started::Accepted),
            None => {}
        }
    }

    /// The job is over, and its place is free, at once or after a cool-down. What is given back is to be told
    /// when it is recorded.
    fn end<'a>(&mut self, report: &'a Report, has_stream: bool) -> telemetry::JobEnded<'a> {
        self.registry.clients.ended(ClientId::of(&self.request, &self.job.key));
        let finished = self.time();
        let rest = self.rest(report.cause);
        let reporter = self.reporter();
        let mut record = self.job.recorded();
        let ended = telemetry::JobEnded {
            kind: self.request.endpoint.kind,
            backend: Arc::clone(&self.request.backend.metrics),
            channel: self.channel,
            has_stream,
            at: finished.seconds(),
            report,
            duration: finished.since(record.started.unwrap_or(record.queued)),
            has_started: record.started.is_some(),
        };
        let Report { outcome, cause, failure, counts, failed_objects, .. } = report.clone();
        record.progress.updated = Some(finished);
        record.progress.counts = counts;
        record.cooldown = rest.map(|rest| Cooldown { least: Duration::ZERO, until: finished.after(rest) });
        record.end = Some(End { finished, outcome, cause, failure, failed_objects });
        drop(record);
        self.registry.leave_place(&self.job, rest, reporter);
        ended
    }

    /// Since the job began to drive the backend.
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

/// What comes next for a session.
enum Next {
    /// Its deadline has come.
    Tick,
    /// It is to end.
    Stop(Cause),
    /// How far it is must be written down.
    Write,
    /// Its connection has something.
    Arrived(Arrived),
}
