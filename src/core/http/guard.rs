//! Checks the bytes of an HTTP/1 client before they reach the HTTP parser.
//!
//! hyper accepts requests that a front proxy must reject: two lengths of one body, bare line feeds, a missing or
//! duplicate `Host`, a `Connection` that names end-to-end headers. A server behind the bridge may read such a request
//! differently and take the end of one request for the start of another (request smuggling). The guard therefore holds
//! a head back until it is complete and checked, and then passes it on byte for byte. Bodies are passed on at once.
//! The guard follows their framing as hyper does (RFC 9112, sections 6 and 7) to find the next head.
//!
//! The guard corrects nothing: it rejects what can be read in two ways. The first invalid line determines the
//! rejection, however the bytes were split in transit.
//!
//! | module | content |
//! |---|---|
//! | `gap` | the bytes between two requests |
//! | `lines` | bytes that are held back, line by line |
//! | `head` | request lines and header lines |
//! | `target` | the forms of a request target |
//! | `authority` | hosts and ports |
//! | `fields` | the headers of a request in combination |
//! | `http2` | HTTP/2 paths with a fragment |
//! | `chunks` | the chunked coding |
//! | `trailers` | the trailers after the last chunk |
//! | `parsed` | the same rules for parsed requests, mainly of HTTP/2 |
//! | `rejection` | the reasons of rejections and their statuses |

mod authority;
mod chunks;
mod fields;
mod gap;
mod head;
mod http2;
mod lines;
mod parsed;
mod rejection;
mod target;
#[cfg(test)]
mod tests;
mod trailers;

use bytes::BytesMut;

use chunks::ChunkedBody;
use fields::Framing;
use gap::Gap;
use head::RequestHead;
use http2::PathFilter;
use lines::LineBuffer;
use trailers::Trailers;

pub use parsed::{announces_body, body_not_allowed, check, may_upgrade};
pub use rejection::{RejectReason, Rejection};
pub use trailers::is_trailer;

/// The connection preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Limits on a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The size of a head in bytes, from the request line to the empty line. Also the size of trailers, which hyper
    /// caps at 16,383.
    pub head_bytes: usize,
    /// The number of header lines in a head, and in trailers. The default of hyper is 100.
    pub header_count: usize,
    /// The length of a request target in bytes. Targets above 65,534 are always rejected, because no [`http::Uri`] is
    /// longer.
    pub target_bytes: usize,
}

/// Whether the connection stays open after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Another request may follow.
    Yes,
    /// The request is the last one. Nothing after it is passed on, and it cannot upgrade the connection.
    No,
}

/// Checks the bytes that the client sends on one connection.
#[derive(Debug)]
pub struct Guard {
    bounds: HeadLimits,
    state: GuardState,
    /// The incomplete head or trailers. Empty in every other state.
    lines: LineBuffer,
    heads: u64,
    /// The current request is the last one.
    is_last: bool,
}

#[derive(Debug)]
enum GuardState {
    /// This many bytes have arrived. All of them match the HTTP/2 preface.
    Opening(usize),
    /// Between two requests.
    Between(Gap),
    /// In a head.
    Head(RequestHead),
    /// In a body with this many bytes left, never 0.
    Sized(u64),
    /// In a chunked body.
    Chunked(ChunkedBody),
    /// After the last chunk of a body.
    Trailers(Trailers),
    /// HTTP/2, of which only paths are checked.
    Http2(Box<PathFilter>),
    /// Nothing is checked any more.
    Opaque,
    /// Nothing is passed on any more: the last request of the connection is complete.
    Ended,
    /// A request was rejected. Nothing is accepted any more.
    Refused { rejection: Rejection, in_body: bool },
}

impl Guard {
    /// Creates the guard of a new connection.
    pub fn new(bounds: HeadLimits) -> Self {
        Self { bounds, state: GuardState::Opening(0), lines: LineBuffer::default(), heads: 0, is_last: false }
    }

    /// Checks all of `bytes` and appends to `out` what the HTTP parser may read.
    ///
    /// Empty lines before a request line are dropped. The path of an HTTP/2 request with a fragment is changed to one
    /// that every parser rejects. Every other byte is passed on unchanged.
    ///
    /// # Errors
    ///
    /// [`Rejection`] at the first byte that invalidates the request. No part of that head or those trailers is in
    /// `out`. The complete requests before it are, and must still be answered. Every later call returns the same
    /// rejection.
    pub fn feed(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Rejection> {
        self.feed_with(bytes, out, &mut |_| KeepAlive::Yes)
    }

    /// Like [`Guard::feed`], and passes each complete HTTP/1 head to `edit`. It may change the head and declare it the
    /// last one of the connection.
    ///
    /// # Errors
    ///
    /// As [`Guard::feed`].
    pub fn feed_with(
        &mut self,
        bytes: &[u8],
        out: &mut BytesMut,
        edit: &mut dyn FnMut(&mut [u8]) -> KeepAlive,
    ) -> Result<(), Rejection> {
        if let GuardState::Refused { rejection, .. } = &self.state {
            return Err(rejection.clone());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.step(rest, out, edit) {
                Ok(used) => rest = &rest[used..],
                Err(rejection) => {
                    self.lines.release();
                    let in_body = self.is_in_body();
                    self.state = GuardState::Refused { rejection: rejection.clone(), in_body };
                    return Err(rejection);
                }
            }
        }
        Ok(())
    }

    /// Whether bytes are passed on unchecked, because the last head requested an `Upgrade` out of HTTP/1.
    ///
    /// Such a head is checked like any other, but the upgrade may be refused. If the answer is not 101, the connection
    /// must close with that answer, because further requests would not be checked.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, GuardState::Opaque)
    }

    /// Whether the last request is complete and nothing is passed on any more.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, GuardState::Ended)
    }

    /// The number of HTTP/2 requests with a fragment in their path since the last call.
    pub fn take_fragments(&mut self) -> u64 {
        if let GuardState::Http2(paths) = &mut self.state { paths.take_fragments() } else { 0 }
    }

    /// Whether the connection began with the HTTP/2 preface.
    pub fn is_http2(&self) -> bool {
        matches!(self.state, GuardState::Http2(_))
    }

    /// Whether a head, or the HTTP/2 preface, has begun and is incomplete.
    pub fn is_waiting_for_head(&self) -> bool {
        matches!(self.state, GuardState::Opening(1..) | GuardState::Head(_))
    }

    /// Whether no byte of a next head has arrived, apart from empty lines.
    #[cfg(test)]
    fn is_between_messages(&self) -> bool {
        matches!(self.state, GuardState::Opening(0) | GuardState::Between(_))
    }

    /// Whether a body is incomplete. After a rejection, whether it was.
    pub fn is_in_body(&self) -> bool {
        matches!(
            self.state,
            GuardState::Sized(_)
                | GuardState::Chunked(_)
                | GuardState::Trailers(_)
                | GuardState::Refused { in_body: true, .. }
        )
    }

    /// The number of heads passed on.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Processes a part of `bytes`, which must not be empty, and returns its length.
    fn step(
        &mut self,
        bytes: &[u8],
        out: &mut BytesMut,
        edit: &mut dyn FnMut(&mut [u8]) -> KeepAlive,
    ) -> Result<usize, Rejection> {
        match &mut self.state {
            GuardState::Opening(seen) => {
                if bytes[0] == PREFACE[*seen] {
                    *seen += 1;
                    if *seen == PREFACE.len() {
                        out.extend_from_slice(PREFACE);
                        self.state = GuardState::Http2(Box::default());
                    }
                    return Ok(1);
                }
                // It is not HTTP/2, so these bytes are checked like any other.
                let seen = *seen;
                self.state = self.between();
                self.feed_with(&PREFACE[..seen], out, edit)?;
                Ok(0)
            }
            GuardState::Between(gap) => {
                if !gap.ends_with(bytes[0])? {
                    return Ok(1);
                }
                self.lines.expect(bytes.len());
                self.state = GuardState::Head(RequestHead::default());
                Ok(0)
            }
            GuardState::Head(head) => {
                let filled = self.lines.fill(bytes, self.bounds.head_bytes);
                let filled =
                    filled.map_err(|fault| head.rejection_for(fault, self.lines.held(), &self.bounds))?;
                if let Some(line) = self.lines.next()
                    && let Some(framing) = head.line(line, &self.bounds)?
                {
                    let start = out.len();
                    out.extend_from_slice(self.lines.held());
                    self.lines.release();
                    self.heads += 1;
                    self.is_last = edit(&mut out[start..]) == KeepAlive::No;
                    self.state = self.after(framing);
                }
                Ok(filled)
            }
            GuardState::Sized(left) => {
                let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                out.extend_from_slice(&bytes[..used]);
                *left -= used as u64;
                if *left == 0 {
                    self.state = self.between();
                }
                Ok(used)
            }
            GuardState::Chunked(chunks) => {
                let (used, taken) = chunks.feed(bytes);
                out.extend_from_slice(&bytes[..used]);
                taken?;
                if chunks.is_last() {
                    self.state = GuardState::Trailers(Trailers::default());
                }
                Ok(used)
            }
            GuardState::Trailers(trailers) => {
                let filled = self.lines.fill(bytes, trailers::max_bytes(&self.bounds));
                let filled = filled.map_err(trailers::rejection_for)?;
                if let Some(line) = self.lines.next()
                    && trailers.line(line, &self.bounds)?
                {
                    out.extend_from_slice(self.lines.held());
                    self.lines.release();
                    self.state = self.between();
                }
                Ok(filled)
            }
            GuardState::Http2(paths) => {
                let start = out.len();
                out.extend_from_slice(bytes);
                paths.filter(&mut out[start..]);
                Ok(bytes.len())
            }
            GuardState::Opaque => {
                out.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            GuardState::Ended => Ok(bytes.len()),
            GuardState::Refused { rejection, .. } => Err(rejection.clone()),
        }
    }

    /// The state after a complete request.
    fn between(&self) -> GuardState {
        if self.is_last { GuardState::Ended } else { GuardState::Between(Gap::default()) }
    }

    /// The state after a head.
    fn after(&self, framing: Framing) -> GuardState {
        match framing {
            Framing::Sized(0) => self.between(),
            Framing::Sized(length) => GuardState::Sized(length),
            Framing::Chunked => GuardState::Chunked(ChunkedBody::default()),
            Framing::Opaque if self.is_last => GuardState::Ended,
            Framing::Opaque => GuardState::Opaque,
        }
    }
}
