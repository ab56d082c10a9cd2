//! A write timeout for connections.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::deadline::DeadlineTimer;
use crate::proxy::request::StallFlag;

/// Fails a write that makes no progress within a limit, so that a client that does not read cannot hold a connection
/// and its buffers indefinitely.
#[derive(Debug)]
pub(super) struct WriteTimeout<T> {
    io: T,
    limit: Duration,
    /// Runs while a write is pending, as `waiting` records.
    timer: DeadlineTimer,
    waiting: bool,
    stall: StallFlag,
}

impl<T> WriteTimeout<T> {
    /// Wraps `io`. A write timeout is noted in `stall`.
    pub(super) fn new(io: T, limit: Duration, stall: StallFlag) -> Self {
        Self { io, limit, timer: DeadlineTimer::after(limit), waiting: false, stall }
    }

    fn check_progress<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = false;
            self.note_timeout(&written);
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.restart(self.limit);
        }
        ready!(self.timer.poll_expired(cx));
        self.stall.set();
        let why = "the client took nothing within limits.client_write";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }

    /// Notes `ETIMEDOUT`: the kernel closes a connection with it when the client acknowledged nothing within
    /// `limits.tcp_user_timeout`.
    fn note_timeout<R>(&self, result: &Poll<io::Result<R>>) {
        if matches!(result, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut) {
            self.stall.set();
        }
    }
}

impl<T: Read + Unpin> Read for WriteTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.note_timeout(&read);
        read
    }
}

impl<T: Write + Unpin> Write for WriteTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.check_progress(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.check_progress(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.check_progress(cx, shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.check_progress(cx, written)
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_dropped_after_the_limit_and_not_before() {
        let (ours, _theirs) = tokio::io::duplex(4);
        let limit = Duration::from_secs(60);
        let mut io = WriteTimeout::new(TokioIo::new(ours), limit, StallFlag::default());
        let began = Instant::now();
        let mut written = 0;
        let error = loop {
            match std::future::poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"x")).await {
                Ok(bytes) => written += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(written, 4);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), limit.as_secs());
    }
}
