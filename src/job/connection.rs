//! The connection of a leg, as a source of events for its session.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use http::Method;
use tokio::task::yield_now;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};

use crate::backend::{
    self, Backend, BackendResponse, RequestError, RequestIdentity, SocketOpenError, reason,
};
use crate::core::domain::channel::Channel;
use crate::core::run::plan::Leg;
use crate::core::upstream::dialect::Dialect;

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

impl ConnectionEvent {
    /// The size of a chunk or a frame. Nothing is read at once with another event.
    fn size(&self) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len()),
            // An empty frame counts too.
            Self::Text(text) => Some(text.len() + 1),
            _ => None,
        }
    }
}

/// The connection of a leg.
#[derive(Default)]
pub(super) struct LegConnection {
    state: ConnectionState,
    /// The events that were read, in order.
    arrived: VecDeque<ConnectionEvent>,
    /// The last batch was full.
    may_have_more: bool,
    /// Nothing is read ahead from a socket before its command is sent: nothing can be sent once its end is read.
    reads_ahead: bool,
}

#[derive(Default)]
enum ConnectionState {
    /// No connection: between two legs, or after the last.
    #[default]
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

/// The number of bytes that are read at once, before the last chunk or frame. Other tasks of the thread run in between:
/// watchers must not lag behind a backend that sends without pause.
const BATCH_BYTES: usize = 32 * 1024;
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
        let state = ConnectionState::Opening(match leg.channel {
            Channel::Native => async move { stream(&backend, &target, &identity).await }.boxed(),
            Channel::Json => async move { answer(&backend, &target, &identity).await }.boxed(),
            Channel::Websocket => async move { socket(&backend, &target, &identity).await }.boxed(),
        });
        Self { state, reads_ahead: leg.channel != Channel::Websocket, ..Self::default() }
    }

    /// Waits for the next event. All chunks and frames that have arrived are read at once, from a socket after its command
    /// is sent; [`LegConnection::read`] returns the others. Cancel safe.
    pub(super) async fn next(&mut self) -> ConnectionEvent {
        if let Some(event) = self.read() {
            return event;
        }
        if std::mem::take(&mut self.may_have_more) {
            yield_now().await;
        }
        poll_fn(|cx| self.poll_batch(cx)).await
    }

    /// The next event that was read.
    pub(super) fn read(&mut self) -> Option<ConnectionEvent> {
        self.arrived.pop_front()
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        let first = ready!(self.poll_event(cx));
        let mut size = first.size();
        while self.reads_ahead
            && size.is_some_and(|size| size < BATCH_BYTES)
            && let Poll::Ready(event) = self.poll_event(cx)
        {
            size = size.zip(event.size()).map(|(all, more)| all + more);
            self.arrived.push_back(event);
        }
        self.may_have_more = size.is_some_and(|size| size >= BATCH_BYTES);
        Poll::Ready(first)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        let event = match &mut self.state {
            ConnectionState::None => return Poll::Pending,
            ConnectionState::Opening(opening) => match ready!(opening.poll_unpin(cx)) {
                OpenResult::Stream(exchange) => {
                    let content_type = exchange.content_type().map(str::to_owned);
                    self.state = ConnectionState::Stream(exchange);
                    return Poll::Ready(ConnectionEvent::Opened { content_type });
                }
                OpenResult::Socket(socket) => {
                    self.state = ConnectionState::Socket(socket);
                    return Poll::Ready(ConnectionEvent::Opened { content_type: None });
                }
                OpenResult::Failed(event) => event,
            },
            ConnectionState::Stream(exchange) => match ready!(exchange.poll_chunk(cx)) {
                Some(Ok(bytes)) => return Poll::Ready(ConnectionEvent::Bytes(bytes)),
                Some(Err(error)) => ConnectionEvent::Broken(reason(&error)),
                None => ConnectionEvent::Cleanly,
            },
            ConnectionState::Socket(socket) => loop {
                // The library answers pings on every read, and this loop always reads.
                match ready!(socket.frames.poll_next_unpin(cx)) {
                    Some(Ok(Message::Text(text))) => return Poll::Ready(ConnectionEvent::Text(text)),
                    Some(Ok(Message::Close(frame))) => {
                        let (code, reason) = frame.map_or((NO_CODE, String::new()), |frame| {
                            (frame.code.into(), frame.reason.to_string())
                        });
                        break ConnectionEvent::Close { code, reason };
                    }
                    Some(Ok(_)) => {}
                    Some(Err(SocketError::ConnectionClosed)) | None => break ConnectionEvent::Cleanly,
                    Some(Err(error)) => break ConnectionEvent::Broken(error.to_string()),
                }
            },
        };
        self.state = ConnectionState::None;
        Poll::Ready(event)
    }

    /// Sends text frames. Returns whether a command is among them.
    pub(super) async fn send(&mut self, texts: &[String]) -> Result<bool, String> {
        let ConnectionState::Socket(socket) = &mut self.state else {
            return Err("it is closed".to_owned());
        };
        for text in texts {
            socket.frames.feed(Message::text(text)).await.map_err(|error| error.to_string())?;
        }
        socket.frames.flush().await.map_err(|error| error.to_string())?;
        let has_command = texts.iter().any(|text| !Dialect::is_key_frame(text));
        self.reads_ahead |= has_command;
        Ok(has_command)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_and_frames_are_read_at_once_and_an_empty_frame_counts_too() {
        let chunk = ConnectionEvent::Bytes(Bytes::from_static(b"abc"));
        let [text, empty] = ["abc", ""].map(|text| ConnectionEvent::Text(text.into()));
        let sizes = [chunk, text, empty, ConnectionEvent::Cleanly].map(|event| event.size());
        assert_eq!(sizes, [Some(3), Some(4), Some(1), None]);
    }
}
