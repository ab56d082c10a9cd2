//! Bytes that are held back, line by line.

use super::rejection::{RejectReason, Rejection};

/// Bytes for which room is made at once: most heads have no more.
const INITIAL_CAPACITY: usize = 1024;

/// The lines of a head, or of trailers, that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    held: Vec<u8>,
    /// Where the line begins that was not given out yet; at most `held.len()`.
    next: usize,
}

/// What is wrong with bytes before anybody asks what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFault {
    /// There are too many of them.
    Full,
    /// A line ends with something else than CR LF.
    Ending,
}

impl LineBuffer {
    /// Makes room for `bytes` bytes, or for the usual number.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.held.reserve(bytes.min(INITIAL_CAPACITY));
    }

    /// Takes some of `bytes`, at most to the end of a line, and says how many. Of bytes with a fault, it
    /// takes those before the fault.
    pub(super) fn fill(&mut self, bytes: &[u8], bound: usize) -> Result<usize, LineFault> {
        let mut before = self.held.last().copied();
        let mut used = 0;
        let mut fault = None;
        for &byte in bytes {
            if self.held.len() + used >= bound {
                fault = Some(LineFault::Full);
                break;
            }
            // RFC 9112, section 2.2, lets a server take a bare LF for an ending. Not every server does.
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

    /// The line behind the last one, without its ending, if it is whole.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let line = self.held[self.next..].strip_suffix(b"\r\n")?;
        self.next = self.held.len();
        Some(line)
    }

    /// Everything that is held, line endings included.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Lets go of everything, the memory included: most connections are idle most of the time.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}

/// What is said about [`LineFault::Ending`].
pub(super) fn bad_ending() -> Rejection {
    Rejection::new(RejectReason::LineEnd, "A line does not end with CR LF; end every line with both.")
}
