//! A connection to a backend that is kept for later requests.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};

use super::connect::Link;
use super::event_stream::{EventStreamBody, Framing};
use super::head_gate::{GatedStream, HeadGate};
use super::upload::UploadError;
use crate::client::connection::Connection;
use crate::core::http::headers::accepts_event_stream;
use crate::core::wire::sse::is_stream_path;

/// The body of a forwarded request.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, UploadError>;

/// How much of a response is buffered before the client reads it, in bytes. The head must fit.
const BUFFER: usize = 64 * 1024;
/// The maximum number of idle connections.
const MAX_IDLE: usize = 32;

/// The connection of hyper.
type HyperConnection = http1::Connection<TokioIo<GatedStream<Link>>, RequestBody>;

/// A connection, driven by the request that uses it.
#[derive(Debug)]
pub(super) struct PooledConnection {
    sender: SendRequest<RequestBody>,
    connection: Connection<Box<HyperConnection>>,
    gate: Arc<HeadGate>,
}

impl PooledConnection {
    pub(super) async fn new(link: Link) -> Result<Self, hyper::Error> {
        let gate = Arc::<HeadGate>::default();
        let io = TokioIo::new(GatedStream::new(link, Arc::clone(&gate)));
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(io).await?;
        Ok(Self { sender, connection: Connection::new(Box::new(connection)), gate })
    }

    /// Sends `request` and waits for the head of the response.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        if may_stream(&request) {
            self.gate.close();
        }
        // Within the budget of a task, the response could seem to be missing when its head is there.
        let mut response = pin!(unconstrained(self.sender.try_send_request(request)));
        poll_fn(|cx| {
            loop {
                match self.connection.poll_with(cx, |cx| response.as_mut().poll(cx)) {
                    Poll::Pending if self.gate.pass_head() => {}
                    polled => return polled,
                }
            }
        })
        .await
    }

    /// The body of `response`, if it is an event stream that can be taken over from hyper. Otherwise hyper reads it.
    pub(super) fn take_event_stream(&mut self, response: &Response<Incoming>) -> Option<EventStreamBody> {
        let framing = if self.gate.has_stopped() { Framing::of_event_stream(response) } else { None };
        self.gate.open();
        let (framing, hyper) = (framing?, self.connection.take()?);
        let Parts { io, read_buf, .. } = hyper.into_parts();
        let (link, held) = io.into_inner().into_parts();
        Some(EventStreamBody::new(link, [read_buf, held].concat().into(), framing))
    }

    /// The cause of `error`, with which a request failed.
    pub(super) fn cause(self, error: hyper::Error) -> hyper::Error {
        self.connection.cause(error)
    }

    /// Closes it, over TLS with a `close_notify`.
    fn close(self) {
        let Self { sender, mut connection, .. } = self;
        drop(sender);
        connection.poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// Whether an event stream may answer `request`: one that asks for it, or for a path that is named like one. For others,
/// hyper reads heads as they come, which takes less time.
fn may_stream(request: &Request<RequestBody>) -> bool {
    request.method() == Method::GET
        && request.body().is_end_stream()
        && (accepts_event_stream(request.headers()) || is_stream_path(request.uri().path().as_bytes()))
}

/// The body of a response. Its connection is kept for later requests once the body was read.
///
/// A request body that is still being sent goes on while this body is polled.
#[derive(Debug)]
pub(super) struct PooledBody {
    /// `None` while it is dropped, like the connection.
    body: Option<Incoming>,
    connection: Option<PooledConnection>,
    /// `None` if the connection must not be kept.
    idle: Option<Arc<IdleConnections>>,
}

impl PooledBody {
    /// `body`, of which `connection` is one of `idle` afterwards.
    pub(super) fn new(body: Incoming, connection: PooledConnection, idle: &Arc<IdleConnections>) -> Self {
        Self { body: Some(body), connection: Some(connection), idle: Some(Arc::clone(idle)) }
    }

    /// Closes the connection after the response.
    pub(super) fn close_connection(&mut self) {
        self.idle = None;
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body: Some(body), connection: Some(PooledConnection { connection, .. }), .. } = &mut *self
        else {
            return Poll::Ready(None);
        };
        connection.poll_with(cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        // A connection whose body was not read to its end closes.
        self.body = None;
        let Some(mut connection) = self.connection.take() else { return };
        let waker = self.idle.as_ref().map_or(Waker::noop(), |idle| &idle.waker);
        connection.connection.poll(&mut Context::from_waker(waker));
        if !connection.connection.is_open() {
            return;
        }
        if connection.sender.is_ready() {
            match &self.idle {
                Some(idle) => idle.put(connection),
                None => connection.close(),
            }
        } else if let Ok(runtime) = Handle::try_current() {
            // The backend has answered, and still reads the request.
            let idle = self.idle.as_ref().map(Arc::downgrade);
            runtime.spawn(finish(connection, idle));
        }
    }
}

/// Drives `connection` until it is ready for the next request, and puts it among `idle`.
async fn finish(mut connection: PooledConnection, idle: Option<Weak<IdleConnections>>) {
    // Not `SendRequest::ready`: polled with another waker, it wakes the one before, and `drive` has two.
    poll_fn(|cx| {
        connection.connection.poll(cx);
        let is_over = connection.sender.is_ready() || !connection.connection.is_open();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let is_open = connection.connection.is_open();
    match idle.and_then(|idle| idle.upgrade()).filter(|_| is_open) {
        Some(idle) => {
            connection.connection.poll(&mut Context::from_waker(&idle.waker));
            idle.put(connection);
        }
        None => connection.close(),
    }
}

/// Connections between two requests. A task closes them after the limit, or when the backend closes them.
pub(super) struct IdleConnections {
    /// How long a connection is kept; zero keeps none.
    timeout: Duration,
    connections: Mutex<Connections>,
    activity: Arc<Activity>,
    /// Notes `activity`.
    waker: Waker,
}

#[derive(Default)]
struct Connections {
    /// Each with the time since when it is idle, the longest first.
    idle: Vec<(Instant, PooledConnection)>,
    /// The task runs.
    are_watched: bool,
}

/// Something has arrived on an idle connection: its end, usually.
#[derive(Debug, Default)]
struct Activity(Notify);

impl Wake for Activity {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl IdleConnections {
    /// None yet. They are kept for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        let activity = Arc::<Activity>::default();
        let waker = Arc::clone(&activity).into();
        Self { timeout, connections: Mutex::default(), activity, waker }
    }

    /// The connection that was used last, unless it is idle for too long, as the others are then.
    pub(super) fn take(&self) -> Option<PooledConnection> {
        let (since, mut connection) = self.connections.lock().idle.pop()?;
        if since.elapsed() >= self.timeout {
            connection.close();
            return None;
        }
        // The request must not wake the task.
        connection.connection.poll(&mut Context::from_waker(Waker::noop()));
        Some(connection)
    }

    /// Keeps `connection`, which wakes `waker` when something arrives.
    fn put(self: &Arc<Self>, connection: PooledConnection) {
        let mut connections = self.connections.lock();
        if self.timeout.is_zero() || connections.idle.len() >= MAX_IDLE {
            drop(connections);
            connection.close();
            return;
        }
        if !connections.are_watched {
            let Ok(runtime) = Handle::try_current() else { return };
            connections.are_watched = true;
            runtime.spawn(close_idle(Arc::downgrade(self), Arc::clone(&self.activity)));
        }
        connections.idle.push((Instant::now(), connection));
    }

    /// Drops the connections that were closed or idle for too long. Returns when the next one will be. `None` if there
    /// is no other.
    fn sweep(&self) -> Option<Instant> {
        let mut connections = self.connections.lock();
        let now = Instant::now();
        let is_overdue = |since: &Instant| now.saturating_duration_since(*since) >= self.timeout;
        let overdue = connections.idle.iter().take_while(|(since, _)| is_overdue(since)).count();
        let overdue: Vec<_> = connections.idle.drain(..overdue).collect();
        connections.idle.retain_mut(|(_, PooledConnection { connection, .. })| {
            connection.poll(&mut Context::from_waker(&self.waker));
            connection.is_open()
        });
        let due = connections.idle.first().map(|(since, _)| *since + self.timeout);
        connections.are_watched = due.is_some();
        drop(connections);
        overdue.into_iter().for_each(|(_, connection)| connection.close());
        due
    }
}

/// Closes connections among `idle` until there is none.
async fn close_idle(idle: Weak<IdleConnections>, activity: Arc<Activity>) {
    while let Some(due) = idle.upgrade().and_then(|idle| idle.sweep()) {
        let _ = timeout_at(due, activity.0.notified()).await;
    }
}

impl fmt::Debug for IdleConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleConnections").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures::StreamExt;
    use futures::channel::mpsc;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::client::connection::tests::Task;

    #[tokio::test]
    async fn the_rest_of_an_answered_request_schedules_the_task_only_when_a_part_of_it_is_there() {
        let (ours, mut backend) = duplex(4096);
        let mut connection = PooledConnection::new(Box::new(ours)).await.unwrap();
        let (mut parts, body) = mpsc::channel::<Result<Frame<Bytes>, UploadError>>(4);
        let mut request = Request::post("/x").header("content-length", 4).body(()).unwrap();
        *request.version_mut() = http::Version::HTTP_11;
        let request = request.map(|()| StreamBody::new(body.map(|part| part)).boxed_unsync());
        let answered = async {
            assert!(backend.read(&mut [0; 1024]).await.unwrap() > 0);
            backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        };
        let (response, ()) = tokio::join!(connection.send(request), answered);
        drop(response.unwrap());

        let task = Arc::<Task>::default();
        let waker = Arc::clone(&task).into();
        let mut finished = Box::pin(finish(connection, None));
        let mut poll = || finished.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let _ = (poll(), poll());
        let before = task.0.load(Ordering::Relaxed);
        parts.try_send(Ok(Frame::data(Bytes::from_static(b"ab")))).unwrap();
        assert!(!poll() && !poll() && !poll());
        assert_eq!(task.0.load(Ordering::Relaxed), before + 1);
        parts.try_send(Ok(Frame::data(Bytes::from_static(b"cd")))).unwrap();
        assert!(poll());
        let mut received = Vec::new();
        backend.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"abcd");
    }
}
