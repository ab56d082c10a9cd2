//! A conversation on a WebSocket: a key, a greeting, and one command after the other.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Shared;
use super::Speed;
use super::log::{ServerEvent, Side};
use super::misbehaviour::{Fault, FaultCounter, TEXT_GARBAGE};
use super::script::{Script, ScriptAction};
use super::socket::ReplaySocket;
use crate::recording::key_in;

/// The time limit for the key in backends that do not explain refusals.
const KEY_TIMEOUT: Duration = Duration::from_secs(10);

/// The text of such a backend.
const REFUSED: &str = "Authentication failed";

/// A WebSocket of this server.
type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Continues, or ends the session with the side that ended it.
type Flow = ControlFlow<Side>;

/// A conversation on a WebSocket.
pub(super) struct ReplaySession<'a> {
    shared: &'a Shared,
    number: u64,
    socket: &'a ReplaySocket,
    stream: WebSocket,
    count: FaultCounter,
    /// Whether nothing more is sent.
    stalled: bool,
    /// When a client without a key is disconnected; the inner `None` means never.
    awaits_key: Option<Option<Instant>>,
    /// Whether the last command has returned, so that the next one can start.
    free: bool,
    /// The frames that were received while a command was running.
    queue: VecDeque<ReceivedFrame>,
    /// The planned actions, by time and then by the order in which they were planned. Frames that a command sends after
    /// it has returned stay here while the next one runs.
    plan: BTreeMap<(Instant, u64), ScriptAction>,
    planned: u64,
}

/// A frame that waits for the command loop.
enum ReceivedFrame {
    Text(String),
    Binary,
}

impl<'a> ReplaySession<'a> {
    pub(super) fn new(shared: &'a Shared, number: u64, socket: &'a ReplaySocket, stream: WebSocket) -> Self {
        Self {
            shared,
            number,
            socket,
            stream,
            count: FaultCounter::new(&shared.options),
            stalled: false,
            awaits_key: None,
            free: false,
            queue: VecDeque::new(),
            plan: BTreeMap::new(),
            planned: 0,
        }
    }

    /// Runs until either side ends the connection, and returns which.
    pub(super) async fn run(mut self) -> Side {
        if self.socket.requires_key {
            self.awaits_key = Some(self.key_deadline());
        } else {
            self.follow(self.socket.greeting.clone());
        }
        loop {
            let flow = self.step().await;
            if let ControlFlow::Break(by) = flow {
                return by;
            }
        }
    }

    /// Runs the next step.
    async fn step(&mut self) -> Flow {
        self.inject_fault().await?;
        if self.free
            && let Some(received) = self.queue.pop_front()
        {
            return self.begin(received).await;
        }
        let planned = self.plan.first_key_value().map(|((at, _), _)| *at).filter(|_| !self.stalled);
        if planned.is_some_and(|at| at <= Instant::now()) {
            return self.act().await;
        }
        let deadline = self.awaits_key.flatten();
        tokio::select! {
            message = self.stream.next() => self.receive(message).await,
            () = until(planned) => self.act().await,
            () = until(deadline) => self.close(Some(4001), REFUSED).await,
        }
    }

    /// Handles a frame from the client.
    async fn receive(&mut self, message: Option<Result<Message, Error>>) -> Flow {
        let received = match message {
            Some(Ok(Message::Text(text))) => {
                self.note(text.as_str());
                ReceivedFrame::Text(text.as_str().to_owned())
            }
            Some(Ok(Message::Binary(_))) => ReceivedFrame::Binary,
            // Pings and close frames are answered by the library when it reads on.
            Some(Ok(_)) => return Flow::Continue(()),
            Some(Err(_)) | None => return Flow::Break(Side::Client),
        };
        if self.awaits_key.take().is_some() {
            return self.check(&received).await;
        }
        self.queue.push_back(received);
        Flow::Continue(())
    }

    /// Checks the first frame, which has the key.
    async fn check(&mut self, received: &ReceivedFrame) -> Flow {
        let key = match received {
            ReceivedFrame::Text(text) => key_in(text),
            ReceivedFrame::Binary => None,
        };
        match self.shared.keys.check(key.as_deref()) {
            Ok(()) => {
                self.follow(self.socket.greeting.clone());
                Flow::Continue(())
            }
            Err(refusal) if self.shared.library.explains_refusals() => {
                self.close(Some(4001), &refusal.detail).await
            }
            Err(_) => self.close(Some(4001), REFUSED).await,
        }
    }

    /// Starts the first command in the queue.
    async fn begin(&mut self, received: ReceivedFrame) -> Flow {
        match received {
            ReceivedFrame::Binary => self.close(Some(1000), "").await,
            ReceivedFrame::Text(text) => {
                self.free = false;
                self.follow(self.socket.commands.answer(&text));
                Flow::Continue(())
            }
        }
    }

    /// Plans the steps of a script that starts now.
    fn follow(&mut self, script: Script) {
        let start = Instant::now();
        for step in script.steps {
            let at = start + self.shared.options.speed.scale(step.after);
            self.plan.insert((at, self.planned), step.act);
            self.planned += 1;
        }
    }

    /// Runs the first planned action.
    async fn act(&mut self) -> Flow {
        let Some((_, act)) = self.plan.pop_first() else { return Flow::Continue(()) };
        match act {
            ScriptAction::Text(text) => {
                self.send(Message::text(text)).await?;
                self.count.frame();
                Flow::Continue(())
            }
            ScriptAction::Binary(bytes) => self.send(Message::Binary(bytes)).await,
            ScriptAction::Ping(bytes) => self.send(Message::Ping(bytes)).await,
            ScriptAction::Close { code, reason } => self.close(code, &reason).await,
            ScriptAction::Cut => Flow::Break(Side::Server),
            ScriptAction::Returned => {
                self.free = true;
                Flow::Continue(())
            }
        }
    }

    /// Injects the fault that is due.
    async fn inject_fault(&mut self) -> Flow {
        while !self.stalled {
            match self.count.due() {
                Some(Fault::Cut) => return Flow::Break(Side::Server),
                Some(Fault::Stall) => self.stalled = true,
                Some(Fault::Garbage) => {
                    for text in TEXT_GARBAGE {
                        self.send(Message::text(text)).await?;
                    }
                }
                None => break,
            }
        }
        Flow::Continue(())
    }

    async fn send(&mut self, message: Message) -> Flow {
        match self.stream.send(message).await {
            Ok(()) => Flow::Continue(()),
            Err(_) => Flow::Break(Side::Client),
        }
    }

    /// Sends a close frame and reads until the client closes, too.
    async fn close(&mut self, code: Option<u16>, reason: &str) -> Flow {
        // A recorder writes 1005 for a close frame without a code.
        let frame = code
            .filter(|code| *code != 1005)
            .map(|code| CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() });
        if frame.as_ref().is_some_and(|frame| !frame.code.is_allowed()) {
            // Such as 1006, which a recorder writes for an aborted connection.
            return Flow::Break(Side::Server);
        }
        if self.stream.close(frame).await.is_ok() {
            while let Some(Ok(message)) = self.stream.next().await {
                if let Message::Text(text) = message {
                    self.note(text.as_str());
                }
            }
        }
        Flow::Break(Side::Server)
    }

    fn note(&self, text: &str) {
        self.shared.log.note(ServerEvent::Text { connection: self.number, text: text.to_owned() });
    }

    /// From 0.0.23.post1 on, the key has to arrive within ten seconds. At the speed `max` there is no deadline.
    fn key_deadline(&self) -> Option<Instant> {
        let waits = self.shared.options.speed != Speed::Max && !self.shared.library.explains_refusals();
        waits.then(|| Instant::now() + KEY_TIMEOUT)
    }
}

/// Waits until `at`; forever if it is `None`.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
