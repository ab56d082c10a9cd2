//! What goes on on one HTTP/2 connection, where the transport does not tell who waits for whom.
//!
//! A reader that lets no more of a stream come holds it with a window of HTTP/2, and the connection below
//! takes bytes all the same. But an answer is asked for its next piece only when the one before has gone: a
//! piece that was handed out, and no further one was asked for, waits for the client.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::LINGER;
use crate::config::Limits;
use crate::deadline::GRACE;
use crate::respond::{Body, BoxError};

/// What goes on on a connection.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    inner: Mutex<Inner>,
    /// Something has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    /// The exchanges that are open, with the time since when each waits for the client.
    open: BTreeMap<u64, Option<Instant>>,
    /// When the last one ended, or the connection began.
    idle: Instant,
    /// The connection is to end with them.
    is_last: bool,
    is_http_2: bool,
}

/// What a connection is over its time with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionTimeout {
    /// Its client takes nothing of an answer.
    Write,
    /// Its client asks for nothing.
    Idle,
}

impl Inner {
    /// When the connection is over its time, as far as it is known by now, and with what.
    fn due(&self, limits: &Limits, closing: Option<Instant>) -> Option<(Instant, ConnectionTimeout)> {
        let waits = self.open.values().flatten().min().map(|since| *since + limits.client_write);
        let idle =
            || self.open.is_empty().then(|| (self.idle_until(limits, closing), ConnectionTimeout::Idle));
        waits.map(|at| (at, ConnectionTimeout::Write)).or_else(idle)
    }

    /// How long the connection is kept while nothing is open on it.
    fn idle_until(&self, limits: &Limits, closing: Option<Instant>) -> Instant {
        let has_asked = self.next > 0;
        match closing {
            // Over HTTP/1 it is the screen that waits for the first head, and answers one that is not whole in time.
            None if self.is_http_2 && !has_asked => self.idle + limits.client_head,
            None => self.idle + limits.client_idle,
            // Its last frames may still be on their way.
            Some(since) if has_asked => (self.idle + limits.client_write).max(since + LINGER),
            Some(since) => since + LINGER,
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    activity: Arc<ConnectionActivity>,
    id: u64,
}

impl Default for ConnectionActivity {
    fn default() -> Self {
        let inner =
            Inner { next: 0, open: BTreeMap::new(), idle: Instant::now(), is_last: false, is_http_2: false };
        Self { inner: Mutex::new(inner), ended: Notify::new() }
    }
}

impl ConnectionActivity {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id, None);
        ActiveRequest { activity: Arc::clone(self), id }
    }

    /// The connection is to end when nothing is open on it any more.
    pub(super) fn end_when_idle(&self) {
        self.inner().is_last = true;
    }

    /// Done when nothing is open on a connection that is to end then.
    pub(super) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            {
                let inner = self.inner();
                if inner.is_last && inner.open.is_empty() {
                    return;
                }
            }
            ended.await;
        }
    }

    /// The client speaks HTTP/2.
    pub(super) fn set_http2(&self) {
        self.inner().is_http_2 = true;
    }

    /// Done when a limit on the time of the connection has passed, which has been closing since `closing`.
    pub(super) async fn timed_out(&self, limits: &Limits, closing: Option<Instant>) -> ConnectionTimeout {
        // A client may begin to take nothing, or to speak HTTP/2, at any time.
        let most = limits.client_write.min(limits.client_head);
        // What was found to be overdue once. What the client has sent meanwhile is read before it counts.
        let mut passed = None;
        loop {
            let now = Instant::now();
            let pause = match self.inner().due(limits, closing) {
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

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveRequest {
    /// `body`, watched until it is gone; `is_timed` where nothing else tells that its client takes nothing.
    pub(super) fn watch(self, body: Body, is_timed: bool) -> Body {
        WatchedBody { body, exchange: self, is_timed }.boxed_unsync()
    }

    fn wait(&self, since: Option<Instant>) {
        self.activity.inner().open.insert(self.id, since);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut inner = self.activity.inner();
        inner.open.remove(&self.id);
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
