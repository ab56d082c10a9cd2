//! The activity of a connection, to detect an idle client, and over HTTP/2 a stalled one.
//!
//! Over HTTP/2, the transport does not show which side waits. A reader that grants no more window stalls its stream, and the
//! connection below still accepts bytes. But the next chunk of a response body is polled only when the previous one
//! was sent: if a chunk was returned, and no further one is polled, the response waits for the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::LINGER;
use crate::config::Limits;
use crate::deadline::GRACE;
use crate::respond::{Body, BoxError};

/// The activity of a connection.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    inner: Mutex<Inner>,
    /// Notified when an exchange ends.
    ended: Notify,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    /// The open exchanges, each with the time since when it waits for the client: one over HTTP/1, and few
    /// over HTTP/2.
    open: Vec<(u64, Option<Instant>)>,
    /// When the last exchange ended, or the connection began.
    idle: Instant,
    /// The connection closes when it becomes idle.
    is_last: bool,
    is_http_2: bool,
}

/// The limit that a connection has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionTimeout {
    /// Its client does not read a response.
    Write,
    /// Its client sends no request.
    Idle,
}

impl Inner {
    /// When the connection will exceed a limit, and which one, as known now.
    fn due(&self, limits: &Limits, closing: Option<Instant>) -> Option<(Instant, ConnectionTimeout)> {
        if self.open.is_empty() {
            return Some((self.idle_until(limits, closing), ConnectionTimeout::Idle));
        }
        let since = self.open.iter().filter_map(|(_, since)| *since).min()?;
        Some((since + limits.client_write, ConnectionTimeout::Write))
    }

    /// How long the connection is kept while it is idle.
    fn idle_until(&self, limits: &Limits, closing: Option<Instant>) -> Instant {
        let has_asked = self.next > 0;
        match closing {
            // Over HTTP/1 the guard times the first head, and answers an incomplete one.
            None if self.is_http_2 && !has_asked => self.idle + limits.client_head,
            None => self.idle + limits.client_idle,
            // The last frames may still be in flight.
            Some(since) if has_asked => (self.idle + limits.client_write).max(since + LINGER),
            Some(since) => since + LINGER,
        }
    }
}

/// An exchange: a request and its response.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    activity: Arc<ConnectionActivity>,
    id: u64,
}

impl Default for ConnectionActivity {
    fn default() -> Self {
        let inner =
            Inner { next: 0, open: Vec::new(), idle: Instant::now(), is_last: false, is_http_2: false };
        Self { inner: Mutex::new(inner), ended: Notify::new() }
    }
}

impl ConnectionActivity {
    /// Registers a request.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        let mut inner = self.inner.lock();
        let id = inner.next;
        inner.next += 1;
        inner.open.push((id, None));
        ActiveRequest { activity: Arc::clone(self), id }
    }

    /// Closes the connection when it becomes idle.
    pub(super) fn end_when_idle(&self) {
        self.inner.lock().is_last = true;
    }

    /// Waits until a closing connection is idle.
    pub(super) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            {
                let inner = self.inner.lock();
                if inner.is_last && inner.open.is_empty() {
                    return;
                }
            }
            ended.await;
        }
    }

    /// Marks the connection as HTTP/2.
    pub(super) fn set_http2(&self) {
        self.inner.lock().is_http_2 = true;
    }

    /// Waits until the connection exceeds a limit. `closing` is when its shutdown began.
    pub(super) async fn timed_out(&self, limits: &Limits, closing: Option<Instant>) -> ConnectionTimeout {
        // A client may stall, switch to HTTP/2, or become idle, at any time.
        let most = limits.client_write.min(limits.client_head).min(limits.client_idle.max(GRACE));
        // The limit that was found exceeded once. Data that has arrived meanwhile is read before it counts.
        let mut passed = None;
        loop {
            let now = Instant::now();
            let pause = match self.inner.lock().due(limits, closing) {
                Some((at, overdue)) if at <= now && passed == Some(at) => return overdue,
                Some((at, _)) if at <= now => {
                    passed = Some(at);
                    GRACE
                }
                Some((at, _)) => (at - now).min(most),
                None => most,
            };
            sleep(pause).await;
        }
    }
}

impl ActiveRequest {
    /// Wraps `body`, which is sent over `version` of HTTP, to track it until it is dropped.
    pub(super) fn watch(self, body: Body, version: Version) -> Body {
        // Over HTTP/2, nothing else detects that the client does not read.
        let is_timed = version == Version::HTTP_2;
        WatchedBody { body, exchange: self, is_timed }.boxed_unsync()
    }

    fn wait(&self, since: Option<Instant>) {
        let mut inner = self.activity.inner.lock();
        if let Some(open) = inner.open.iter_mut().find(|(id, _)| *id == self.id) {
            open.1 = since;
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut inner = self.activity.inner.lock();
        inner.open.retain(|(id, _)| *id != self.id);
        inner.idle = Instant::now();
        if inner.is_last {
            self.activity.ended.notify_one();
        }
    }
}

struct WatchedBody {
    body: Body,
    exchange: ActiveRequest,
    is_timed: bool,
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if self.is_timed {
            self.exchange.wait(polled.is_ready().then(Instant::now));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
