//! The connection of a leg, as a source of events for its session.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use http::Method;
use http::header::VIA;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};

use crate::backend::{self, Backend, Exchange, Identity, OpenError, RequestError, reason};
use crate::core::domain::channel::Channel;
use crate::core::http::headers::VIA_HTTP_1;
use crate::core::run::plan::Leg;

/// What a connection does next.
#[derive(Debug)]
pub(super) enum Arrived {
    /// The stream begins, or the socket is open. A stream has the `Content-Type` that the backend gave it.
    Opened { content_type: Option<String> },
    /// An answer that is neither, and its body.
    Answered(Box<Exchange>, Bytes),
    /// Nobody is there; nothing was sent.
    Unreachable(String),
    /// A piece of the stream.
    Bytes(Bytes),
    /// A text frame.
    Text(Utf8Bytes),
    /// It is over in good order.
    Cleanly,
    /// It broke.
    Broken(String),
    /// It is over with a close frame.
    Close { code: u16, reason: String },
}

/// The connection of a leg.
pub(super) enum Connection {
    /// None: between two legs, or after the last.
    None,
    /// On its way.
    Opening(BoxFuture<'static, Opening>),
    /// A stream.
    Stream(Box<Exchange>),
    /// A socket.
    Socket(Box<backend::Opened>),
}

/// What opening came to.
pub(super) enum Opening {
    Stream(Box<Exchange>),
    Socket(Box<backend::Opened>),
    Failed(Arrived),
}

/// The code that stands for a socket that was closed without one (RFC 6455, section 7.1.5).
const NO_CODE: u16 = 1005;

/// What the backend is asked for in `leg`, with the client's query.
pub(super) fn target(leg: &Leg, query: &str) -> String {
    let path = leg.path();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

impl Connection {
    /// Begins to open the connection for `leg`, at `target`.
    pub(super) fn open(backend: Arc<Backend>, leg: &Leg, target: String, identity: Identity) -> Self {
        Self::Opening(match leg.channel {
            Channel::Native => async move { stream(&backend, &target, &identity).await }.boxed(),
            Channel::Json => async move { answer(&backend, &target, &identity).await }.boxed(),
            Channel::Websocket => async move { socket(&backend, &target, &identity).await }.boxed(),
        })
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Arrived {
        match self {
            Self::None => std::future::pending().await,
            Self::Opening(opening) => match opening.await {
                Opening::Stream(exchange) => {
                    let content_type = exchange.content_type().map(str::to_owned);
                    *self = Self::Stream(exchange);
                    Arrived::Opened { content_type }
                }
                Opening::Socket(socket) => {
                    *self = Self::Socket(socket);
                    Arrived::Opened { content_type: None }
                }
                Opening::Failed(arrived) => {
                    *self = Self::None;
                    arrived
                }
            },
            Self::Stream(exchange) => match exchange.next().await {
                Some(Ok(bytes)) => Arrived::Bytes(bytes),
                Some(Err(error)) => self.over(Arrived::Broken(reason(&error))),
                None => self.over(Arrived::Cleanly),
            },
            Self::Socket(socket) => loop {
                // Pings are answered by the library whenever it is read, and it is read always.
                match socket.frames.next().await {
                    Some(Ok(Message::Text(text))) => return Arrived::Text(text),
                    Some(Ok(Message::Close(frame))) => {
                        let (code, reason) = frame.map_or((NO_CODE, String::new()), |frame| {
                            (frame.code.into(), frame.reason.to_string())
                        });
                        return self.over(Arrived::Close { code, reason });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(SocketError::ConnectionClosed)) | None => return self.over(Arrived::Cleanly),
                    Some(Err(error)) => {
                        let reason = error.to_string();
                        return self.over(Arrived::Broken(reason));
                    }
                }
            },
        }
    }

    fn over(&mut self, arrived: Arrived) -> Arrived {
        *self = Self::None;
        arrived
    }

    /// Sends text frames.
    pub(super) async fn send(&mut self, texts: Vec<String>) -> Result<(), String> {
        let Self::Socket(socket) = self else { return Ok(()) };
        for text in texts {
            socket.frames.feed(Message::text(text)).await.map_err(|error| error.to_string())?;
        }
        socket.frames.flush().await.map_err(|error| error.to_string())
    }
}

async fn stream(backend: &Backend, target: &str, identity: &Identity) -> Opening {
    let mut identity = identity.clone();
    // A bridge behind this one then tells all that it knows of each object.
    identity.passed_on.insert(VIA, VIA_HTTP_1);
    let mut exchange = match backend.send(Method::GET, target, &identity).await {
        Ok(exchange) => exchange,
        Err(error) => return Opening::Failed(failed(error)),
    };
    match exchange.is_event_stream().await {
        Ok(true) => Opening::Stream(Box::new(exchange)),
        Ok(false) => Opening::Failed(whole(backend, exchange).await),
        Err(error) => Opening::Failed(Arrived::Broken(reason(&error))),
    }
}

async fn answer(backend: &Backend, target: &str, identity: &Identity) -> Opening {
    Opening::Failed(match backend.send(Method::GET, target, identity).await {
        Ok(exchange) => whole(backend, exchange).await,
        Err(error) => failed(error),
    })
}

async fn socket(backend: &Backend, target: &str, identity: &Identity) -> Opening {
    match backend::open(backend, target, identity).await {
        Ok(opened) => Opening::Socket(Box::new(opened)),
        Err(OpenError::Answered(exchange)) => Opening::Failed(whole(backend, *exchange).await),
        Err(OpenError::Request(error)) => Opening::Failed(failed(error)),
        Err(error) => Opening::Failed(Arrived::Broken(error.to_string())),
    }
}

async fn whole(backend: &Backend, mut exchange: Exchange) -> Arrived {
    // One that is compressed may be a stream, which has no end to wait for, and nothing of it can be read.
    let is_readable = exchange.content_encoding().is_none();
    let body = if is_readable { exchange.body(backend.limits().event_bytes).await } else { Ok(Bytes::new()) };
    match body {
        Ok(body) => Arrived::Answered(Box::new(exchange), body),
        Err(error) => Arrived::Broken(reason(&error)),
    }
}

fn failed(error: RequestError) -> Arrived {
    match error {
        RequestError::Connect(error) => Arrived::Unreachable(error.to_string()),
        error => Arrived::Broken(error.to_string()),
    }
}
