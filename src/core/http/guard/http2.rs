//! Invalidates paths with a fragment in HTTP/2 requests.
//!
//! h2 cuts a `:path` at its `#` without an error. The backend would receive a different path than a proxy in front has
//! seen. This cannot be detected after h2, so the path is changed before h2 parses it: `#` becomes `>`. That byte is
//! invalid in a path, and h2 resets the stream. In the Huffman code of HPACK (RFC 7541) the two differ only in their
//! last bit, so no length changes and no other header is affected.
//!
//! Other headers are skipped without decoding. A path is recognized by the name `:path`, which encoders take from the
//! static table or write literally. A name from the dynamic table is not recognized. A client gains nothing from that,
//! because it could send the shorter path directly.

/// The size of a frame header in bytes (RFC 9113, section 4.1).
const FRAME_HEAD: usize = 9;
/// The frame types that carry headers, and their flags (RFC 9113, sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The indices of `:path` in the static table (RFC 7541, appendix A).
const PATHS: [u64; 2] = [4, 5];
/// The literal forms of `:path`: plain and Huffman-coded.
const PLAIN_NAME: &[u8] = b":path";
const CODED_NAME: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];

/// Filters the bytes that a client sends over HTTP/2.
#[derive(Debug, Default)]
pub(super) struct PathFilter {
    head: [u8; FRAME_HEAD],
    /// The bytes of the frame header that have arrived. All of them while the payload arrives.
    seen: usize,
    /// The bytes of the payload that are still missing.
    left: u32,
    content: PayloadPart,
    field: HpackField,
    /// The current request has a path with a fragment.
    has_fragment: bool,
    /// The number of requests with such a path.
    fragments: u64,
}

/// The layout of the remaining payload.
#[derive(Debug, Default)]
enum PayloadPart {
    /// No headers.
    #[default]
    Other,
    /// The length of the padding, then `prelude` bytes before the headers.
    PadLength { prelude: u32 },
    /// `prelude` bytes, then headers, then `padding` bytes.
    Headers { prelude: u32, padding: u32 },
}

impl PathFilter {
    /// The number of requests with a fragment in their path since the last call.
    pub(super) fn take_fragments(&mut self) -> u64 {
        std::mem::take(&mut self.fragments)
    }

    /// Consumes the next bytes, and changes the paths in them that have a fragment.
    pub(super) fn filter(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.seen < FRAME_HEAD {
                self.head[self.seen] = bytes[0];
                self.seen += 1;
                bytes = &mut bytes[1..];
                if self.seen == FRAME_HEAD {
                    self.begin();
                }
            } else {
                let size = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let (payload, rest) = bytes.split_at_mut(size);
                self.payload(payload);
                bytes = rest;
            }
            if self.seen == FRAME_HEAD && self.left == 0 {
                self.seen = 0;
            }
        }
    }

    /// Handles a complete frame header.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.left = u32::from_be_bytes([0, high, middle, low]);
        let prelude = if flags & PRIORITY == 0 { 0 } else { 5 };
        self.content = match kind {
            HEADERS if flags & PADDED != 0 => PayloadPart::PadLength { prelude },
            HEADERS => PayloadPart::Headers { prelude, padding: 0 },
            CONTINUATION => PayloadPart::Headers { prelude: 0, padding: 0 },
            _ => PayloadPart::Other,
        };
        if kind == HEADERS {
            self.field = HpackField::default();
            self.has_fragment = false;
        }
    }

    fn payload(&mut self, payload: &mut [u8]) {
        let left = self.left;
        self.left -= u32::try_from(payload.len()).unwrap_or(left);
        if matches!(self.content, PayloadPart::Other) {
            return;
        }
        for (byte, left) in payload.iter_mut().zip((0..left).rev()) {
            match &mut self.content {
                PayloadPart::Other => {}
                PayloadPart::PadLength { prelude } => {
                    self.content = PayloadPart::Headers { prelude: *prelude, padding: u32::from(*byte) };
                }
                PayloadPart::Headers { prelude, .. } if *prelude > 0 => *prelude -= 1,
                PayloadPart::Headers { padding, .. } if left < *padding => {}
                PayloadPart::Headers { .. } => {
                    let before = *byte;
                    self.field.filter(byte);
                    if *byte != before && !std::mem::replace(&mut self.has_fragment, true) {
                        self.fragments += 1;
                    }
                }
            }
        }
    }
}

/// A header field representation (RFC 7541, section 6), as far as it has arrived.
#[derive(Debug, Default)]
enum HpackField {
    #[default]
    Start,
    /// Inside an integer.
    Integer { of: HpackInteger, value: u64, shift: u32 },
    /// Before the length of a string.
    Length(HpackString),
    /// Inside a string with `left` bytes missing.
    Text { text: HpackString, coding: StringCoding, left: u64 },
}

/// The meaning of an integer.
#[derive(Clone, Copy, Debug)]
enum HpackInteger {
    /// A complete field.
    Whole,
    /// The index of a field's name; 0 if the name is literal.
    Name,
    /// The length of a string.
    Length(HpackString, StringCoding),
}

/// The meaning of a string.
#[derive(Clone, Copy, Debug)]
enum HpackString {
    /// A name: its bytes so far, and their number.
    Name([u8; PLAIN_NAME.len()], usize),
    Path,
    Other,
}

#[derive(Clone, Copy, Debug)]
enum StringCoding {
    Plain,
    Huffman(HuffmanDecoder),
}

impl HpackField {
    fn filter(&mut self, byte: &mut u8) {
        *self = match std::mem::take(self) {
            Self::Start => {
                let (of, bits) = match *byte {
                    0x80.. => (HpackInteger::Whole, 7),
                    0x40..0x80 => (HpackInteger::Name, 6),
                    0x20..0x40 => (HpackInteger::Whole, 5),
                    0..0x20 => (HpackInteger::Name, 4),
                };
                Self::integer(of, *byte, bits)
            }
            Self::Integer { of, value, shift } => {
                let part = u64::from(*byte & 0x7f).checked_shl(shift).unwrap_or(u64::MAX);
                let value = value.saturating_add(part);
                if *byte & 0x80 == 0 {
                    Self::after(of, value)
                } else {
                    Self::Integer { of, value, shift: shift.saturating_add(7) }
                }
            }
            Self::Length(text) => {
                let is_coded = *byte & 0x80 != 0;
                let coding = if is_coded {
                    StringCoding::Huffman(HuffmanDecoder::default())
                } else {
                    StringCoding::Plain
                };
                Self::integer(HpackInteger::Length(text, coding), *byte, 7)
            }
            Self::Text { mut text, mut coding, left } => {
                text.filter(&mut coding, byte);
                Self::rest(text, coding, left - 1)
            }
        };
    }

    /// The state after the first byte of an integer with a prefix of `bits` bits (RFC 7541, section 5.1).
    fn integer(of: HpackInteger, byte: u8, bits: u32) -> Self {
        let most = (1 << bits) - 1;
        let value = u64::from(byte & most);
        if value < u64::from(most) { Self::after(of, value) } else { Self::Integer { of, value, shift: 0 } }
    }

    fn after(of: HpackInteger, value: u64) -> Self {
        match of {
            HpackInteger::Whole => Self::Start,
            HpackInteger::Name if value == 0 => Self::Length(HpackString::Name([0; PLAIN_NAME.len()], 0)),
            HpackInteger::Name => {
                Self::Length(if PATHS.contains(&value) { HpackString::Path } else { HpackString::Other })
            }
            HpackInteger::Length(text, coding) => Self::rest(text, coding, value),
        }
    }

    fn rest(text: HpackString, coding: StringCoding, left: u64) -> Self {
        match text {
            _ if left > 0 => Self::Text { text, coding, left },
            HpackString::Name(name, length) => {
                let path = match coding {
                    StringCoding::Plain => PLAIN_NAME,
                    StringCoding::Huffman(_) => CODED_NAME,
                };
                Self::Length(if name.get(..length) == Some(path) {
                    HpackString::Path
                } else {
                    HpackString::Other
                })
            }
            HpackString::Path | HpackString::Other => Self::Start,
        }
    }
}

impl HpackString {
    fn filter(&mut self, coding: &mut StringCoding, byte: &mut u8) {
        match (self, coding) {
            (Self::Name(name, length), _) => {
                if let Some(place) = name.get_mut(*length) {
                    *place = *byte;
                }
                *length += 1;
            }
            (Self::Path, StringCoding::Plain) if *byte == b'#' => *byte = b'>',
            (Self::Path, StringCoding::Huffman(code)) => code.filter(byte),
            (Self::Path | Self::Other, _) => {}
        }
    }
}

/// A decoder of the Huffman code (RFC 7541, appendix B). The code is canonical: codes of one length are consecutive,
/// and those of the next length follow. The number of codes per length therefore determines where a code ends.
#[derive(Clone, Copy, Debug, Default)]
struct HuffmanDecoder {
    /// The bits of the current code.
    code: u32,
    bits: usize,
    /// The first code of the current length.
    first: u32,
}

/// The number of codes per length in bits, from 0 on.
const CODES: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
/// The code of `#` and its length in bits. The code of `>` is the next one.
const FRAGMENT: (u32, usize) = (0xffa, 12);

impl HuffmanDecoder {
    fn filter(&mut self, byte: &mut u8) {
        for bit in (0..u8::BITS).rev() {
            self.first = (self.first + CODES[self.bits]) << 1;
            self.code = self.code << 1 | u32::from(*byte >> bit & 1);
            self.bits += 1;
            if (self.code, self.bits) == FRAGMENT {
                *byte |= 1 << bit;
            }
            // This holds at the maximum length at the latest, because the code is complete.
            if self.code - self.first < CODES[self.bits] {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with `payload`.
    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// The output for `bytes`, which must not depend on how they are split.
    fn passed(bytes: &[u8]) -> Vec<u8> {
        let mut whole = bytes.to_vec();
        PathFilter::default().filter(&mut whole);
        for size in 1..4 {
            let mut cut = bytes.to_vec();
            let mut paths = PathFilter::default();
            cut.chunks_mut(size).for_each(|piece| paths.filter(piece));
            assert_eq!(cut, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn requests_with_a_fragment_are_counted_once_each() {
        let with = frame(HEADERS, 0x5, b"\x04\x06/x#y#z\x01\x01a");
        let mut sent = [&with[..], &frame(HEADERS, 0x5, b"\x04\x02/x"), &with].concat();
        let mut paths = PathFilter::default();
        paths.filter(&mut sent);
        assert_eq!((paths.take_fragments(), paths.take_fragments()), (2, 0));
    }

    /// The field with the path `/x#y` in every encoding, and the same with `/x>y`.
    fn paths() -> Vec<(Vec<u8>, Vec<u8>)> {
        // Plain, and in the Huffman code.
        let values: [[&[u8]; 2]; 2] =
            [[b"\x04/x#y", b"\x04/x>y"], [&[0x84, 0x63, 0xcf, 0xfd, 0x7a], &[0x84, 0x63, 0xcf, 0xfd, 0xfa]]];
        let names: [&[u8]; 7] = [
            b"\x04",
            b"\x05",
            b"\x44",
            b"\x14",
            b"\x00\x05:path",
            b"\x40\x05:path",
            &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f],
        ];
        let written = names
            .into_iter()
            .flat_map(|name| values.map(|[with, without]| ([name, with].concat(), [name, without].concat())));
        written.collect()
    }

    #[test]
    fn a_fragment_becomes_a_byte_that_no_path_has_however_it_is_written() {
        for (sent, expected) in paths() {
            // After other fields: from the tables, a table size update, and one with a long length.
            let before =
                [&[0x82, 0x86, 0x3f, 0xe1, 0x1f, 0xbe, 0x0f, 0x10, 0x7f, 0x49][..], &[b'#'; 200]].concat();
            let field = |field: &[u8]| [&before, field, b"\x00\x01a\x03#b#"].concat();
            for (flags, front, back) in [
                (0x5, &[][..], &[][..]),
                (0x25, &[0, 0, 0, 0, 16], &[]),
                (0xd, &[3], b"###"),
                (0x2d, &[2, 0, 0, 0, 0, 16], b"##"),
            ] {
                let whole = |fields: &[u8]| frame(HEADERS, flags, &[front, &field(fields), back].concat());
                assert_eq!(passed(&whole(&sent)), whole(&expected), "{sent:x?}");
                let alone = |fields: &[u8]| frame(HEADERS, flags, &[front, fields, back].concat());
                assert_eq!(passed(&alone(&sent)), alone(&expected), "{sent:x?}");
            }
            // In two frames, split at every position, followed by another request.
            for cut in 0..=sent.len() {
                let parts = |fields: &[u8]| {
                    let (first, second) = fields.split_at(cut);
                    [
                        frame(HEADERS, 0x1, first),
                        frame(CONTINUATION, 0x4, second),
                        frame(0, 0, b"\x04\x04/x#y"),
                        frame(HEADERS, 0x5, fields),
                    ]
                    .concat()
                };
                assert_eq!(passed(&parts(&sent)), parts(&expected), "{sent:x?}");
            }
        }
    }

    #[test]
    fn nothing_else_is_changed() {
        for fields in [
            &b"\x04\x04/x>y"[..],
            b"\x00\x06:paths\x01#",
            b"\x00\x05:Path\x01#",
            b"\x0f\x05\x02#?",
            b"\x01\x02a#\x84",
        ] {
            let sent = [frame(HEADERS, 0x5, fields), frame(4, 0, &[]), frame(0, 1, b"#")].concat();
            assert_eq!(passed(&sent), sent, "{fields:x?}");
        }
        let padding = frame(HEADERS, 0xd, b"\x06\x82\x04\x04/x#y");
        assert_eq!(passed(&padding), padding, "a path in the padding");
    }

    #[test]
    fn there_is_a_code_for_every_byte_and_for_the_end() {
        assert_eq!(CODES.iter().sum::<u32>(), 257);
        let full: f64 =
            CODES.iter().zip(0..).map(|(count, bits)| f64::from(*count) / f64::from(1u32 << bits)).sum();
        assert!((full - 1.0).abs() < f64::EPSILON, "{full}");
    }

    #[test]
    fn invalid_hpack_causes_no_panic() {
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(60_000).collect();
        assert_eq!(passed(&noise).len(), noise.len());
        for start in [[0x04, 0xff], [0x7f, 0xff], [0x04, 0x8f]] {
            passed(&frame(HEADERS, 0x5, &[&start[..], &[0xff; 300]].concat()));
        }
    }

    #[test]
    fn a_path_ends_where_its_length_says_though_that_takes_two_bytes() {
        let fields = |byte: u8| [&b"\x04\x7f\x49"[..], &[b'/'; 199], &[byte], b"\x00\x01a\x02##"].concat();
        assert_eq!(passed(&frame(HEADERS, 0x5, &fields(b'#'))), frame(HEADERS, 0x5, &fields(b'>')));
    }
}
