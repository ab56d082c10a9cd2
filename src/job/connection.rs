//! The connection of a leg, as a source of events for its session.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use http::Method;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};

use crate::backend::{
    self, Backend, BackendResponse, RequestError, RequestIdentity, SocketOpenError, reason,
};
use crate::core::domain::channel::Channel;
use crate::core::run::plan::Leg;

/// An event of a connection.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The stream or the socket is open. `content_type` is that of a stream.
    Opened { content_type: Option<String> },
    /// A response that opens neither a stream nor a socket, with its body.
    Answered(Box<BackendResponse>, Bytes),
    /// The connection could not be made. No request was sent.
    Unreachable(String),
    /// A chunk of the stream.
    Bytes(Bytes),
    /// A text frame.
    Text(Utf8Bytes),
    /// The connection ended cleanly.
    Cleanly,
    /// The connection broke.
    Broken(String),
    /// The socket was closed with a close frame.
    Close { code: u16, reason: String },
}

/// The connection of a leg.
pub(super) enum LegConnection {
    /// No connection: between two legs, or after the last.
    None,
    /// The connection is being opened.
    Opening(BoxFuture<'static, OpenResult>),
    /// A stream.
    Stream(Box<BackendResponse>),
    /// A WebSocket.
    Socket(Box<backend::BackendSocket>),
}

/// The result of opening a connection.
pub(super) enum OpenResult {
    Stream(Box<BackendResponse>),
    Socket(Box<backend::BackendSocket>),
    Failed(ConnectionEvent),
}

/// The code for a close frame without a status (RFC 6455, section 7.1.5).
const NO_CODE: u16 = 1005;

/// The request target of `leg`, with the client's query.
pub(super) fn target(leg: &Leg, query: &str) -> String {
    let path = leg.path();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

impl LegConnection {
    /// Starts to open the connection of `leg`, at `target`.
    pub(super) fn open(backend: Arc<Backend>, leg: &Leg, target: String, identity: RequestIdentity) -> Self {
        Self::Opening(match leg.channel {
            Channel::Native => async move { stream(&backend, &target, &identity).await }.boxed(),
            Channel::Json => async move { answer(&backend, &target, &identity).await }.boxed(),
            Channel::Websocket => async move { socket(&backend, &target, &identity).await }.boxed(),
        })
    }

    /// Waits for the next event. Cancel safe.
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
                // The library answers pings on every read, and this loop always reads.
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
    let mut exchange = match backend.send(Method::GET, target, identity).await {
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
    // A compressed body is not read: it cannot be parsed, and it may be a stream without an end.
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
