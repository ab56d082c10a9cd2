//! A connection that stops reading at the end of a response head.
//!
//! hyper reads on into the body as soon as it has parsed a head, and the state of its decoder cannot be taken over.
//! While the gate is closed, hyper receives the head alone, so that the connection can be taken from it there.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether reads stop at the end of a head. Only the task that drives the connection uses it.
#[derive(Debug, Default)]
pub(super) struct HeadGate {
    is_closed: AtomicBool,
    /// hyper has a whole head, and nothing behind it.
    is_reached: AtomicBool,
    /// hyper has bytes to write, or has written bytes since the last flush.
    is_writing: AtomicBool,
}

impl HeadGate {
    /// Reads stop at the end of the next head.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Reads go on without a limit. The connection must be driven afterwards.
    pub(super) fn open(&self) {
        self.is_closed.store(false, Ordering::Relaxed);
        self.is_reached.store(false, Ordering::Relaxed);
    }

    /// Lets reads go on to the end of the next head: that one was of an informational response. Returns whether they had
    /// stopped; then the connection must be driven.
    pub(super) fn pass_head(&self) -> bool {
        self.is_reached.swap(false, Ordering::Relaxed)
    }

    /// Whether reads have stopped, and everything is written.
    pub(super) fn has_stopped(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed) && !self.is_writing.load(Ordering::Relaxed)
    }
}

/// A stream with a gate.
#[derive(Debug)]
pub(super) struct GatedStream<S> {
    stream: S,
    gate: Arc<HeadGate>,
    position: HeadPosition,
    /// What was read and lies behind the gate.
    held: Bytes,
}

/// Where in a head the last byte is.
#[derive(Clone, Copy, Debug)]
enum HeadPosition {
    /// Before its first line. Empty lines are skipped there.
    Before,
    InLine,
    /// Behind the LF of a line.
    LineStart,
    /// Behind a CR at the start of a line.
    Cr,
}

impl HeadPosition {
    /// The index behind the end of the head in `bytes`. Like hyper, this takes a LF alone for the end of a line.
    fn head_end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::LineStart | Self::Cr, b'\n') => {
                    *self = Self::Before;
                    return Some(index + 1);
                }
                (Self::Before, b'\r' | b'\n') => Self::Before,
                (Self::LineStart, b'\r') => Self::Cr,
                (Self::InLine, b'\n') => Self::LineStart,
                _ => Self::InLine,
            };
        }
        None
    }
}

impl<S> GatedStream<S> {
    pub(super) fn new(stream: S, gate: Arc<HeadGate>) -> Self {
        Self { stream, gate, position: HeadPosition::Before, held: Bytes::new() }
    }

    /// The stream, and what was read from it and not passed on.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.held)
    }

    /// How many of `bytes` are passed on.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        if !self.gate.is_closed.load(Ordering::Relaxed) {
            return bytes.len();
        }
        let end = self.position.head_end(bytes);
        self.gate.is_reached.store(end.is_some(), Ordering::Relaxed);
        end.unwrap_or(bytes.len())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.gate.is_reached.load(Ordering::Relaxed) {
            // No waker: whoever opens the gate drives the connection.
            return Poll::Pending;
        }
        if !this.held.is_empty() {
            let mut held = mem::take(&mut this.held);
            let passed = this.pass(&held[..held.len().min(buf.remaining())]);
            buf.put_slice(&held.split_to(passed));
            this.held = held;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let end = before + this.pass(&buf.filled()[before..]);
        if end < buf.filled().len() {
            this.held = Bytes::copy_from_slice(&buf.filled()[end..]);
            buf.set_filled(end);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.gate.is_writing.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gate.is_writing.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.gate.is_writing.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
