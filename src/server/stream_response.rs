//! An event stream that was taken over from hyper. Its chunks are framed as hyper frames them.

use std::collections::VecDeque;
use std::io::{self, Cursor, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame};
use hyper::rt::{Read, Write};

use super::http1_guard::Http1Guard;
use super::stream_slot::WaitingStream;
use crate::core::http::guard::KeepAlive;
use crate::respond::{Body, BoxError};

/// How many chunks are written at once.
const CHUNKS: usize = 16;
/// How many bytes are buffered before no further chunk is added.
const BUFFER: usize = 16 * 1024;
/// The longest line with the size of a chunk.
const SIZE_LINE: usize = usize::BITS as usize / 4 + "\r\n".len();

/// A chunk: the line with its size, its data, and what follows them.
type Chunk = Chain<Chain<Cursor<[u8; SIZE_LINE]>, Bytes>, &'static [u8]>;

fn chunk(data: Bytes) -> Chunk {
    let mut line = [0; SIZE_LINE];
    line[SIZE_LINE - 2..].copy_from_slice(b"\r\n");
    let (mut start, mut left) = (SIZE_LINE - 2, data.len());
    while left > 0 {
        start -= 1;
        line[start] = b"0123456789ABCDEF"[left % 16];
        left /= 16;
    }
    let mut line = Cursor::new(line);
    line.set_position(start as u64);
    line.chain(data).chain(b"\r\n")
}

/// The end of a chunked body.
fn last_chunk() -> Chunk {
    let mut line = Cursor::new([0; SIZE_LINE]);
    line.set_position(SIZE_LINE as u64);
    line.chain(Bytes::new()).chain(b"0\r\n\r\n")
}

/// An event stream whose head was sent.
#[derive(Debug)]
pub(super) struct StreamResponse {
    /// `None` once it has ended.
    body: Option<Body>,
    /// The error that ended the body. The chunks before it are sent.
    error: Option<BoxError>,
    unsent: VecDeque<Chunk>,
    is_flushed: bool,
    /// Whether the connection stays open after it.
    pub(super) keep_alive: KeepAlive,
}

impl StreamResponse {
    pub(super) fn new(WaitingStream { body, keep_alive }: WaitingStream) -> Self {
        Self { body: Some(body), error: None, unsent: VecDeque::new(), is_flushed: false, keep_alive }
    }

    /// Sends the stream to `io`. Ready at its end, and when the client closes the connection.
    pub(super) fn poll_send<T: Read + Write + Unpin>(
        &mut self,
        io: &mut Http1Guard<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        if let Poll::Ready(closed) = io.poll_closed(cx) {
            return Poll::Ready(Err(closed.into()));
        }
        loop {
            if self.unsent.is_empty() {
                self.poll_chunks(cx);
            }
            if !self.unsent.is_empty() {
                self.is_flushed = false;
                ready!(self.poll_write(io, cx))?;
                continue;
            }
            if !self.is_flushed {
                ready!(Pin::new(&mut *io).poll_flush(cx))?;
                self.is_flushed = true;
            }
            if let Some(error) = self.error.take() {
                return Poll::Ready(Err(error));
            }
            // A queue holds memory although it is empty.
            self.unsent = VecDeque::new();
            return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    /// Queues the chunks that are ready.
    fn poll_chunks(&mut self, cx: &mut Context<'_>) {
        let mut bytes = 0;
        while let Some(body) = &mut self.body
            && self.unsent.len() < CHUNKS
            && bytes < BUFFER
            && let Poll::Ready(frame) = Pin::new(body).poll_frame(cx)
        {
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if !data.is_empty() => {
                    bytes += data.len();
                    self.unsent.push_back(chunk(data));
                }
                // No trailers were announced.
                Some(Ok(_)) => {}
                Some(Err(error)) => (self.body, self.error) = (None, Some(error)),
                None => {
                    self.body = None;
                    self.unsent.push_back(last_chunk());
                }
            }
        }
    }

    fn poll_write<T: Write + Unpin>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3 * CHUNKS];
            let filled = self
                .unsent
                .iter()
                .fold(0, |filled, chunk| filled + chunk.chunks_vectored(&mut slices[filled..]));
            let mut written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..filled]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            while let Some(chunk) = self.unsent.front_mut() {
                let sent = written.min(chunk.remaining());
                chunk.advance(sent);
                written -= sent;
                if chunk.has_remaining() {
                    break;
                }
                self.unsent.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}
