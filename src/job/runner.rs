//! Drives a session: opens what it asks for, hands it what arrives, and writes what it says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument;

use super::connection::{Arrived, Connection};
use super::log::Log;
use crate::backend::{Backend, Identity};
use crate::core::kind::Kind;
use crate::core::outcome::{Cause, Report};
use crate::core::refusal::{Answer, Refusal};
use crate::core::session::{Closed, Event, Output, Session, Setup};
use crate::telemetry;

/// What a job does.
#[derive(Debug)]
pub struct Work {
    /// The run.
    pub setup: Setup,
    /// The client's query without the bridge's own parameters, byte for byte.
    pub query: String,
    /// The key and the headers that go to the backend.
    pub identity: Identity,
    /// The backend.
    pub backend: Arc<Backend>,
}

/// A job that runs. Dropping it cancels the job.
#[derive(Debug)]
pub struct Job {
    /// Its log.
    pub log: Arc<Log>,
    /// Its name.
    pub id: String,
    task: JoinHandle<()>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of the beginning of a job.
#[derive(Debug)]
pub enum Started {
    /// The backend has accepted the work, or took so long that the client must be told something.
    Accepted,
    /// The backend refused.
    Refused(Refusal),
}

/// Where the beginning of a job is awaited.
pub type Gate = oneshot::Receiver<Started>;

/// Starts a job. `stop` ends it when it turns true.
pub fn start(work: Work, stop: watch::Receiver<bool>) -> (Job, Gate) {
    let log = Arc::new(Log::default());
    let id = work.setup.run_id.clone();
    let (opened, gate) = oneshot::channel();
    let span = tracing::info_span!(
        "job",
        id,
        backend = %work.backend,
        kind = work.setup.endpoint.kind.as_str(),
        vm = work.setup.endpoint.vm.map(|vm| vm.0),
    );
    let runner = Runner {
        log: Arc::clone(&log),
        gate: Some(opened),
        began: Instant::now(),
        connection: Connection::None,
        ended: Ended {
            log: Arc::clone(&log),
            kind: work.setup.endpoint.kind,
            report: None,
            began: Instant::now(),
        },
        work,
        stop,
    };
    let task = tokio::spawn(runner.run().instrument(span));
    (Job { log, id, task }, gate)
}

struct Runner {
    work: Work,
    log: Arc<Log>,
    gate: Option<oneshot::Sender<Started>>,
    began: Instant,
    connection: Connection,
    ended: Ended,
    stop: watch::Receiver<bool>,
}

/// Ends the log and tells the end, also of a job that is cancelled in the middle.
struct Ended {
    log: Arc<Log>,
    kind: Kind,
    report: Option<Report>,
    began: Instant,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.report.is_some() {
            self.log.end()
        } else {
            self.log.cut()
        }
        let (kind, duration) = (self.kind, self.began.elapsed());
        match &self.report {
            Some(report) => telemetry::JobEnded { kind, report, duration }.emit(),
            None => telemetry::JobCancelled { kind, duration }.emit(),
        }
    }
}

impl Runner {
    async fn run(mut self) {
        telemetry::JobStarted { plan: &self.work.setup.plan, dialect: self.work.setup.dialect }.emit();
        let mut out = Output::default();
        let mut session = Session::start(self.work.setup.clone(), &mut out);
        loop {
            if let Some(broken) = self.follow(&mut out).await {
                session.handle(self.now(), Event::Closed(Closed::Broken(&broken)), &mut out);
                continue;
            }
            let Some(deadline) = session.deadline() else { return };
            let deadline = self.began + deadline;
            let arrived = self.wait(deadline).await;
            let event = match &arrived {
                Arrived::Tick => Event::Tick,
                Arrived::Stop => Event::Stopped,
                Arrived::Opened => Event::Opened,
                Arrived::Answered { status, retry_after, body } => {
                    self.doubt(*status);
                    Event::Answered(Answer { status: *status, retry_after: retry_after.as_deref(), body })
                }
                Arrived::Unreachable(why) => {
                    self.work.backend.knowledge.forget();
                    Event::Unreachable(why)
                }
                Arrived::Bytes(bytes) => Event::Bytes(bytes),
                Arrived::Text(text) => Event::Text(text.as_str()),
                Arrived::Cleanly => Event::Closed(Closed::Cleanly),
                Arrived::Broken(why) => Event::Closed(Closed::Broken(why)),
                Arrived::Close { code, reason } => Event::Closed(Closed::Frame { code: *code, reason }),
            };
            session.handle(self.now(), event, &mut out);
        }
    }

    async fn wait(&mut self, deadline: Instant) -> Arrived {
        tokio::select! {
            biased;
            // Whoever could say stop being gone says it too.
            _ = self.stop.wait_for(|stop| *stop) => Arrived::Stop,
            // Before the connection: a backend that never stops talking must not outrun its limits.
            () = sleep_until(deadline) => Arrived::Tick,
            arrived = self.connection.next() => arrived,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Forgets what is known of a backend that turned out to be another one.
    fn doubt(&self, status: u16) {
        if matches!(status, 403..=405) {
            self.work.backend.knowledge.forget();
        }
    }

    /// Does what the session says. Gives the reason if a socket could not be written to.
    async fn follow(&mut self, out: &mut Output) -> Option<String> {
        let Output { doubtful, accepted, refused, frames, close, open, send, end } = std::mem::take(out);
        if doubtful {
            self.work.backend.knowledge.forget();
        }
        if let Some(refusal) = refused {
            if matches!(refusal.cause, Cause::BackendLost | Cause::Unreachable) {
                self.work.backend.knowledge.forget();
            }
            self.begin(Started::Refused(refusal));
        } else if accepted {
            self.begin(Started::Accepted);
        }
        if end.is_some() {
            // Before the terminal frame goes out, so that whoever reads it finds the job ended.
            self.ended.report = end;
        }
        self.log.append(frames.into_iter().map(|frame| -> Bytes { frame.bytes }));
        if close {
            self.connection = Connection::None;
        }
        if let Some(leg) = open {
            let backend = Arc::clone(&self.work.backend);
            self.connection = Connection::open(backend, &leg, &self.work.query, self.work.identity.clone());
        }
        if send.is_empty() {
            return None;
        }
        // A command is tiny: a backend that does not take it takes nothing.
        let limit = self.work.backend.limits().probe;
        let sent = timeout(limit, self.connection.send(send)).await;
        sent.unwrap_or_else(|_| Err("it does not take what it is sent".to_owned())).err()
    }

    fn begin(&mut self, started: Started) {
        if let Some(gate) = self.gate.take() {
            // A client that is gone does not wait.
            let _ = gate.send(started);
        }
    }
}
