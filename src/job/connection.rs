//! The connection of a leg, as a source of events for its session.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use http::Method;
use http::header::VIA;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};

use crate::backend::{
    self, Backend, BackendResponse, RequestError, RequestIdentity, SocketOpenError, reason,
};
use crate::core::domain::channel::Channel;
use crate::core::http::headers::VIA_HTTP_1;
use crate::core::run::plan::Leg;

/// What a connection does next.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The stream begins, or the socket is open. A stream has the `Content-Type` that the backend gave it.
    Opened { content_type: Option<String> },
    /// An answer that is neither, and its body.
    Answered(Box<BackendResponse>, Bytes),
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
pub(super) enum LegConnection {
    /// None: between two legs, or after the last.
    None,
    /// On its way.
    Opening(BoxFuture<'static, OpenResult>),
    /// A stream.
    Stream(Box<BackendResponse>),
    /// A socket.
    Socket(Box<backend::BackendSocket>),
}

/// What opening came to.
pub(super) enum OpenResult {
    Stream(Box<BackendResponse>),
    Socket(Box<backend::BackendSocket>),
    Failed(ConnectionEvent),
}

/// The code that stands for a socket that was closed without one (RFC 6455, section 7.1.5).
const NO_CODE: u16 = 1005;

/// What the backend is asked for in `leg`, with the client's query.
pub(super) fn target(leg: &Leg, query: &str) -> String {
    let path = leg.path();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

impl LegConnection {
    /// Begins to open the connection for `leg`, at `target`.
    pub(super) fn open(backend: Arc<Backend>, leg: &Leg, target: String, identity: RequestIdentity) -> Self {
        Self::Opening(match leg.channel {
            Channel::Native => async move { stream(&backend, &target, &identity).await }.boxed(),
            Channel::Json => async move { answer(&backend, &target, &identity).await }.boxed(),
            Channel::Websocket => async move { socket(&backend, &target, &identity).await }.boxed(),
        })
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> ConnectionEvent {
        match self {
            Self::None => std::future::pending().await,
            Self::Opening(opening) => match opening.await {
                OpenResult::Stream(exchange) => {
                    let content_type = exchange.content_type().map(str::to_owned);
                    *self = Self::Stream(exchange);
                    ConnectionEvent::Opened { content_type }
                }
                OpenResult::Socket(socket) => {
                    *self = Self::Socket(socket);
                    ConnectionEvent::Opened { content_type: None }
                }
                OpenResult::Failed(arrived) => {
                    *self = Self::None;
                    arrived
                }
            },
            Self::Stream(exchange) => match exchange.next_chunk().await {
                Some(Ok(bytes)) => ConnectionEvent::Bytes(bytes),
                Some(Err(error)) => self.close(ConnectionEvent::Broken(reason(&error))),
                None => self.close(ConnectionEvent::Cleanly),
            },
            Self::Socket(socket) => loop {
                // Pings are answered by the library whenever it is read, and it is read always.
                match socket.frames.next().await {
                    Some(Ok(Message::Text(text))) => return ConnectionEvent::Text(text),
                    Some(Ok(Message::Close(frame))) => {
                        let (code, reason) = frame.map_or((NO_CODE, String::new()), |frame| {
                            (frame.code.into(), frame.reason.to_string())
                        });
                        return self.close(ConnectionEvent::Close { code, reason });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(SocketError::ConnectionClosed)) | None => {
                        return self.close(ConnectionEvent::Cleanly);
                    }
                    Some(Err(error)) => {
                        let reason = error.to_string();
                        return self.close(ConnectionEvent::Broken(reason));
                    }
                }
            },
        }
    }

    fn close(&mut self, arrived: ConnectionEvent) -> ConnectionEvent {
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

async fn stream(backend: &Backend, target: &str, identity: &RequestIdentity) -> OpenResult {
    let mut identity = identity.clone();
    // A bridge behind this one then tells all that it knows of each object.
    identity.forwarded_headers.insert(VIA, VIA_HTTP_1);
    let mut exchange = match backend.send(Method::GET, target, &identity).await {
        Ok(exchange) => exchange,
        Err(error) => return OpenResult::Failed(failed(error)),
    };
    match exchange.is_event_stream().await {
        Ok(true) => OpenResult::Stream(Box::new(exchange)),
        Ok(false) => OpenResult::Failed(read_response(backend, exchange).await),
        Err(error) => OpenResult::Failed(ConnectionEvent::Broken(reason(&error))),
    }
}

async fn answer(backend: &Backend, target: &str, identity: &RequestIdentity) -> OpenResult {
    OpenResult::Failed(match backend.send(Method::GET, target, identity).await {
        Ok(exchange) => read_response(backend, exchange).await,
        Err(error) => failed(error),
    })
}

async fn socket(backend: &Backend, target: &str, identity: &RequestIdentity) -> OpenResult {
    match backend::open(backend, target, identity).await {
        Ok(opened) => OpenResult::Socket(Box::new(opened)),
        Err(SocketOpenError::Refused(exchange)) => {
            OpenResult::Failed(read_response(backend, *exchange).await)
        }
        Err(SocketOpenError::Request(error)) => OpenResult::Failed(failed(error)),
        Err(error) => OpenResult::Failed(ConnectionEvent::Broken(error.to_string())),
    }
}

async fn read_response(backend: &Backend, mut exchange: BackendResponse) -> ConnectionEvent {
    // One that is compressed may be a stream, which has no end to wait for, and nothing of it can be read.
    let is_readable = exchange.content_encoding().is_none();
    let body = if is_readable { exchange.body(backend.limits().event_bytes).await } else { Ok(Bytes::new()) };
    match body {
        Ok(body) => ConnectionEvent::Answered(Box::new(exchange), body),
        Err(error) => ConnectionEvent::Broken(reason(&error)),
    }
}

fn failed(error: RequestError) -> ConnectionEvent {
    match error {
        RequestError::Connect(error) => ConnectionEvent::Unreachable(error.to_string()),
        error => ConnectionEvent::Broken(error.to_string()),
    }
}
