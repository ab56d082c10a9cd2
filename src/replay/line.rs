//! The TCP connection under an exchange, which can be dropped after the data was flushed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// An error that makes hyper drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped on purpose")]
pub(super) struct ConnectionDropped;

/// A TCP connection that counts its flushes.
pub(super) struct CountedStream {
    io: TokioIo<TcpStream>,
    flushes: watch::Sender<u64>,
}

/// A handle to a connection, for its exchanges.
#[derive(Clone)]
pub(super) struct ConnectionHandle {
    flushes: watch::Receiver<u64>,
    ending: Arc<AtomicBool>,
}

impl CountedStream {
    pub(super) fn new(stream: TcpStream) -> (Self, ConnectionHandle) {
        let (flushes, receiver) = watch::channel(0);
        let connection = ConnectionHandle { flushes: receiver, ending: Arc::default() };
        (Self { io: TokioIo::new(stream), flushes }, connection)
    }
}

impl ConnectionHandle {
    /// Records that the server ends the connection.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether the server ends the connection.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Waits until hyper has flushed all data, and then lets the connection be dropped. Without the wait hyper would
    /// discard its buffer. Hyper flushes whenever a body is pending, so a flush follows.
    pub(super) async fn cut(&mut self) -> ConnectionDropped {
        self.flushes.mark_unchanged();
        // The sender is dropped with the connection.
        let _ = self.flushes.changed().await;
        self.end();
        ConnectionDropped
    }
}

impl Read for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.flushes.send_modify(|flushes| *flushes += 1);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
