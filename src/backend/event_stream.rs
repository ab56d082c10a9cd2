//! The body of an event stream that was taken over from hyper.
//!
//! hyper keeps buffers of 8 KiB in each direction and a channel while it reads a body, and an event stream waits for most
//! of its time. So hyper reads the head alone. The body is read from the connection, which is closed after it, with a
//! buffer that exists while bytes are there.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunked::ChunkedDecoder;
use super::connect::Link;
use crate::core::http::headers::is_event_stream;

/// How much is read at once, in bytes.
pub(super) const PIECE_BYTES: usize = 8 * 1024;

/// What ends a body.
#[derive(Debug)]
pub(super) enum Framing {
    /// Its length: how many bytes are left.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// The end of the connection.
    Close,
}

impl Framing {
    /// The framing of `response`, if its body is an event stream that can be taken over.
    pub(super) fn of_event_stream<B: Body>(response: &Response<B>) -> Option<Self> {
        let (headers, body) = (response.headers(), response.body());
        if response.version() != Version::HTTP_11 || body.is_end_stream() || !is_event_stream(headers) {
            return None;
        }
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => Some(body.size_hint().exact().map_or(Self::Close, Self::Length)),
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                Some(Self::Chunked(ChunkedDecoder::default()))
            }
            _ => None,
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_complete(),
            Self::Close => false,
        }
    }

    /// Consumes bytes up to the end of the next frame, and returns it. `None` if all bytes were consumed, or the body is
    /// complete.
    fn decode(&mut self, received: &mut Bytes) -> io::Result<Option<Frame<Bytes>>> {
        let data = match self {
            Self::Chunked(decoder) => return decoder.decode(received),
            Self::Length(left) => {
                let part = usize::try_from(*left).map_or(received.len(), |left| left.min(received.len()));
                *left -= part as u64;
                received.split_to(part)
            }
            Self::Close => received.split_to(received.len()),
        };
        Ok(if data.is_empty() { None } else { Some(Frame::data(data)) })
    }

    /// The result of a body at the end of the connection. The errors are those of hyper.
    fn end(&self) -> io::Result<()> {
        let text = match self {
            Self::Close => return Ok(()),
            Self::Chunked(decoder) if !decoder.is_in_data() => "unexpected EOF during chunk size line",
            Self::Length(_) | Self::Chunked(_) => "end of file before message length reached",
        };
        Err(io::Error::new(ErrorKind::UnexpectedEof, text))
    }
}

/// The body of an event stream.
#[derive(Debug)]
pub(super) struct EventStreamBody {
    /// `None` after the end.
    link: Option<Link>,
    /// What was read and not returned yet.
    received: Bytes,
    framing: Framing,
}

impl EventStreamBody {
    /// The body on `link`, of which `received` was read.
    pub(super) fn new(link: Link, received: Bytes, framing: Framing) -> Self {
        Self { link: Some(link), received, framing }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            if let Some(frame) = self.framing.decode(&mut self.received)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            let Some(link) = self.link.as_mut().filter(|_| !self.framing.is_complete()) else {
                return Poll::Ready(Ok(None));
            };
            // Also frees the last piece.
            self.received = Bytes::new();
            let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
            let mut read = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(link).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(self.framing.end().map(|()| None));
            }
            self.received = Bytes::copy_from_slice(read.filled());
        }
    }

    /// Closes the connection, over TLS with a `close_notify`.
    fn close(&mut self) {
        self.received = Bytes::new();
        if let Some(mut link) = self.link.take() {
            let _ = Pin::new(&mut link).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl Body for EventStreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = ready!(self.poll_next(cx)).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.close();
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.framing.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::Close => SizeHint::default(),
        }
    }
}

impl Drop for EventStreamBody {
    fn drop(&mut self) {
        self.close();
    }
}
