//! How a connection takes an event stream over from hyper.
//!
//! hyper keeps buffers of 8 KiB in each direction while it serves a connection, and an event stream waits for most of
//! its time. So hyper sends only the head and the frames that are ready. When the stream first waits, the connection
//! takes it over, and drops what hyper holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::core::http::guard::KeepAlive;
use crate::core::http::headers::is_event_stream;
use crate::respond::{Body, BoxError};

/// The event stream of a connection, from when it first waits for a frame until the connection takes it over.
#[derive(Debug, Default)]
pub(super) struct StreamSlot {
    stream: Mutex<Option<WaitingStream>>,
    /// hyper has bytes to write, or has written bytes since the last flush.
    is_writing: AtomicBool,
}

impl StreamSlot {
    /// Notes that hyper writes. Returns whether this begins after a flush.
    pub(super) fn begin_write(&self) -> bool {
        !self.is_writing.swap(true, Ordering::Relaxed)
    }

    /// Notes that hyper has written everything.
    pub(super) fn flushed(&self) {
        self.is_writing.store(false, Ordering::Relaxed);
    }

    /// Takes the stream over, once hyper has written everything before its next frame.
    pub(super) fn take(&self) -> Option<WaitingStream> {
        if self.is_writing.load(Ordering::Relaxed) { None } else { self.stream.lock().take() }
    }

    /// Wraps the body of `response`, if it is an event stream, so that it can be taken over. The request was HTTP/1.1,
    /// without a body and an upgrade.
    pub(super) fn wrap(self: &Arc<Self>, response: Response<Body>, keep_alive: KeepAlive) -> Response<Body> {
        let headers = response.headers();
        let is_chunked =
            ![CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER].iter().any(|name| headers.contains_key(name))
                && response.body().size_hint().exact().is_none();
        if !is_chunked || !is_event_stream(headers) {
            return response;
        }
        response.map(|body| {
            EventStreamBody { body: Some(body), keep_alive, slot: Arc::clone(self) }.boxed_unsync()
        })
    }
}

/// An event stream that waits for its next frame.
#[derive(Debug)]
pub(super) struct WaitingStream {
    pub(super) body: Body,
    pub(super) keep_alive: KeepAlive,
}

/// The body of an event stream, until it waits for its next frame for the first time.
struct EventStreamBody {
    body: Option<Body>,
    keep_alive: KeepAlive,
    slot: Arc<StreamSlot>,
}

impl http_body::Body for EventStreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_pending() {
            let keep_alive = self.keep_alive;
            *self.slot.stream.lock() = self.body.take().map(|body| WaitingStream { body, keep_alive });
        }
        polled
    }
}
