//! What goes on on one HTTP/2 connection, where the transport does not tell who waits for whom.
//!
//! A reader that lets no more of a stream come holds it with a window of HTTP/2, and the connection below
//! takes bytes all the same. But an answer is asked for its next piece only when the one before has gone: a
//! piece that was handed out, and no further one was asked for, waits for the client.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::respond::{Body, BoxError};

/// What goes on on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    inner: Mutex<Inner>,
    /// Something has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    /// The exchanges that are open, with the time since when each waits for the client.
    open: BTreeMap<u64, Option<Instant>>,
    /// When the last one ended.
    idle: Instant,
    /// The connection is to end with them.
    is_last: bool,
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    id: u64,
}

impl Default for Activity {
    fn default() -> Self {
        let inner = Inner { next: 0, open: BTreeMap::new(), idle: Instant::now(), is_last: false };
        Self { inner: Mutex::new(inner), ended: Notify::new() }
    }
}

impl Activity {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id, None);
        Exchange { activity: Arc::clone(self), id }
    }

    /// The connection is to end when nothing is open on it any more.
    pub(super) fn end_when_idle(&self) {
        self.inner().is_last = true;
    }

    /// Done when nothing is open on a connection that is to end then.
    pub(super) async fn last(&self) {
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

    /// Done when a client has taken nothing for `write` (true), or asked for nothing for `idle`, counted from
    /// `since` at the earliest (false).
    pub(super) async fn stuck(&self, write: Duration, idle: Duration, since: Instant) -> bool {
        loop {
            let now = Instant::now();
            let due = {
                let inner = self.inner();
                let waits = inner.open.values().flatten().min().map(|since| (*since + write, true));
                let rests = inner.open.is_empty().then_some((inner.idle.max(since) + idle, false));
                waits.or(rests)
            };
            // One may begin to wait at any time.
            let pause = match due {
                Some((at, stuck)) if at <= now => return stuck,
                Some((at, _)) => (at - now).min(write),
                None => write,
            };
            sleep(pause).await;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// `body`, watched until it is gone; `is_timed` where nothing else tells that its client takes nothing.
    pub(super) fn watch(self, body: Body, is_timed: bool) -> Body {
        Watched { body, exchange: self, is_timed }.boxed_unsync()
    }

    fn wait(&self, since: Option<Instant>) {
        self.activity.inner().open.insert(self.id, since);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut inner = self.activity.inner();
        inner.open.remove(&self.id);
        inner.idle = Instant::now();
        if inner.is_last {
            self.activity.ended.notify_one();
        }
    }
}

struct Watched {
    body: Body,
    exchange: Exchange,
    is_timed: bool,
}

impl http_body::Body for Watched {
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
