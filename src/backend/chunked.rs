//! The chunked coding of a response (RFC 9112, section 7.1), decoded as by hyper: with its limits and its errors.

use std::io::{self, ErrorKind};
use std::mem;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

/// The maximum bytes of extensions in one body. They count after the first `;` of a chunk.
const EXTENSION_BYTES: usize = 16 * 1024 - 1;
/// The maximum bytes of trailers, including line endings and the empty line.
const TRAILER_BYTES: usize = 16 * 1024 - 1;
/// The maximum number of trailers.
const TRAILERS: usize = 100;

/// The position in a chunked body.
#[derive(Debug, Default)]
pub(super) struct ChunkedDecoder {
    state: ChunkState,
    /// The size of the current chunk. In [`ChunkState::Data`], the bytes left of it, never 0.
    size: u64,
    /// The bytes of extensions in this body.
    extensions: usize,
    trailers: Trailers,
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
    /// At the start of a trailer, or of the empty line at the end.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl ChunkedDecoder {
    /// Whether the body is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.state == ChunkState::End
    }

    /// Whether the body is within the data of a chunk.
    pub(super) fn is_in_data(&self) -> bool {
        self.state == ChunkState::Data
    }

    /// Consumes bytes up to the end of the next frame, and returns it. `None` if all bytes were consumed, or the body is
    /// complete.
    pub(super) fn decode(&mut self, received: &mut Bytes) -> io::Result<Option<Frame<Bytes>>> {
        while !self.is_complete() && !received.is_empty() {
            if self.is_in_data() {
                let rest = received.len();
                let part = usize::try_from(self.size).map_or(rest, |size| size.min(rest));
                self.size -= part as u64;
                if self.size == 0 {
                    self.state = ChunkState::DataCr;
                }
                return Ok(Some(Frame::data(received.split_to(part))));
            }
            self.state = self.byte(received.get_u8())?;
        }
        if self.is_complete() && self.trailers.count > 0 {
            return Ok(Some(Frame::trailers(mem::take(&mut self.trailers).parse()?)));
        }
        Ok(None)
    }

    /// The state after `byte`, which is not chunk data.
    fn byte(&mut self, byte: u8) -> io::Result<ChunkState> {
        match (self.state, byte) {
            (ChunkState::FirstDigit | ChunkState::Digit, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)
            }
            (ChunkState::FirstDigit, _) => Err(malformed("Invalid chunk size line: missing size digit")),
            (ChunkState::Digit | ChunkState::Space, b' ' | b'\t') => Ok(ChunkState::Space),
            (ChunkState::Digit | ChunkState::Space, b';') => Ok(ChunkState::Extension),
            (ChunkState::Digit | ChunkState::Space | ChunkState::Extension, b'\r') => Ok(ChunkState::LineLf),
            (ChunkState::Digit, _) => Err(malformed("Invalid chunk size line: Invalid Size")),
            (ChunkState::Space, _) => Err(malformed("Invalid chunk size linear white space")),
            (ChunkState::Extension, b'\n') => Err(refused("invalid chunk extension contains newline")),
            (ChunkState::Extension, _) if self.extensions == EXTENSION_BYTES => {
                Err(refused("chunk extensions over limit"))
            }
            (ChunkState::Extension, _) => {
                self.extensions += 1;
                Ok(ChunkState::Extension)
            }
            (ChunkState::LineLf, b'\n') if self.size == 0 => Ok(ChunkState::TrailerStart),
            (ChunkState::LineLf, b'\n') => Ok(ChunkState::Data),
            (ChunkState::LineLf, _) => Err(malformed("Invalid chunk size LF")),
            (ChunkState::DataCr, b'\r') => Ok(ChunkState::DataLf),
            (ChunkState::DataLf, b'\n') => Ok(ChunkState::FirstDigit),
            (ChunkState::Data | ChunkState::DataCr, _) => Err(malformed("Invalid chunk body CR")),
            (ChunkState::DataLf, _) => Err(malformed("Invalid chunk body LF")),
            (
                ChunkState::TrailerStart | ChunkState::Trailer | ChunkState::TrailerLf | ChunkState::EndLf,
                _,
            ) => self.trailers.byte(self.state, byte),
            (ChunkState::End, _) => Ok(ChunkState::End),
        }
    }

    fn digit(&mut self, digit: u8) -> io::Result<ChunkState> {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        let size = self.size.checked_mul(16).and_then(|size| size.checked_add(value.into()));
        self.size = size.ok_or_else(|| refused("invalid chunk size: overflow"))?;
        Ok(ChunkState::Digit)
    }
}

/// The trailers so far.
#[derive(Debug, Default)]
struct Trailers {
    /// With their line endings. The empty line at the end follows at least one trailer.
    lines: Vec<u8>,
    count: usize,
}

impl Trailers {
    /// The state after `byte`.
    fn byte(&mut self, state: ChunkState, byte: u8) -> io::Result<ChunkState> {
        let next = match (state, byte) {
            (ChunkState::TrailerStart, b'\r') => ChunkState::EndLf,
            (ChunkState::EndLf, b'\n') => ChunkState::End,
            (ChunkState::EndLf, _) => return Err(malformed("Invalid chunk end LF")),
            (ChunkState::TrailerLf, b'\n') if self.count == TRAILERS => {
                return Err(refused("chunk trailers count overflow"));
            }
            (ChunkState::TrailerLf, b'\n') => {
                self.count += 1;
                ChunkState::TrailerStart
            }
            (ChunkState::TrailerLf, _) => return Err(malformed("Invalid trailer end LF")),
            (_, b'\r') => ChunkState::TrailerLf,
            _ => ChunkState::Trailer,
        };
        let is_end = matches!(next, ChunkState::EndLf | ChunkState::End);
        if self.count > 0 || !is_end {
            self.lines.push(byte);
        }
        if self.lines.len() > TRAILER_BYTES {
            return Err(refused("chunk trailers bytes over limit"));
        }
        Ok(next)
    }

    fn parse(self) -> io::Result<HeaderMap> {
        let mut fields = vec![httparse::EMPTY_HEADER; self.count];
        match httparse::parse_headers(&self.lines, &mut fields) {
            Ok(httparse::Status::Complete((_, fields))) => fields.iter().map(trailer).collect(),
            Ok(httparse::Status::Partial) => Err(malformed("Partial header")),
            Err(error) => Err(io::Error::new(ErrorKind::InvalidInput, error)),
        }
    }
}

fn trailer(field: &httparse::Header<'_>) -> io::Result<(HeaderName, HeaderValue)> {
    let invalid = |error: http::Error| io::Error::new(ErrorKind::InvalidInput, error);
    let name = HeaderName::try_from(field.name).map_err(|error| invalid(error.into()))?;
    let value = HeaderValue::from_bytes(field.value).map_err(|error| invalid(error.into()))?;
    Ok((name, value))
}

/// The error for bytes that are not the chunked coding.
fn malformed(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

/// The error for a body that hyper does not accept, although it may be valid.
fn refused(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}
