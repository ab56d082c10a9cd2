//! One client of `/ws`: its key, its commands one after the other, and what becomes of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::Span;

use crate::app::State;
use crate::backend::{API_KEY, Identity};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::{Command, Endpoint, Kind};
use crate::core::domain::refusal::Refusal;
use crate::core::http::query::{Parameters, Query};
use crate::core::legacy_client::Asked;
use crate::core::legacy_client::{self, Ending, GREETING, Page};
use crate::core::text::plain;
use crate::core::text::redact::Redactor;
use crate::deadline::{GRACE, timeout};
use crate::job::{Arrival, Entered, Registry, Watching, held_back};
use crate::proxy::coalesce::lesson;
use crate::proxy::credentials::key_of;
use crate::proxy::quota::{Slot, Slots, StreamKey, key_slot};
use crate::proxy::request::{Stuck, Visit};
use crate::proxy::streams;
use crate::proxy::subscriber::Attendance;
use crate::proxy::tunnel::STOPPING;
use crate::proxy::websocket::PATH;
use crate::telemetry::{self, Surface};

/// How long a client has for its key, as with backends since 0.0.23.post1.
const KEY_WAIT: Duration = Duration::from_secs(10);
/// How many commands wait at the most. A client that sends more is not read until one is done.
const WAITING: usize = 16;
/// The longest reason of a close frame, in bytes (RFC 6455, section 5.5).
const REASON: usize = 123;

/// The codes of close frames. Backends end a failed command with 1000, and pages come back at once after any
/// other.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const UNSUPPORTED_DATA: u16 = 1003;
const TOO_BIG: u16 = 1009;
const TRY_LATER: u16 = 1013;
const KEY_REFUSED: u16 = 4001;

/// What is known of a client before it says anything.
pub(super) struct Session {
    pub(super) registry: Arc<Registry>,
    pub(super) streams: Slots<StreamKey>,
    /// The state that is in force.
    pub(super) states: watch::Receiver<Arc<State>>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) visit: Visit,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// It must send a key first.
    pub(super) wants_key: bool,
}

/// Why a session is over.
enum Over {
    /// The client has gone, or takes nothing.
    Gone,
    /// The bridge ends it.
    Close(u16, String),
}

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(_) => {
                Self::Close(TOO_BIG, "The message is too long (limits.socket_bytes).".into())
            }
            _ => Self::Gone,
        }
    }
}

/// The socket, and what has been read of it too early.
struct Line {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    waiting: VecDeque<String>,
    closing: watch::Receiver<bool>,
    /// When the client last gave a sign of life, and when it is asked for one.
    heard: Instant,
    ping: Instant,
    /// It seems to have given none for too long. What it may have sent is read before it is given up.
    is_overdue: bool,
    heartbeat: Duration,
    patience: Duration,
    stuck: Stuck,
}

impl Session {
    pub(super) async fn run(self, socket: WebSocketStream<TokioIo<Upgraded>>) {
        let limits = &self.visit.state.config.limits;
        let (heartbeat, patience) = (limits.heartbeat, limits.client_write);
        let now = Instant::now();
        let mut line = Line {
            socket,
            waiting: VecDeque::new(),
            closing: self.closing.clone(),
            heard: now,
            ping: now + heartbeat,
            is_overdue: false,
            heartbeat,
            patience,
            stuck: self.visit.stuck.clone(),
        };
        if let Err(Over::Close(code, reason)) = self.talk(&mut line).await {
            line.close(code, &reason).await;
        }
    }

    async fn talk(mut self, line: &mut Line) -> Result<(), Over> {
        let mut place = key_of(&self.headers).map(|key| self.place(&key)).transpose()?;
        if self.wants_key {
            let key = timeout(KEY_WAIT, line.next()).await;
            let required = || Over::Close(KEY_REFUSED, "API key required.".to_owned());
            let Asked::Key(key) = legacy_client::asked(&key.map_err(|_| required())??) else {
                return Err(required());
            };
            let key: ApiKey = key.parse().map_err(|_| required())?;
            telemetry::log::hide_in(&Span::current(), &Redactor::new([key.expose()]));
            self.check(&key).await?;
            place = Some(self.place(&key)?);
            if let Ok(value) = key.header() {
                self.headers.insert(API_KEY, value);
            }
        }
        line.send(GREETING.map(str::to_owned)).await?;
        // It is held as long as the session is.
        let _place = place;
        let mut may_be_key = !self.wants_key;
        loop {
            let text = line.next().await?;
            match legacy_client::asked(&text) {
                // Newer clients send one to every backend, and this one needs none.
                Asked::Key(_) if may_be_key => {}
                Asked::Run { command, run_id } => self.command(line, command, run_id).await?,
                Asked::Unknown { text, run_id } => {
                    line.send(legacy_client::unknown(&text, run_id.as_deref())).await?
                }
                Asked::Key(_) => line.send(legacy_client::unknown("", None)).await?,
            }
            may_be_key = false;
        }
    }

    /// Asks the backend whether it takes `key`, unless it has refused it before.
    async fn check(&self, key: &ApiKey) -> Result<(), Over> {
        let Visit { backend, forwarded, .. } = &self.visit;
        let hash = self.registry.key_hash(key);
        let admitted = backend.admit(forwarded.client, Some(hash)).await;
        let _trial = admitted.map_err(|known| Over::Close(KEY_REFUSED, held_back(true, &known).text()))?;
        let mut passed_on = HeaderMap::new();
        forwarded.tell(&mut passed_on);
        let identity = Identity { key: Some(key.clone()), passed_on };
        let generation = backend.shield.generation();
        let answer = backend.glimpse("/version", &identity).await;
        let answer = answer.map_err(|why| Over::Close(TRY_LATER, why.to_string()))?;
        let status = answer.status;
        let reason = match status {
            StatusCode::UNAUTHORIZED => "Invalid API key.",
            StatusCode::TOO_MANY_REQUESTS => {
                "Too many failed authentication attempts. Please try again later."
            }
            _ => {
                if status.is_success() {
                    backend.shield.accept(Some(hash));
                }
                return Ok(());
            }
        };
        lesson(&self.visit, Some(hash), generation, (status, &answer.headers, &answer.body));
        Err(Over::Close(KEY_REFUSED, reason.to_owned()))
    }

    /// The place that a client with `key` takes of those that it may have.
    fn place(&self, key: &ApiKey) -> Result<Slot<StreamKey>, Over> {
        key_slot(&self.streams, &self.visit, self.registry.key_hash(key))
            .map_err(|limit| Over::Close(TRY_LATER, limit.detail().to_owned()))
    }

    /// Runs `command` as a job, and tells what becomes of it.
    async fn command(&self, line: &mut Line, command: Command, run_id: Option<String>) -> Result<(), Over> {
        let backend = &self.visit.backend;
        if !self.states.borrow().backends.iter().any(|known| Arc::ptr_eq(known, backend)) {
            let reason = "The configuration has changed: come again.";
            return Err(Over::Close(GOING_AWAY, reason.to_owned()));
        }
        let is_correlated = run_id.is_some();
        let mut page = Page::new(command, run_id);
        line.send(page.begin()).await?;
        let failure = match self.watch(line, command, &mut page).await? {
            Ok(()) => match page.ending() {
                None | Some(Ending::Done) => return Ok(()),
                Some(Ending::Failed { reason }) => reason,
            },
            Err(refusal) => {
                telemetry::Refused { path: PATH, refusal: &refusal }.emit();
                let mut frames = Vec::new();
                for frame in streams::refusal_frames(kind(command), &refusal) {
                    page.frame(&frame, &mut frames);
                }
                line.send(frames).await?;
                refusal.text()
            }
        };
        if is_correlated { Ok(()) } else { Err(Over::Close(NORMAL, failure)) }
    }

    /// Watches the job of `command` to its end.
    async fn watch(
        &self,
        line: &mut Line,
        command: Command,
        page: &mut Page,
    ) -> Result<Result<(), Refusal>, Over> {
        let bridge = Parameters { payloads: true, ..Parameters::default() };
        let query = Query { backend: self.query.clone(), bridge };
        let Visit { backend, forwarded, .. } = &self.visit;
        let endpoint = Endpoint::of(kind(command));
        let mut wanted = streams::wanted(backend, endpoint, query, &self.headers, forwarded.client);
        wanted.over_socket = true;
        let entered = self.registry.enter(wanted, Arrival::default()).await;
        let mut watching: Watching = match entered {
            Ok(Entered::Watching(watching)) => watching,
            // Only whoever says what it has seen comes to these.
            Ok(Entered::Replay { .. } | Entered::Seen) => return Ok(Ok(())),
            Err(denied) => return Ok(Err(streams::denied_answer(backend, &denied).1)),
        };
        if let Err(refusal) = line.beside(watching.begun()).await? {
            return Ok(Err(refusal));
        }
        let mut frames = Vec::new();
        let mut attendance = Attendance::new(&watching.job, Surface::Socket, line.stuck.clone());
        while let Some(batch) = line.beside(watching.cursor.next()).await? {
            attendance.give(&batch);
            for frame in &batch.frames {
                page.frame(frame.with_payload.as_ref().unwrap_or(&frame.bytes), &mut frames);
            }
            let _on_its_way = watching.cursor.reserve(frames.iter().map(String::len).sum());
            line.send(std::mem::take(&mut frames)).await?;
        }
        Ok(Ok(()))
    }
}

impl Line {
    /// The next text of the client.
    async fn next(&mut self) -> Result<String, Over> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Ok(text);
            }
            self.read().await?;
        }
    }

    /// Does `work`, while the client is listened to.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                read = self.read() => read?,
            }
        }
    }

    /// Waits for something of the client, and keeps it if it is a text. Dropping the future loses nothing.
    async fn read(&mut self) -> Result<(), Over> {
        let is_full = self.waiting.len() >= WAITING;
        let (due, closing) = (self.ping, &mut self.closing);
        let message = tokio::select! {
            // Also when whoever could say it is gone.
            () = async { let _ = closing.wait_for(|closing| *closing).await; } => {
                return Err(Over::Close(GOING_AWAY, STOPPING.to_owned()));
            }
            () = sleep_until(due) => None,
            message = self.socket.next(), if !is_full => Some(message),
        };
        let Some(message) = message else { return self.ping().await };
        self.heard = Instant::now();
        self.is_overdue = false;
        match message {
            Some(Ok(Message::Text(text))) => self.waiting.push_back(text.to_string()),
            Some(Ok(Message::Binary(_))) => {
                return Err(Over::Close(UNSUPPORTED_DATA, "Commands are text.".to_owned()));
            }
            Some(Ok(Message::Close(_))) | None => return Err(Over::Gone),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// Asks the client for a sign of life, unless it has given none for too long.
    async fn ping(&mut self) -> Result<(), Over> {
        let is_full = self.waiting.len() >= WAITING;
        if !is_full && self.heard.elapsed() > self.heartbeat + self.patience {
            if self.is_overdue {
                return Err(Over::Gone);
            }
            self.is_overdue = true;
            self.ping = Instant::now() + GRACE;
            return Ok(());
        }
        self.ping = Instant::now() + self.heartbeat;
        self.socket.feed(Message::Ping(Default::default())).await?;
        self.flush().await
    }

    async fn send(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), Over> {
        let mut texts = texts.into_iter().peekable();
        if texts.peek().is_none() {
            return Ok(());
        }
        for text in texts {
            let fed = timeout(self.patience, self.socket.feed(Message::text(text))).await;
            fed.map_err(|_| self.give_up())??;
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Over> {
        let flushed = timeout(self.patience, self.socket.flush()).await;
        flushed.map_err(|_| self.give_up())??;
        Ok(())
    }

    /// The client takes nothing.
    fn give_up(&self) -> Over {
        self.stuck.note();
        Over::Gone
    }

    /// Says goodbye, and waits a moment for the answer.
    async fn close(&mut self, code: u16, reason: &str) {
        let mut reason = plain(reason, REASON).into_owned();
        while reason.len() > REASON {
            reason.pop();
        }
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let said = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
            }
        };
        let _ = timeout(self.heartbeat, said).await;
    }
}

/// What `command` synchronises.
const fn kind(command: Command) -> Kind {
    match command {
        Command::SyncNodes => Kind::Devices,
        Command::SyncVirtualMachines => Kind::VirtualMachines,
        Command::FullUpdate => Kind::FullUpdate,
    }
}
