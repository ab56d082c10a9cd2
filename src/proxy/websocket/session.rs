//! The session of one `/ws` client: its key, its commands in order, and their results.

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

use crate::backend::{API_KEY, RequestIdentity};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::{Kind, SyncEndpoint, WsCommand};
use crate::core::domain::refusal::Refusal;
use crate::core::http::limit::Limit;
use crate::core::http::query::{BridgeParameters, Query};
use crate::core::legacy_client::ClientCommand;
use crate::core::legacy_client::{self, GREETING, LegacyClient};
use crate::core::run::normalizer::Normalizer;
use crate::core::text::plain;
use crate::core::text::redact::Redactor;
use crate::deadline::{GRACE, timeout};
use crate::job::{AttachOptions, Attached, Watcher};
use crate::proxy::coalesce::note_answer;
use crate::proxy::credentials::request_key;
use crate::proxy::quota::acquire_key;
use crate::proxy::request::{RequestContext, StallFlag};
use crate::proxy::streams;
use crate::proxy::subscriber::WatcherGuard;
use crate::proxy::tunnel::STOPPING;
use crate::proxy::websocket::PATH;
use crate::telemetry::{self, Surface};

/// How long the client may take to send its key, as with backends since 0.0.23.post1.
const KEY_WAIT: Duration = Duration::from_secs(10);
/// The maximum number of queued commands. The socket is not read while the queue is full.
const MAX_WAITING: usize = 16;
/// The longest reason of a close frame, in bytes (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;

/// The codes of close frames. Backends close with 1000 after a failed command, and pages reconnect at once after any
/// other code.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const UNSUPPORTED_DATA: u16 = 1003;
const TOO_BIG: u16 = 1009;
const TRY_LATER: u16 = 1013;
const KEY_REFUSED: u16 = 4001;

/// The context of a client before its first message.
pub(super) struct LegacySocketSession {
    pub(super) context: RequestContext,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// The client must send a key first.
    pub(super) wants_key: bool,
}

/// Why a session ends.
enum SessionEnd {
    /// The client is gone or stalled.
    Gone,
    /// The bridge closes the session.
    Close(u16, String),
}

impl From<Error> for SessionEnd {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(_) => {
                Self::Close(TOO_BIG, "The message is too long (limits.socket_bytes).".into())
            }
            _ => Self::Gone,
        }
    }
}

impl From<Limit> for SessionEnd {
    fn from(limit: Limit) -> Self {
        Self::Close(TRY_LATER, limit.detail().to_owned())
    }
}

/// The socket, and the messages that were read early.
struct SocketIo {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    waiting: VecDeque<String>,
    closing: watch::Receiver<bool>,
    /// When data was last received, and when the next ping is due.
    last_read: Instant,
    ping: Instant,
    /// The client seems to have been silent for too long. Pending data is read before it is given up.
    is_overdue: bool,
    heartbeat: Duration,
    write_timeout: Duration,
    stall: StallFlag,
}

impl LegacySocketSession {
    pub(super) async fn run(self, socket: WebSocketStream<TokioIo<Upgraded>>) {
        let limits = &self.context.state.config.limits;
        let (heartbeat, write_timeout) = (limits.heartbeat, limits.client_write);
        let now = Instant::now();
        let mut io = SocketIo {
            socket,
            waiting: VecDeque::new(),
            closing: self.context.proxy.tunnels.closing(),
            last_read: now,
            ping: now + heartbeat,
            is_overdue: false,
            heartbeat,
            write_timeout,
            stall: self.context.stall.clone(),
        };
        if let Err(SessionEnd::Close(code, reason)) = self.serve(&mut io).await {
            io.close(code, &reason).await;
        }
    }

    async fn serve(mut self, io: &mut SocketIo) -> Result<(), SessionEnd> {
        let mut key_slot =
            request_key(&self.headers).map(|key| acquire_key(&self.context, &key)).transpose()?;
        if self.wants_key {
            let key = timeout(KEY_WAIT, io.next()).await;
            let required = || SessionEnd::Close(KEY_REFUSED, "API key required.".to_owned());
            let ClientCommand::Key(key) = legacy_client::parse_command(&key.map_err(|_| required())??) else {
                return Err(required());
            };
            let key: ApiKey = key.parse().map_err(|_| required())?;
            telemetry::log::redact_span(&Span::current(), &Redactor::new([key.expose()]));
            self.check_key(&key).await?;
            key_slot = Some(acquire_key(&self.context, &key)?);
            if let Ok(value) = key.header() {
                self.headers.insert(API_KEY, value);
            }
        }
        io.send(GREETING.map(str::to_owned)).await?;
        // The slot is held for the whole session.
        let _place = key_slot;
        let mut may_be_key = !self.wants_key;
        loop {
            let text = io.next().await?;
            match legacy_client::parse_command(&text) {
                // Newer clients send a key to every backend, and this one needs none.
                ClientCommand::Key(_) if may_be_key => {}
                ClientCommand::Sync { command, run_id } => self.run_command(io, command, run_id).await?,
                ClientCommand::Unknown { text, run_id } => {
                    io.send(legacy_client::unknown_command_frames(&text, run_id.as_deref())).await?
                }
                ClientCommand::Key(_) => io.send(legacy_client::unknown_command_frames("", None)).await?,
            }
            may_be_key = false;
        }
    }

    /// Checks `key` with the backend, unless the backend has refused it before.
    async fn check_key(&self, key: &ApiKey) -> Result<(), SessionEnd> {
        let RequestContext { backend, forwarded, .. } = &self.context;
        let hash = self.context.key_hash(key);
        let admitted = backend.admit(forwarded.client, Some(hash)).await;
        let _trial = admitted.map_err(|refusal| SessionEnd::Close(KEY_REFUSED, refusal.text()))?;
        let mut identity = RequestIdentity::keyless(&self.headers);
        forwarded.apply(&mut identity.forwarded_headers);
        let identity = RequestIdentity { key: Some(key.clone()), ..identity };
        let generation = backend.gate.generation();
        let answer = backend.probe("/version", &identity).await;
        let answer = answer.map_err(|why| SessionEnd::Close(TRY_LATER, why.to_string()))?;
        let status = answer.status;
        let reason = match status {
            StatusCode::UNAUTHORIZED => "Invalid API key.",
            StatusCode::TOO_MANY_REQUESTS => {
                "Too many failed authentication attempts. Please try again later."
            }
            _ => {
                if status.is_success() {
                    backend.gate.accept(Some(hash));
                }
                return Ok(());
            }
        };
        note_answer(&self.context, Some(hash), generation, (status, &answer.headers, &answer.body));
        Err(SessionEnd::Close(KEY_REFUSED, reason.to_owned()))
    }

    /// Runs `command` as a job, and sends its results.
    async fn run_command(
        &self,
        io: &mut SocketIo,
        command: WsCommand,
        run_id: Option<String>,
    ) -> Result<(), SessionEnd> {
        let RequestContext { proxy, backend, .. } = &self.context;
        if !proxy.app.state().backends.iter().any(|other| Arc::ptr_eq(other, backend)) {
            let reason = "The configuration has changed: reconnect.";
            return Err(SessionEnd::Close(GOING_AWAY, reason.to_owned()));
        }
        let is_correlated = run_id.is_some();
        let mut page = LegacyClient::new(command, run_id);
        io.send(page.greeting()).await?;
        let failure = match self.watch(io, command, &mut page).await? {
            Ok(()) => match page.ending {
                None | Some(Ok(())) => return Ok(()),
                Some(Err(reason)) => reason,
            },
            Err(refusal) => {
                telemetry::RequestRefused { path: PATH, refusal: &refusal }.emit();
                let mut frames = Vec::new();
                for frame in Normalizer::refusal_frames(kind(command), &refusal, &Redactor::default()) {
                    page.push_frame(&frame.without_payload(), &mut frames);
                }
                io.send(frames).await?;
                refusal.text()
            }
        };
        if is_correlated { Ok(()) } else { Err(SessionEnd::Close(NORMAL, failure)) }
    }

    /// Watches the job of `command` to its end.
    async fn watch(
        &self,
        io: &mut SocketIo,
        command: WsCommand,
        page: &mut LegacyClient,
    ) -> Result<Result<(), Refusal>, SessionEnd> {
        let bridge = BridgeParameters { payloads: true, ..BridgeParameters::default() };
        let query = Query { backend_query: self.query.clone(), parameters: bridge };
        let RequestContext { proxy, backend, forwarded, .. } = &self.context;
        let endpoint = SyncEndpoint::for_kind(kind(command));
        let mut request = streams::job_request(backend, endpoint, query, &self.headers, forwarded.client);
        request.over_socket = true;
        let entered = proxy.app.registry.attach(request, AttachOptions::default()).await;
        let mut watching: Watcher = match entered {
            Ok(Attached::Watching(watching)) => watching,
            // These only occur with a last event id, which is not sent here.
            Ok(Attached::Replay(_) | Attached::Seen) => return Ok(Ok(())),
            Err(error) => return Ok(Err(streams::refusal_for(backend, &error).1)),
        };
        if let Err(refusal) = io.poll_during(watching.started()).await? {
            return Ok(Err(refusal));
        }
        let mut frames = Vec::new();
        let mut watcher = WatcherGuard::new(&watching.job, Surface::Socket, io.stall.clone());
        while let Some(batch) = io.poll_during(watching.cursor.next()).await? {
            watcher.record_batch(&batch);
            for frame in &batch.frames {
                page.push_frame(&frame.frame, &mut frames);
            }
            let _on_its_way = watching.cursor.reserve(frames.iter().map(String::len).sum());
            io.send(std::mem::take(&mut frames)).await?;
        }
        Ok(Ok(()))
    }
}

impl SocketIo {
    /// The next text message of the client.
    async fn next(&mut self) -> Result<String, SessionEnd> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Ok(text);
            }
            self.read().await?;
        }
    }

    /// Runs `work` while reading from the client.
    async fn poll_during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, SessionEnd> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                read = self.read() => read?,
            }
        }
    }

    /// Waits for a message of the client, and queues it if it is a text. Cancel safe.
    async fn read(&mut self) -> Result<(), SessionEnd> {
        let is_full = self.waiting.len() >= MAX_WAITING;
        let (due, closing) = (self.ping, &mut self.closing);
        let message = tokio::select! {
            // A dropped sender closes the session too.
            () = async { let _ = closing.wait_for(|closing| *closing).await; } => {
                return Err(SessionEnd::Close(GOING_AWAY, STOPPING.to_owned()));
            }
            () = sleep_until(due) => None,
            message = self.socket.next(), if !is_full => Some(message),
        };
        let Some(message) = message else { return self.ping().await };
        self.last_read = Instant::now();
        self.is_overdue = false;
        match message {
            Some(Ok(Message::Text(text))) => self.waiting.push_back(text.to_string()),
            Some(Ok(Message::Binary(_))) => {
                return Err(SessionEnd::Close(UNSUPPORTED_DATA, "Commands are text.".to_owned()));
            }
            Some(Ok(Message::Close(_))) | None => return Err(SessionEnd::Gone),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sends a ping, unless the client has been silent for too long.
    async fn ping(&mut self) -> Result<(), SessionEnd> {
        let is_full = self.waiting.len() >= MAX_WAITING;
        if !is_full && self.last_read.elapsed() > self.heartbeat + self.write_timeout {
            if self.is_overdue {
                return Err(SessionEnd::Gone);
            }
            self.is_overdue = true;
            self.ping = Instant::now() + GRACE;
            return Ok(());
        }
        self.ping = Instant::now() + self.heartbeat;
        self.socket.feed(Message::Ping(Default::default())).await?;
        self.flush().await
    }

    async fn send(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), SessionEnd> {
        let mut texts = texts.into_iter().peekable();
        if texts.peek().is_none() {
            return Ok(());
        }
        for text in texts {
            let fed = timeout(self.write_timeout, self.socket.feed(Message::text(text))).await;
            fed.map_err(|_| self.stalled())??;
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), SessionEnd> {
        let flushed = timeout(self.write_timeout, self.socket.flush()).await;
        flushed.map_err(|_| self.stalled())??;
        Ok(())
    }

    /// The result for a client that does not read.
    fn stalled(&self) -> SessionEnd {
        self.stall.set();
        SessionEnd::Gone
    }

    /// Closes the socket, and waits briefly for the peer's close frame.
    async fn close(&mut self, code: u16, reason: &str) {
        let mut reason = plain(reason, MAX_REASON_BYTES).into_owned();
        while reason.len() > MAX_REASON_BYTES {
            reason.pop();
        }
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let closing = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
            }
        };
        let _ = timeout(self.heartbeat, closing).await;
    }
}

/// The kind that `command` synchronises.
const fn kind(command: WsCommand) -> Kind {
    match command {
        WsCommand::SyncNodes => Kind::Devices,
        WsCommand::SyncVirtualMachines => Kind::VirtualMachines,
        WsCommand::FullUpdate => Kind::FullUpdate,
    }
}
