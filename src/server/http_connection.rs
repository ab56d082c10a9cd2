//! HTTP on a connection of a client: hyper serves it, except for event streams over HTTP/1 that wait for events.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use hyper::body::Incoming;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::http1_guard::Http1Guard;
use super::stream_response::StreamResponse;
use super::stream_slot::{StreamSlot, WaitingStream};
use crate::config::{Config, Limits};
use crate::core::http::guard::KeepAlive;
use crate::respond::{Body, BoxError};

/// The maximum number of concurrent streams of an HTTP/2 connection.
const STREAMS: u32 = 128;
/// How much hyper may buffer in one direction beyond the size of the largest head, in bytes. It buffers as much of a
/// response while the client does not read.
const BUFFER: usize = 16 * 1024;
/// How much of a response an HTTP/2 stream buffers while the client does not read, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection, served until it ends.
pub(super) struct HttpConnection<T, S: HttpService<Incoming, ResBody = Body>> {
    state: State<T, S>,
    config: Arc<Config>,
    slot: Arc<StreamSlot>,
    /// No request is accepted any more.
    is_closing: bool,
}

enum State<T, S: HttpService<Incoming, ResBody = Body>> {
    /// Nothing of a request has been passed on.
    Opening(Http1Guard<T>, S),
    Http1(Box<http1::UpgradeableConnection<Http1Guard<T>, S>>),
    Http2(Pin<Box<http2::Connection<Http1Guard<T>, S, StreamExecutor>>>),
    Streaming(Http1Guard<T>, S, StreamResponse),
    /// The last stream has ended.
    Closing(Http1Guard<T>),
    Closed,
}

impl<T, S> HttpConnection<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
    S::Future: 'static,
    StreamExecutor: Http2ServerConnExec<S::Future, Body>,
{
    /// Serves `io` with `service`, which wraps its event streams with `slot`.
    pub(super) fn new(io: Http1Guard<T>, service: S, slot: Arc<StreamSlot>, config: Arc<Config>) -> Self {
        Self { state: State::Opening(io, service), config, slot, is_closing: false }
    }

    /// Closes the connection after the current requests.
    pub(super) fn graceful_shutdown(&mut self) {
        self.is_closing = true;
        match &mut self.state {
            State::Http1(hyper) => Pin::new(&mut **hyper).graceful_shutdown(),
            State::Http2(hyper) => hyper.as_mut().graceful_shutdown(),
            State::Opening(..) => self.state = State::Closed,
            State::Streaming(..) | State::Closing(_) | State::Closed => {}
        }
    }

    /// The state after the current one is over. `stream` is the one to take over from hyper.
    fn next(&self, stream: Option<WaitingStream>, state: State<T, S>) -> State<T, S> {
        match (state, stream) {
            (State::Opening(io, service), _) if io.is_http2() => {
                State::Http2(Box::pin(http2_builder(&self.config.limits).serve_connection(io, service)))
            }
            (State::Streaming(io, _, stream), _) if stream.keep_alive == KeepAlive::No || self.is_closing => {
                State::Closing(io)
            }
            (State::Opening(io, service) | State::Streaming(io, service, _), _) => State::Http1(Box::new(
                http1_builder(&self.config.limits).serve_connection(io, service).with_upgrades(),
            )),
            (State::Http1(hyper), Some(stream)) => match hyper.into_parts() {
                Some(http1::Parts { mut io, read_buf, service, .. }) => {
                    io.unread(&read_buf);
                    State::Streaming(io, service, StreamResponse::new(stream))
                }
                None => State::Closed,
            },
            (state, _) => state,
        }
    }
}

impl<T, S> Future for HttpConnection<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible> + Unpin,
    S::Future: 'static,
    StreamExecutor: Http2ServerConnExec<S::Future, Body>,
{
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let mut stream = None;
            match &mut this.state {
                State::Opening(io, _) => ready!(io.poll_accepted(cx))?,
                State::Http1(hyper) => match hyper.poll_unpin(cx) {
                    Poll::Ready(ended) => return Poll::Ready(ended.map_err(Into::into)),
                    Poll::Pending => match this.slot.take() {
                        None => return Poll::Pending,
                        waiting => stream = waiting,
                    },
                },
                State::Streaming(io, _, stream) => ready!(stream.poll_send(io, cx))?,
                State::Http2(hyper) => return hyper.poll_unpin(cx).map_err(Into::into),
                State::Closing(io) => return Pin::new(io).poll_shutdown(cx).map_err(Into::into),
                State::Closed => return Poll::Ready(Ok(())),
            }
            let state = mem::replace(&mut this.state, State::Closed);
            this.state = this.next(stream, state);
        }
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The guard limits the time for a head, and the activity the time between two requests.
    builder
        .header_read_timeout(None::<Duration>)
        .max_headers(limits.header_count + 1)
        .max_buf_size(limits.head_bytes + BUFFER);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor::default());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// The streams of an HTTP/2 connection, aborted with it.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamExecutor(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let mut streams = self.0.lock();
        while streams.try_join_next().is_some() {}
        streams.spawn(stream.map(drop));
    }
}

#[cfg(test)]
mod tests;
