//! What the client sends on an HTTP/1 connection, looked at before the HTTP parser gets it.
//!
//! hyper forgives much that a front must not: two lengths of one body, bare line feeds, a `Host` that
//! is missing or there twice, a `Connection` that names headers which somebody put there on purpose.
//! Whoever stands behind may read such a request differently, and then the end of one request is the
//! beginning of another (request smuggling). So a head is held back until it is whole and was checked,
//! and only then goes on, byte for byte. Bodies go on at once. Their framing is followed as hyper
//! follows it (RFC 9112, sections 6 and 7), so that it is known where the next head begins.
//!
//! Nothing is put right: what could be read in two ways is refused. The first line that is wrong
//! decides what is said about it, however the bytes were cut on their way.
//!
//! | module | what is in it |
//! |---|---|
//! | `gap` | what may stand between two requests |
//! | `lines` | bytes that are held back, line by line |
//! | `head` | request lines and header lines |
//! | `target` | the forms of a request target |
//! | `authority` | hosts and ports |
//! | `fields` | what the headers of one request say together |
//! | `http2` | paths that HTTP/2 would cut short |
//! | `chunks` | the chunked coding |
//! | `trailers` | what may stand behind the last chunk |
//! | `parsed` | the same rules for requests that are parsed already, HTTP/2 above all |
//! | `rejection` | why a request was refused, and with which status |

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
mod token;
mod trailers;

use bytes::BytesMut;

use chunks::ChunkedBody;
use fields::Framing;
use gap::Gap;
use head::RequestHead;
use http2::PathFilter;
use lines::LineBuffer;
use trailers::Trailers;

pub use parsed::{body_not_allowed, check, may_upgrade};
pub use rejection::{RejectReason, Rejection};
pub use trailers::is_trailer;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How large a request may be before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a head, from its request line to the empty line at its end. Trailers may have as many,
    /// but never more than hyper takes, which is 16,383.
    pub head_bytes: usize,
    /// Header lines of a head, and of trailers. hyper takes 100 unless it is told otherwise.
    pub header_count: usize,
    /// Bytes of a request target. More than 65,534 are refused in any case: no [`http::Uri`] is longer.
    pub target_bytes: usize,
}

/// Whether a connection goes on behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Another request may come.
    Yes,
    /// The request is the last one: nothing goes through behind it, and it does not lead out of HTTP/1.
    No,
}

/// Watches what comes from the client on one connection.
#[derive(Debug)]
pub struct Guard {
    bounds: HeadLimits,
    state: GuardState,
    /// What belongs to a head or to trailers that are not whole yet. Empty in every other state.
    lines: LineBuffer,
    heads: u64,
    /// The request that has begun is the last one.
    is_last: bool,
}

#[derive(Debug)]
enum GuardState {
    /// So many bytes of the connection came, and all of them are bytes of the HTTP/2 preface.
    Opening(usize),
    /// A head may come.
    Between(Gap),
    /// A head has begun.
    Head(RequestHead),
    /// So many bytes of a body are still to come; never 0.
    Sized(u64),
    /// A chunked body has begun.
    Chunked(ChunkedBody),
    /// The last chunk of a body was there.
    Trailers(Trailers),
    /// This is HTTP/2, of which only paths are looked at.
    Http2(Box<PathFilter>),
    /// Nothing is looked at any more.
    Opaque,
    /// Nothing goes through any more: the last request of the connection is whole.
    Ended,
    /// Nothing is taken any more.
    Refused { rejection: Rejection, in_body: bool },
}

impl Guard {
    /// The guard of a connection on which nothing has come yet.
    pub fn new(bounds: HeadLimits) -> Self {
        Self { bounds, state: GuardState::Opening(0), lines: LineBuffer::default(), heads: 0, is_last: false }
    }

    /// Takes what came from the client, all of it, and appends to `out` what the HTTP parser may have.
    ///
    /// Empty lines before a request line are left out, and the path of an HTTP/2 request that has a fragment is made
    /// one that no parser takes; every other byte goes on unchanged.
    ///
    /// # Errors
    ///
    /// [`Rejection`] at the first byte that makes the request one to refuse. Nothing of the head or the
    /// trailers that this byte is in has reached `out` then. What came before has: the requests before
    /// it are whole, and still to be answered. From there on, every call gives the same rejection.
    pub fn feed(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Rejection> {
        self.feed_with(bytes, out, &mut |_| KeepAlive::Yes)
    }

    /// The same, and gives each head of HTTP/1 to `edit`, once it is whole: it may be changed there, and may be the
    /// last of its connection.
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

    /// Whether everything goes on unexamined: the last head wanted to leave HTTP/1 by an `Upgrade`.
    ///
    /// Such a head is checked like any other, but it need not get what it wants. If it is answered with
    /// anything but 101, the connection must end with that answer, or requests come that nobody checks.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, GuardState::Opaque)
    }

    /// Whether the last request is whole, and nothing goes through any more.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, GuardState::Ended)
    }

    /// How many requests of HTTP/2 with a fragment in their path have come since this was asked last.
    pub fn take_fragments(&mut self) -> u64 {
        if let GuardState::Http2(paths) = &mut self.state { paths.take_fragments() } else { 0 }
    }

    /// Whether the connection began with the HTTP/2 preface.
    pub fn is_http2(&self) -> bool {
        matches!(self.state, GuardState::Http2(_))
    }

    /// Whether a head, or the HTTP/2 preface, has begun and is not whole.
    pub fn is_waiting_for_head(&self) -> bool {
        matches!(self.state, GuardState::Opening(1..) | GuardState::Head(_))
    }

    /// Whether nothing of a next head has come. Empty lines are nothing.
    #[cfg(test)]
    fn is_between_messages(&self) -> bool {
        matches!(self.state, GuardState::Opening(0) | GuardState::Between(_))
    }

    /// Whether a body has begun and not ended; or, after a rejection, whether that was so.
    pub fn is_in_body(&self) -> bool {
        matches!(
            self.state,
            GuardState::Sized(_)
                | GuardState::Chunked(_)
                | GuardState::Trailers(_)
                | GuardState::Refused { in_body: true, .. }
        )
    }

    /// How many heads it has let through.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Takes some of `bytes`, which are not empty, and says how many.
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
                // Not HTTP/2 after all, so these are bytes like any other.
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

    /// What comes behind a whole request.
    fn between(&self) -> GuardState {
        if self.is_last { GuardState::Ended } else { GuardState::Between(Gap::default()) }
    }

    /// What comes behind a head.
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
