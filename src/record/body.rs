//! The framing of HTTP/1.1 bodies (RFC 9112, section 6).

/// Reads the bytes of a body without their framing.
#[derive(Debug)]
pub(super) enum BodyDecoder {
    /// The number of bytes that are left.
    Length(u64),
    /// The chunked coding.
    Chunked(ChunkedDecoder),
    /// The body ends with the connection.
    UntilClose,
}

/// The position in a chunked body.
#[derive(Debug, Default)]
pub(super) struct ChunkedDecoder {
    state: ChunkState,
    /// The current line: the size of a chunk, the end of one, or a trailer.
    line: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    /// The number of bytes that are left.
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

impl BodyDecoder {
    /// The framing that `headers` declare, or `undeclared`.
    pub(super) fn from_headers(headers: &[(String, String)], undeclared: Self) -> Self {
        let value = |name: &str| {
            let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        if value("transfer-encoding").is_some() {
            return Self::Chunked(ChunkedDecoder::default());
        }
        match value("content-length").and_then(|length| length.trim().parse().ok()) {
            Some(length) => Self::Length(length),
            None => undeclared,
        }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == ChunkState::Done,
            Self::UntilClose => false,
        }
    }

    /// Appends the data in `bytes` to `data`, up to the end of the body. Returns the number of bytes that belong to it.
    pub(super) fn decode(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> usize {
        match self {
            Self::Length(left) => take(left, bytes, data),
            Self::Chunked(chunked) => chunked.decode(bytes, data),
            Self::UntilClose => {
                data.extend_from_slice(bytes);
                bytes.len()
            }
        }
    }
}

impl ChunkedDecoder {
    fn decode(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.state != ChunkState::Done {
            if let ChunkState::Data(left) = &mut self.state {
                used += take(left, &bytes[used..], data);
                if *left == 0 {
                    self.state = ChunkState::DataEnd;
                }
                continue;
            }
            self.line.push(bytes[used]);
            used += 1;
            if self.line.ends_with(b"\n") {
                self.end_line();
            }
        }
        used
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).unwrap_or_default().trim();
        self.state = match self.state {
            ChunkState::Size => {
                let digits = text.split(';').next().unwrap_or_default().trim();
                // hyper ends a connection with an invalid size.
                match u64::from_str_radix(digits, 16).unwrap_or_default() {
                    0 => ChunkState::Trailers,
                    size => ChunkState::Data(size),
                }
            }
            ChunkState::Trailers if !line.trim_ascii().is_empty() => ChunkState::Trailers,
            ChunkState::Trailers => ChunkState::Done,
            _ => ChunkState::Size,
        };
    }
}

/// Moves up to `left` bytes to `data`, and returns their number.
fn take(left: &mut u64, bytes: &[u8], data: &mut Vec<u8>) -> usize {
    let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= taken as u64;
    data.extend_from_slice(&bytes[..taken]);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(headers: &[(&str, &str)], stream: &str, size: usize) -> (String, usize, bool) {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut decoder = BodyDecoder::from_headers(&headers, BodyDecoder::UntilClose);
        let (mut data, mut used) = (Vec::new(), 0);
        for piece in stream.as_bytes().chunks(size) {
            used += decoder.decode(piece, &mut data);
        }
        (String::from_utf8(data).unwrap(), used, decoder.is_done())
    }

    #[test]
    fn a_body_is_read_without_its_framing_however_it_is_cut() {
        let chunked = "4;x=y\r\nab\r\n\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        for size in 1..chunked.len() {
            let next = format!("{chunked}HTTP/1.1 200 OK");
            let expected = ("ab\r\n0123456789".to_owned(), chunked.len(), true);
            assert_eq!(decode(&[("Transfer-Encoding", "chunked")], &next, size), expected, "{size}");
            let expected = ("01234".to_owned(), 5, true);
            assert_eq!(decode(&[("content-length", "5")], "0123456", size), expected, "{size}");
            assert_eq!(decode(&[], "0123456", size), ("0123456".to_owned(), 7, false), "{size}");
        }
    }
}
