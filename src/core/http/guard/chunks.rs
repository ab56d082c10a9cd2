//! The chunked coding (RFC 9112, section 7.1), up to its last chunk.

use super::head::is_control;
use super::rejection::{Reason, Rejection};

/// Bytes that the line with the size of a chunk may have, before its line ending.
const LINE_BYTES: u32 = 4096;
/// Bytes of extensions that one body may have, counted as hyper does: behind the first `;` of a chunk.
const EXTENSION_BYTES: u32 = 16 * 1024 - 1;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    step: Step,
    /// The size of this chunk; in [`Step::Data`] what is left of it, and not 0 then.
    size: u64,
    /// Bytes of this chunk's line so far.
    line: u32,
    /// Bytes of extensions in this body so far.
    extensions: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    FirstDigit,
    Digit,
    Space,
    Extension,
    LineLf,
    Data,
    DataCr,
    DataLf,
    Last,
}

impl Chunks {
    /// Whether the line of the last chunk was there.
    pub(super) fn is_last(&self) -> bool {
        self.step == Step::Last
    }

    /// Takes bytes up to the end of the last chunk's line. Says how many, and what is wrong with the next.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Result<(), Rejection>) {
        let mut used = 0;
        while used < bytes.len() && !self.is_last() {
            if self.step == Step::Data {
                let rest = bytes.len() - used;
                let part = usize::try_from(self.size).map_or(rest, |size| size.min(rest));
                used += part;
                self.size -= part as u64;
                if self.size == 0 {
                    self.step = Step::DataCr;
                }
                continue;
            }
            match self.byte(bytes[used]) {
                Ok(step) => self.step = step,
                Err(detail) => return (used, Err(Rejection::new(Reason::Chunk, detail))),
            }
            used += 1;
        }
        (used, Ok(()))
    }

    /// The step behind `byte`, which is not of a chunk's data.
    fn byte(&mut self, byte: u8) -> Result<Step, &'static str> {
        let in_line = matches!(self.step, Step::FirstDigit | Step::Digit | Step::Space | Step::Extension);
        if in_line && byte != b'\r' {
            self.line += 1;
            if self.line > LINE_BYTES {
                return Err("The line with the size of a chunk is too long; send fewer extensions.");
            }
        }
        match (self.step, byte) {
            (Step::FirstDigit | Step::Digit, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (Step::Digit | Step::Space, b' ' | b'\t') => Ok(Step::Space),
            (Step::Digit | Step::Space, b';') => Ok(Step::Extension),
            (Step::Digit | Step::Space | Step::Extension, b'\r') => Ok(Step::LineLf),
            (Step::Extension, byte) if !is_control(byte) => {
                self.extensions += 1;
                if self.extensions > EXTENSION_BYTES {
                    return Err("The chunks of the body have too many extensions; send fewer.");
                }
                Ok(Step::Extension)
            }
            (Step::LineLf, b'\n') => {
                self.line = 0;
                Ok(if self.size == 0 { Step::Last } else { Step::Data })
            }
            (Step::DataCr, b'\r') => Ok(Step::DataLf),
            (Step::DataLf, b'\n') => Ok(Step::FirstDigit),
            (Step::DataCr | Step::DataLf, _) => {
                Err("A chunk is longer than its size, or does not end with CR LF; count its bytes.")
            }
            (Step::LineLf | Step::Extension, _) => {
                Err("The line with the size of a chunk has a control character before its CR LF; send none.")
            }
            _ => Err("The size of a chunk is no number; send hexadecimal digits only."),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<Step, &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.size = self
            .size
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)))
            .ok_or("The size of a chunk is too large for any body; send smaller chunks.")?;
        Ok(Step::Digit)
    }
}
