//! Connections to a backend that are kept for later requests.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::connect::Dialer;
use super::connect_error::ConnectError;
use super::upload::UploadError;
use crate::client::connection::Connection;
use crate::tls::ConnectionUse;

/// The body of a forwarded request.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, UploadError>;

/// How much of a response is buffered before the client reads it, in bytes. The head must fit.
const BUFFER: usize = 64 * 1024;
/// The maximum number of idle connections.
const MAX_IDLE: usize = 32;

/// Why a request got no response.
#[derive(Debug)]
pub(super) enum PoolError {
    /// There is no connection. The request was not sent.
    Connect(ConnectError),
    /// The connection broke. It was used as stated before.
    Broken(hyper::Error, ConnectionUse),
}

/// Connections to a backend.
#[derive(Debug)]
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    idle: Arc<IdleConnections>,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        let idle = IdleConnections { timeout: dialer.config.limits.pool_idle, ..IdleConnections::default() };
        Self { dialer, idle: Arc::new(idle) }
    }

    /// Sends `request` and waits for the head of the response. An idle connection may be closed by the backend at any
    /// time: a request that was certainly not sent on it is sent on another one.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<PooledBody>, PoolError> {
        while let Some(mut connection) = self.idle.take() {
            request = match connection.send(request).await {
                Ok(response) => return Ok(self.pooled(response, connection)),
                Err(mut error) => match error.take_message() {
                    Some(request) => request,
                    None => return Err(PoolError::Broken(error.into_error(), ConnectionUse::Reused)),
                },
            };
        }
        let broken = |error| PoolError::Broken(error, ConnectionUse::Fresh);
        // Boxed: it is large, and few requests need it.
        let link = self.dialer.connect().boxed().await.map_err(PoolError::Connect)?;
        let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(link));
        let (sender, connection) = handshake.await.map_err(broken)?;
        let mut connection = PooledConnection { sender, connection: Connection::new(connection) };
        match connection.send(request).await {
            Ok(response) => Ok(self.pooled(response, connection)),
            Err(error) => Err(broken(connection.connection.cause(error.into_error()))),
        }
    }

    fn pooled(&self, response: Response<Incoming>, connection: PooledConnection) -> Response<PooledBody> {
        response.map(|body| PooledBody {
            body: Some(body),
            connection: Some(connection),
            idle: Some(Arc::clone(&self.idle)),
            has_unsent: true,
            error: None,
        })
    }
}

/// A connection, driven by the request that uses it.
#[derive(Debug)]
struct PooledConnection {
    sender: SendRequest<RequestBody>,
    connection: Connection,
}

impl PooledConnection {
    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.connection.drive(self.sender.try_send_request(request)).await
    }

    /// Closes it, over TLS with a `close_notify`.
    fn close(self) {
        let Self { sender, mut connection } = self;
        drop(sender);
        connection.poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// The body of a response. Its connection is kept for later requests once the body was read.
///
/// A request body that is still being sent goes on while this body is polled.
#[derive(Debug)]
pub struct PooledBody {
    /// `None` while it is dropped, like the connection.
    body: Option<Incoming>,
    connection: Option<PooledConnection>,
    /// `None` if the connection must not be kept.
    idle: Option<Arc<IdleConnections>>,
    /// What was received last, the head included, may not be sent to the client yet.
    has_unsent: bool,
    /// How the body failed. It is returned one turn later, so that what was received before can be sent.
    error: Option<hyper::Error>,
}

impl PooledBody {
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
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Self { body: Some(body), connection: Some(PooledConnection { connection, .. }), .. } = &mut *self
        else {
            return Poll::Ready(None);
        };
        match connection.poll_with(cx, |cx| Pin::new(&mut *body).poll_frame(cx)) {
            // At an error, hyper discards what it has not sent.
            Poll::Ready(Some(Err(error))) if self.has_unsent => {
                self.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => {
                self.has_unsent = polled.is_ready();
                polled
            }
        }
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
struct IdleConnections {
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

impl Default for IdleConnections {
    fn default() -> Self {
        let activity = Arc::<Activity>::default();
        let waker = Arc::clone(&activity).into();
        Self { timeout: Duration::ZERO, connections: Mutex::default(), activity, waker }
    }
}

impl IdleConnections {
    /// The connection that was used last, unless it is idle for too long, as the others are then.
    fn take(&self) -> Option<PooledConnection> {
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
        let (sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let mut connection = PooledConnection { sender, connection: Connection::new(connection) };
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
