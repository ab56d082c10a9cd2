//! The chunked coding (RFC 9112, section 7.1), up to its last chunk.

use super::head::is_control;
use super::rejection::{RejectReason, Rejection};

/// The maximum length of a chunk-size line in bytes, without its line ending.
const LINE_BYTES: u32 = 4096;
/// The maximum bytes of extensions in one body. As in hyper, they count after the first `;` of a chunk.
const EXTENSION_BYTES: u32 = 16 * 1024 - 1;

/// The position in a chunked body.
#[derive(Debug, Default)]
pub(super) struct ChunkedBody {
    step: ChunkState,
    /// The size of the current chunk. In [`ChunkState::Data`], the bytes left of it, never 0.
    size: u64,
    /// The length of the current chunk-size line.
    line: u32,
    /// The bytes of extensions in this body.
    extensions: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
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

impl ChunkedBody {
    /// Whether the line of the last chunk has arrived.
    pub(super) fn is_last(&self) -> bool {
        self.step == ChunkState::Last
    }

    /// Consumes bytes up to the end of the last chunk's line. Returns their number, and the error in the next byte if
    /// any.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Result<(), Rejection>) {
        let mut used = 0;
        while used < bytes.len() && !self.is_last() {
            if self.step == ChunkState::Data {
                let rest = bytes.len() - used;
                let part = usize::try_from(self.size).map_or(rest, |size| size.min(rest));
                used += part;
                self.size -= part as u64;
                if self.size == 0 {
                    self.step = ChunkState::DataCr;
                }
                continue;
            }
            match self.byte(bytes[used]) {
                Ok(step) => self.step = step,
                Err(detail) => return (used, Err(Rejection::new(RejectReason::Chunk, detail))),
            }
            used += 1;
        }
        (used, Ok(()))
    }

    /// The state after `byte`, which is not chunk data.
    fn byte(&mut self, byte: u8) -> Result<ChunkState, &'static str> {
        let in_line = matches!(
            self.step,
            ChunkState::FirstDigit | ChunkState::Digit | ChunkState::Space | ChunkState::Extension
        );
        if in_line && byte != b'\r' {
            self.line += 1;
            if self.line > LINE_BYTES {
                return Err("The line with the size of a chunk is too long; send fewer extensions.");
            }
        }
        match (self.step, byte) {
            (ChunkState::FirstDigit | ChunkState::Digit, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)
            }
            (ChunkState::Digit | ChunkState::Space, b' ' | b'\t') => Ok(ChunkState::Space),
            (ChunkState::Digit | ChunkState::Space, b';') => Ok(ChunkState::Extension),
            (ChunkState::Digit | ChunkState::Space | ChunkState::Extension, b'\r') => Ok(ChunkState::LineLf),
            (ChunkState::Extension, byte) if !is_control(byte) => {
                self.extensions += 1;
                if self.extensions > EXTENSION_BYTES {
                    return Err("The chunks of the body have too many extensions; send fewer.");
                }
                Ok(ChunkState::Extension)
            }
            (ChunkState::LineLf, b'\n') => {
                self.line = 0;
                Ok(if self.size == 0 { ChunkState::Last } else { ChunkState::Data })
            }
            (ChunkState::DataCr, b'\r') => Ok(ChunkState::DataLf),
            (ChunkState::DataLf, b'\n') => Ok(ChunkState::FirstDigit),
            (ChunkState::DataCr | ChunkState::DataLf, _) => {
                Err("A chunk is longer than its size, or does not end with CR LF; count its bytes.")
            }
            (ChunkState::LineLf | ChunkState::Extension, _) => {
                Err("The line with the size of a chunk has a control character before its CR LF; send none.")
            }
            _ => Err("The size of a chunk is no number; send hexadecimal digits only."),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<ChunkState, &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.size = self
            .size
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)))
            .ok_or("The size of a chunk is too large for any body; send smaller chunks.")?;
        Ok(ChunkState::Digit)
    }
}
