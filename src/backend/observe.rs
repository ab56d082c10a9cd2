//! Copies of the bytes on connections to a backend, for a recorder.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::core::domain::release::Release;

/// The last detected release of a backend.
pub type LastRelease = Arc<Mutex<Option<Release>>>;

/// Is notified of the connections to a backend.
pub trait BackendObserver: Debug + Send + Sync {
    /// A connection was established, TLS included. `release` is that of the backend, once it is detected.
    fn connected(&self, release: &LastRelease) -> Box<dyn ConnectionObserver>;
}

/// Is notified of the bytes of one connection, without TLS. It is dropped when the bridge closes the connection.
pub trait ConnectionObserver: Debug + Send {
    /// The bridge sent `bytes`.
    fn sent(&mut self, bytes: &[u8]);

    /// The backend sent `bytes`.
    fn received(&mut self, bytes: &[u8]);

    /// The backend closed the connection, or it broke.
    fn ended(&mut self);
}

/// A connection whose bytes are observed.
#[derive(Debug)]
pub(super) struct ObservedStream<S> {
    pub(super) link: S,
    observer: Box<dyn ConnectionObserver>,
}

impl<S> ObservedStream<S> {
    pub(super) fn new(link: S, observer: Box<dyn ConnectionObserver>) -> Self {
        Self { link, observer }
    }

    /// Notifies the observer of the first `written` bytes of `buffers`.
    fn note_sent(&mut self, buffers: &[IoSlice<'_>], written: io::Result<usize>) -> io::Result<usize> {
        let mut left = *written.as_ref().unwrap_or(&0);
        for buffer in buffers {
            let part = left.min(buffer.len());
            if part > 0 {
                self.observer.sent(&buffer[..part]);
            }
            left -= part;
        }
        if written.is_err() {
            self.observer.ended();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, had_room) = (buf.filled().len(), buf.remaining() > 0);
        let read = ready!(Pin::new(&mut self.link).poll_read(cx, buf));
        match &buf.filled()[before..] {
            [] if had_room || read.is_err() => self.observer.ended(),
            bytes => self.observer.received(bytes),
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.link).poll_write(cx, buf));
        Poll::Ready(self.note_sent(&[IoSlice::new(buf)], written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.link).poll_write_vectored(cx, bufs));
        Poll::Ready(self.note_sent(bufs, written))
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}
