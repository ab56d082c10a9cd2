//! The bytes between two requests, or before the first one.

use super::fields::is_token;
use super::lines::bad_ending;
use super::rejection::{RejectReason, Rejection};

/// The maximum number of empty lines. Some clients send one after a body (RFC 9112, section 2.2).
const EMPTY_LINES: usize = 4;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// The empty lines since the last request.
#[derive(Debug, Default)]
pub(super) struct Gap {
    empty_lines: usize,
    /// Whether an LF must follow the last CR.
    cr: bool,
}

impl Gap {
    /// Whether `byte` is the first byte of a head. Otherwise it is consumed.
    pub(super) fn ends_with(&mut self, byte: u8) -> Result<bool, Rejection> {
        match (self.cr, byte) {
            (true, b'\n') => {
                self.cr = false;
                self.empty_lines += 1;
            }
            (true, _) | (false, b'\n') => return Err(bad_ending()),
            (false, b'\r') if self.empty_lines < EMPTY_LINES => self.cr = true,
            (false, b'\r') => {
                return Err(refused("Too many empty lines come before the request line; send none."));
            }
            (false, byte) if is_token(byte) => return Ok(true),
            (false, TLS_HANDSHAKE) => {
                return Err(refused("These are bytes of TLS, and this port speaks plain HTTP; use http://."));
            }
            (false, _) => return Err(refused("This is no HTTP request; begin with a method.")),
        }
        Ok(false)
    }
}

fn refused(detail: &str) -> Rejection {
    Rejection::new(RejectReason::RequestLine, detail)
}
