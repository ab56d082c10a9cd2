//! Bytes that are held back, line by line.

use super::rejection::{RejectReason, Rejection};

/// The initial capacity in bytes. Most heads need no more.
const INITIAL_CAPACITY: usize = 1024;

/// The lines of an incomplete head or of incomplete trailers.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    held: Vec<u8>,
    /// The start of the next line to be returned; at most `held.len()`.
    next: usize,
}

/// A fault in the line structure, before any parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFault {
    /// The lines exceed their limit.
    Full,
    /// A line does not end with CR LF.
    Ending,
}

impl LineBuffer {
    /// Reserves room for `bytes` bytes, or the initial capacity.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.held.reserve(bytes.min(INITIAL_CAPACITY));
    }

    /// Consumes a part of `bytes`, at most to the end of a line, and returns its length. If there is a fault, the
    /// bytes before it are consumed.
    pub(super) fn fill(&mut self, bytes: &[u8], bound: usize) -> Result<usize, LineFault> {
        let mut before = self.held.last().copied();
        let mut used = 0;
        let mut fault = None;
        for &byte in bytes {
            if self.held.len() + used >= bound {
                fault = Some(LineFault::Full);
                break;
            }
            // RFC 9112, section 2.2, permits a server to accept a bare LF as a line ending. Servers differ in this.
            if (before == Some(b'\r')) != (byte == b'\n') {
                fault = Some(LineFault::Ending);
                break;
            }
            used += 1;
            if byte == b'\n' {
                break;
            }
            before = Some(byte);
        }
        self.held.extend_from_slice(&bytes[..used]);
        fault.map_or(Ok(used), Err)
    }

    /// The next line without its ending, if it is complete.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let line = self.held[self.next..].strip_suffix(b"\r\n")?;
        self.next = self.held.len();
        Some(line)
    }

    /// All held bytes, including line endings.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Drops the held bytes and their memory, because most connections are idle most of the time.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}

/// The rejection for [`LineFault::Ending`].
pub(super) fn bad_ending() -> Rejection {
    Rejection::new(RejectReason::LineEnd, "A line does not end with CR LF; end every line with both.")
}
