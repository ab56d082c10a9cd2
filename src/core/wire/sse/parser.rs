//! An incremental parser of `text/event-stream` by the WHATWG HTML standard (section 9.2.6, "Interpreting an event
//! stream"), with a limit on the size of an event.

use memchr::memchr2;

/// An item found by the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseItem<'a> {
    /// A complete event. Its bytes may not be UTF-8, because backends do not guarantee it.
    Event {
        /// The event type; empty if absent.
        name: &'a [u8],
        /// The data lines, joined by line feeds.
        data: &'a [u8],
    },
    /// An event with more data than the limit. Its type is known; most of its data was dropped.
    Oversized {
        /// The event type; empty if absent.
        name: &'a [u8],
        /// The size of its data in bytes.
        bytes: usize,
        /// The first part of its data, up to the limit.
        head: &'a [u8],
    },
}

/// The maximum length of a line besides its value: a byte order mark, the longest meaningful field name, a colon and a
/// space. These bytes do not count towards the limit, so an event that arrives in pieces may be as long as one that
/// arrives whole.
const FIELD: usize = 3 + "event: ".len();

/// Splits a byte stream into events, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The maximum event size, in bytes of data. Invariants: `line.len() <= limit + FIELD`, `data.len() <= limit`.
    limit: usize,
    /// The first part of an incomplete line.
    line: Vec<u8>,
    /// Bytes of that line that exceed the limit.
    line_dropped: usize,
    name: Vec<u8>,
    data: Vec<u8>,
    /// Bytes of data that exceed the limit.
    data_dropped: usize,
    has_data: bool,
    /// The `id` that precedes the next event.
    id: Vec<u8>,
    /// The id of the last complete event.
    last_id: Vec<u8>,
    /// The last byte was a CR, so an LF now belongs to the same line ending.
    after_cr: bool,
    /// No line has ended yet, so a byte order mark may follow.
    at_start: bool,
}

impl SseParser {
    /// Creates a parser that drops events with more than `limit` bytes of data.
    pub fn new(limit: usize) -> Self {
        Self { limit, at_start: true, ..Self::default() }
    }

    /// Parses the next piece of the stream and passes every completed event to `on_item`.
    ///
    /// An event without its blank line is never passed on: a truncated stream must not look like one with a terminal
    /// event.
    pub fn feed(&mut self, piece: &[u8], mut on_item: impl FnMut(SseItem<'_>)) {
        let mut rest = piece;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        let mut held = None;
        while let Some(at) = memchr2(b'\n', b'\r', rest) {
            let (line, end) = rest.split_at(at);
            rest = &end[1..];
            if end[0] == b'\r' {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            if self.line.is_empty() && self.line_dropped == 0 {
                self.line(line, 0, &mut held, &mut on_item);
            } else {
                self.line_dropped += append(&mut self.line, line, self.limit + FIELD);
                let mut whole = std::mem::take(&mut self.line);
                let dropped = std::mem::take(&mut self.line_dropped);
                let mut held = None;
                self.line(&whole, dropped, &mut held, &mut on_item);
                self.keep(held);
                whole.clear();
                self.line = whole;
            }
        }
        self.keep(held);
        self.line_dropped += append(&mut self.line, rest, self.limit + FIELD);
    }

    /// Prepares for the resumed stream: of the event that was cut off nothing is kept.
    pub fn restart(&mut self) {
        let last_id = std::mem::take(&mut self.last_id);
        *self = Self { id: last_id.clone(), last_id, ..Self::new(self.limit) };
    }

    /// The id of the last complete event, after which the stream can be resumed; empty if no event had one.
    pub fn last_event_id(&self) -> &[u8] {
        &self.last_id
    }

    /// Parses a line. `held` is the data of the event so far, if that is one line of the same piece: most events need no
    /// copy of it.
    fn line<'p>(
        &mut self,
        mut line: &'p [u8],
        dropped: usize,
        held: &mut Option<&'p [u8]>,
        on_item: &mut impl FnMut(SseItem<'_>),
    ) {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(held.take(), on_item);
            return;
        }
        let colon = match line {
            [b'd', b'a', b't', b'a', b':', ..] => 4,
            [b'e', b'v', b'e', b'n', b't', b':', ..] => 5,
            _ => memchr::memchr(b':', line).unwrap_or(line.len()),
        };
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" if !self.has_data && dropped == 0 && value.len() <= self.limit => {
                self.has_data = true;
                *held = Some(value);
            }
            b"data" => {
                self.keep(held.take());
                if std::mem::replace(&mut self.has_data, true) {
                    self.data_dropped += append(&mut self.data, b"\n", self.limit);
                }
                self.data_dropped += append(&mut self.data, value, self.limit) + dropped;
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(&value[..value.len().min(self.limit)]);
            }
            b"id" => {
                self.id.clear();
                self.id.extend_from_slice(&value[..value.len().min(self.limit)]);
            }
            // `retry`, comments and unknown fields carry no sync data.
            _ => {}
        }
    }

    /// Copies the data of an event that goes on.
    fn keep(&mut self, held: Option<&[u8]>) {
        if let Some(data) = held {
            self.data_dropped += append(&mut self.data, data, self.limit);
        }
    }

    fn dispatch(&mut self, held: Option<&[u8]>, on_item: &mut impl FnMut(SseItem<'_>)) {
        if self.has_data {
            let Self { name, data, data_dropped, .. } = &*self;
            let data = held.unwrap_or(data);
            on_item(match data_dropped {
                0 => SseItem::Event { name, data },
                dropped => SseItem::Oversized { name, bytes: data.len() + dropped, head: data },
            });
            self.last_id.clone_from(&self.id);
        }
        self.name.clear();
        self.data.clear();
        self.data_dropped = 0;
        self.has_data = false;
    }
}

/// Appends `bytes` to `buffer` up to `limit` bytes in all. Returns the number of bytes that were left out.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], limit: usize) -> usize {
    let room = (limit - buffer.len()).min(bytes.len());
    buffer.extend_from_slice(&bytes[..room]);
    bytes.len() - room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn events(pieces: &[&[u8]], limit: usize) -> Vec<(String, String)> {
        let mut parser = SseParser::new(limit);
        let mut seen = Vec::new();
        for piece in pieces {
            parser.feed(piece, |item| {
                seen.push(match item {
                    SseItem::Event { name, data } => (text(name), text(data)),
                    SseItem::Oversized { name, bytes, .. } => (text(name), format!("<{bytes} bytes>")),
                });
            });
        }
        seen
    }

    fn one(stream: &[u8]) -> Vec<(String, String)> {
        let whole = events(&[stream], 1 << 20);
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(events(&[left, right], 1 << 20), whole, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(events(&bytes, 1 << 20), whole);
        whole
    }

    fn pair(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn the_last_event_id_is_that_of_the_last_whole_event() {
        let mut parser = SseParser::new(100);
        for (piece, last) in [
            ("id: 1\nevent: step\ndata: {}\n\nid: 2\n", "1"),
            ("data: {}\n", "1"),
            ("\n", "2"),
            (": keepalive\n\ndata: without\n\n", "2"),
        ] {
            parser.feed(piece.as_bytes(), |_| ());
            assert_eq!(text(parser.last_event_id()), last, "{piece:?}");
        }
        parser.feed(b"id: 3\nevent: complete\ndata: cut", |_| ());
        parser.restart();
        assert_eq!(text(parser.last_event_id()), "2");
        let mut resumed = Vec::new();
        parser.feed(b"data: 4\n\n", |item| resumed.push(format!("{item:?}")));
        assert_eq!(resumed, [format!("{:?}", SseItem::Event { name: b"", data: b"4" })]);
        assert_eq!(text(parser.last_event_id()), "2", "an event without an id changes none");
    }

    #[test]
    fn a_stream_is_split_into_its_events() {
        for (name, stream, events) in [
            ("lines that end in LF", "event: a\ndata: 1\n\ndata: 2\n\n", &[("a", "1"), ("", "2")][..]),
            ("CR LF", "event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", &[("a", "1"), ("", "2")]),
            ("CR", "event: a\rdata: 1\r\rdata: 2\r\r", &[("a", "1"), ("", "2")]),
            ("mixed line ends", "data: 1\r\ndata: 2\n\r", &[("", "1\n2")]),
            ("several lines of data", "data: a\ndata\ndata:b\ndata:  c\n\n", &[("", "a\n\nb\n c")]),
            ("a byte order mark not at the start", "\u{feff}data: 1\n\n\u{feff}data: 2\n\n", &[("", "1")]),
            (
                "comments and unknown fields",
                ": keepalive\n\nid: 4\nretry: 10\nwhat: ever\n\nevent: a\n\n",
                &[],
            ),
            ("a cut event", "data: 1\n\nevent: complete\ndata: {\"ok\": true}\n", &[("", "1")]),
        ] {
            let expected = events.iter().map(|(name, data)| pair(name, data)).collect::<Vec<_>>();
            assert_eq!(one(stream.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn an_event_over_the_limit_is_named_and_measured_and_the_next_one_is_whole() {
        let mut stream = b"event: complete\ndata: ".to_vec();
        stream.extend(std::iter::repeat_n(b'x', 5000));
        stream.extend_from_slice(b"\n\nevent: step\ndata: 1\n\n");
        for size in [1, 7, 64, 10_000] {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let seen = events(&pieces, 100);
            assert_eq!(seen.len(), 2);
            assert_eq!(seen[0].0, "complete");
            assert!(seen[0].1.starts_with('<'), "{}", seen[0].1);
            assert_eq!(seen[1], pair("step", "1"));
        }
    }

    #[test]
    fn data_over_the_limit_in_many_lines_is_refused_too() {
        let stream = b"data: 0123456789\n".repeat(20);
        let seen = events(&[&stream, b"\n"], 100);
        assert_eq!(seen, [pair("", "<219 bytes>")]);
    }

    #[test]
    fn an_event_over_the_limit_is_measured_for_any_chunking() {
        let line = [b"data: ".as_slice(), &[b'x'; 5000], b"\n"].concat();
        for size in [1, 7, 5000, 10_000] {
            let pieces: Vec<&[u8]> = line.chunks(size).chain([b"\n".as_slice()]).collect();
            assert_eq!(events(&pieces, 100), [pair("", "<5000 bytes>")], "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory_than_the_limit_allows() {
        let mut parser = SseParser::new(100);
        for _ in 0..1000 {
            parser.feed(&[b'x'; 64], |_| {});
        }
        assert_eq!(parser.line.len(), 100 + FIELD);
    }
}
