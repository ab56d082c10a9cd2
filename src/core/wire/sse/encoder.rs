//! Encodes the client's event stream. The types enforce the wire contract.
//!
//! A [`SseEncoder`] is created together with the `started` frame of its stream and consumed by writing the end. No
//! code can therefore write a step after the end, a second end, or a failed end without its `error` (R6, R8). Frames
//! have no `id:` and no `retry:` (R1), use LF line endings (R4), and hold ASCII JSON in the format of Python's
//! `json.dumps` (R3, R13).

use std::borrow::Cow;
use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::frame::{Frame, FrameName};
use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::event::{Failure, Step, StepStatus, StreamEnd};
use crate::core::domain::figures::ResultSummary;
use crate::core::text::eight::{Eight, is_ascii_without};
use crate::core::text::redact::Redactor;

/// The maximum JSON length of a step, in characters (R13).
pub const STEP_LIMIT: usize = 600;
/// The maximum JSON length of `complete`, in characters, for clients that did not request payloads (R13).
pub const COMPLETE_LIMIT: usize = 600;
/// The maximum length of `step`, `rowid` and `error` in a step, in characters of JSON. Together with the field names
/// they leave more than 100 characters for the message.
const STEP_NAME_LIMIT: usize = 48;
const ROWID_LIMIT: usize = 128;
const STEP_ERROR_LIMIT: usize = 220;
/// The maximum length of `message` and `error` in a terminal frame, in characters of JSON.
const SENTENCE_LIMIT: usize = 600;
/// The length of a string for which there is no room, in characters of JSON: `"..."`.
const MIN_TRUNCATED: usize = 5;
/// The maximum length of `message` in a `complete` whose `detail` is truncated, in characters of JSON.
const FAILED_LIMIT: usize = 200;
/// The maximum length of `detail`, in characters of JSON.
const DETAIL_LIMIT: usize = 4000;
/// The maximum size of a passed-on payload or event of a backend's own type, in bytes of JSON.
const EXTRA_LIMIT: usize = 16 * 1024;

/// The size of an allocation for frames that follow each other, in bytes.
const BLOCK: usize = 2048;

/// A step for a single client, outside the run's log, such as a notice of missed events.
///
/// It must not be the last frame of the client's stream.
pub fn standalone_step(step: &Step<'_>) -> Bytes {
    // The encoder is deliberately dropped: keeping it would allow a second end.
    SseEncoder::start(step).1.bytes
}

/// An event stream that has begun and not ended.
// Deliberately not Clone: a copy could write a second end.
#[derive(Debug)]
pub struct SseEncoder {
    /// The current frame, behind the ones that share its allocation.
    out: BytesMut,
    tail: BytesMut,
    redactor: Redactor,
}

impl SseEncoder {
    /// Begins a stream with its first step.
    pub fn start(first: &Step<'_>) -> (Self, Frame) {
        Self::start_redacted(first, Redactor::default())
    }

    /// Begins a stream whose frames are redacted with `redactor`.
    pub fn start_redacted(first: &Step<'_>, redactor: Redactor) -> (Self, Frame) {
        let mut stream = Self { out: BytesMut::with_capacity(BLOCK), tail: BytesMut::new(), redactor };
        let frame = stream.step(first);
        (stream, frame)
    }

    /// Writes a step. Content beyond R13 is truncated: first `step`, `rowid` and `error` to their own limits, then
    /// `message` to the remaining room.
    pub fn step(&mut self, step: &Step<'_>) -> Frame {
        let Self { out, tail, redactor } = self;
        begin(out, "step");
        let start = out.len();
        out.put_slice(b"{\"step\": ");
        string(out, &redactor.text(&step.step), STEP_NAME_LIMIT);
        for part in [", \"status\": \"", step.status.as_str(), "\", \"message\": "] {
            out.put_slice(part.as_bytes());
        }
        tail.clear();
        tail.put_slice(b", \"rowid\": ");
        match &step.rowid {
            Some(rowid) => string(tail, &redactor.text(rowid), ROWID_LIMIT),
            None => tail.put_slice(b"null"),
        }
        if let Some(error) = &step.error {
            field(tail, "error", &redactor.text(error), STEP_ERROR_LIMIT);
        }
        let used = out.len() - start + tail.len() + 1;
        string(out, &redactor.text(&step.message), STEP_LIMIT.saturating_sub(used));
        out.put_slice(tail);
        out.put_u8(b'}');
        let payload = step.payload.filter(|payload| payload.get().len() <= EXTRA_LIMIT);
        let payload = payload.map(|payload| self.payload(payload));
        Frame { payload, ..self.end(FrameName::Step(step.status)) }
    }

    fn payload(&mut self, payload: &RawValue) -> Bytes {
        self.tail.clear();
        compact_ascii(&mut self.tail, &self.redactor.json(payload.get()));
        Bytes::copy_from_slice(&self.tail)
    }

    /// Writes an event of the backend's own type. `None` if the name is one of the bridge's own or more than one word,
    /// or if the JSON is too long.
    pub fn extra(&mut self, name: &str, data: &RawValue) -> Option<Frame> {
        let one_word = !name.is_empty()
            && name.len() <= STEP_NAME_LIMIT
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if !one_word || matches!(name, "step" | "error" | "complete") || data.get().len() > EXTRA_LIMIT {
            return None;
        }
        // A long event in the allocation of steps would take one for itself and the step after it.
        let out = &mut self.tail;
        begin(out, name);
        compact_ascii(out, &self.redactor.json(data.get()));
        out.put_slice(b"\n\n");
        Some(Frame { name: FrameName::Extra, bytes: Bytes::copy_from_slice(out), payload: None })
    }

    /// Ends the stream: `complete`, and `error` before it if the run failed.
    pub fn finish(mut self, mut verdict: StreamEnd) -> Vec<Frame> {
        verdict.redact(&self.redactor);
        let verdict = &verdict;
        let mut frames = Vec::with_capacity(2);
        if let Some(failure) = &verdict.failure {
            frames.push(self.error(failure));
        }
        frames.push(self.complete(verdict));
        frames
    }

    fn error(&mut self, failure: &Failure) -> Frame {
        let out = &mut self.out;
        begin(out, "error");
        out.put_u8(b'{');
        field(out, "step", &failure.step, STEP_NAME_LIMIT);
        field(out, "status", "failed", STEP_NAME_LIMIT);
        field(out, "error", &failure.error, SENTENCE_LIMIT);
        field(out, "detail", &failure.detail, DETAIL_LIMIT);
        out.put_u8(b'}');
        self.end(FrameName::Error)
    }

    /// Writes the `complete` twice: within [`COMPLETE_LIMIT`] characters for every client, and in full.
    fn complete(&mut self, verdict: &StreamEnd) -> Frame {
        let whole = self.complete_with(verdict, EndLimits::for_extent(ResultExtent::Full));
        let payload = Some(whole.bytes.slice_ref(whole.data()));
        for extent in [ResultExtent::Counted, ResultExtent::ByObject, ResultExtent::InTotal] {
            let short = self.complete_with(verdict, EndLimits::for_extent(extent));
            if short.data().len() <= COMPLETE_LIMIT {
                return Frame { payload: payload.filter(|_| whole != short), ..short };
            }
        }
        // For a failed run, `detail` matters more than `message` and gets the remaining room.
        let message = if verdict.failure.is_some() { FAILED_LIMIT } else { SENTENCE_LIMIT };
        let mut room = EndLimits { message, ..EndLimits::for_extent(ResultExtent::InTotal) };
        *room.last(verdict) = 0;
        let least = self.complete_with(verdict, room);
        let left = COMPLETE_LIMIT.saturating_sub(least.data().len() - MIN_TRUNCATED);
        *room.last(verdict) = left;
        Frame { payload, ..self.complete_with(verdict, room) }
    }

    fn complete_with(&mut self, verdict: &StreamEnd, room: EndLimits) -> Frame {
        let out = &mut self.out;
        begin(out, "complete");
        out.put_slice(if verdict.failure.is_none() { b"{\"ok\": true" } else { b"{\"ok\": false" });
        field(out, "message", &verdict.message, room.message);
        key(out, "result");
        result(out, &verdict.counts, &verdict.summary, room.result);
        if let Some(failure) = &verdict.failure {
            out.put_slice(b", \"errors\": [{");
            field(out, "detail", &failure.detail, room.detail);
            out.put_slice(b"}]");
        }
        out.put_u8(b'}');
        self.end(FrameName::Complete)
    }

    fn end(&mut self, name: FrameName) -> Frame {
        self.out.put_slice(b"\n\n");
        let bytes = match name {
            FrameName::Step(status) if status != StepStatus::Failed => self.out.split().freeze(),
            // The others outlive the frames around them, and must not keep their memory.
            _ => Bytes::copy_from_slice(&self.out),
        };
        Frame { name, bytes, payload: None }
    }
}

/// How much of the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResultExtent {
    /// The backend's own numbers and the counts by object type.
    Full,
    /// The same without zeros.
    Counted,
    /// The counts by object type, without zeros.
    ByObject,
    /// The total counts, without zeros.
    InTotal,
}

impl ResultExtent {
    fn has_zeros(self) -> bool {
        self == Self::Full
    }
}

/// Limits on how much of the end is written.
#[derive(Clone, Copy, Debug)]
struct EndLimits {
    result: ResultExtent,
    message: usize,
    detail: usize,
}

impl EndLimits {
    const fn for_extent(result: ResultExtent) -> Self {
        Self { result, message: SENTENCE_LIMIT, detail: DETAIL_LIMIT }
    }

    /// The limit of the last field to be truncated.
    fn last(&mut self, verdict: &StreamEnd) -> &mut usize {
        if verdict.failure.is_some() { &mut self.detail } else { &mut self.message }
    }
}

fn begin(out: &mut BytesMut, name: &str) {
    out.clear();
    for part in ["event: ", name, "\ndata: "] {
        out.put_slice(part.as_bytes());
    }
}

/// Writes the counts and the summary of the backend's result.
fn result(out: &mut BytesMut, counts: &Counts, summary: &ResultSummary, extent: ResultExtent) {
    let total = counts.total();
    out.put_u8(b'{');
    number(out, "count", total.completed);
    if extent == ResultExtent::InTotal {
        numbers(out, [("failed", total.failed), ("unconfirmed", total.unconfirmed)], extent);
        out.put_u8(b'}');
        return;
    }
    if extent != ResultExtent::ByObject {
        // `count` is the bridge's own count. A bridge behind this one has renamed that of its backend.
        let has_count = summary.numbers.iter().any(|(name, _)| name == "count");
        let reported = summary.numbers.iter().filter(|(name, _)| match name.as_str() {
            "count" => extent.has_zeros(),
            "backend_count" => !has_count,
            _ => true,
        });
        let renamed = reported.map(|(name, value)| match name.as_str() {
            "count" => ("backend_count", *value),
            name => (name, *value),
        });
        numbers(out, renamed, extent);
        if summary.degraded {
            key(out, "degraded");
            out.put_slice(b"true");
        }
        if !summary.warnings.is_empty() {
            key(out, "warnings");
            out.put_u8(b'[');
            for (index, warning) in summary.warnings.iter().enumerate() {
                if index > 0 {
                    out.put_slice(b", ");
                }
                string(out, warning, STEP_ERROR_LIMIT);
            }
            out.put_u8(b']');
        }
    }
    key(out, "objects");
    out.put_u8(b'{');
    for (object, count) in &counts.0 {
        key(out, object.as_str());
        out.put_u8(b'{');
        let Count { seen, completed, failed, unconfirmed } = *count;
        let ends =
            [("seen", seen), ("completed", completed), ("failed", failed), ("unconfirmed", unconfirmed)];
        numbers(out, ends, extent);
        out.put_u8(b'}');
    }
    out.put_slice(b"}}");
}

/// Writes the name of a field, after a comma unless it is the first field of its object.
fn key(out: &mut BytesMut, name: &str) {
    if !out.ends_with(b"{") {
        out.put_slice(b", ");
    }
    string(out, name, STEP_NAME_LIMIT);
    out.put_slice(b": ");
}

/// Writes a field whose text has at most `limit` characters of JSON.
fn field(out: &mut BytesMut, name: &str, text: &str, limit: usize) {
    key(out, name);
    string(out, text, limit);
}

fn number(out: &mut BytesMut, name: &str, value: u64) {
    key(out, name);
    out.put_slice(value.to_string().as_bytes());
}

/// Writes the numbers that the result has to this extent.
fn numbers<'a>(out: &mut BytesMut, numbers: impl IntoIterator<Item = (&'a str, u64)>, extent: ResultExtent) {
    for (name, value) in numbers.into_iter().filter(|(_, value)| extent.has_zeros() || *value > 0) {
        number(out, name, value);
    }
}

/// Writes `text` as a JSON string of at most `limit` characters, including the quotes. A truncated text ends in `...`.
fn string(out: &mut BytesMut, text: &str, limit: usize) {
    let room = limit.saturating_sub(2);
    out.put_u8(b'"');
    // Nearly every text.
    if text.len() <= room && is_ascii_without(text.as_bytes(), Eight::special_in_json) {
        out.put_slice(text.as_bytes());
    } else {
        put_escaped(out, &truncate_escaped(text, room));
    }
    out.put_u8(b'"');
}

/// Truncates `text` to `room` characters of JSON, without quotes.
pub fn truncate_escaped(text: &str, room: usize) -> Cow<'_, str> {
    // Escaping yields at most six characters per byte of UTF-8.
    if text.len() * 6 <= room || longest_prefix(text, room).len() == text.len() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}...", longest_prefix(text, room.saturating_sub(3))))
}

/// The longest prefix of `text` whose escaped form has at most `room` characters.
fn longest_prefix(text: &str, room: usize) -> &str {
    let mut used = 0;
    let mut exceeds = |c: char| {
        used += escaped_len(c);
        used > room
    };
    text.char_indices().find(|(_, c)| exceeds(*c)).map_or(text, |(at, _)| &text[..at])
}

fn escaped_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='\u{7f}' => 1,
        c => 6 * c.len_utf16(),
    }
}

fn put_escaped(out: &mut BytesMut, text: &str) {
    let mut rest = text;
    // Characters without escapes are copied in runs. Nearly all text consists of them.
    while let Some(at) = rest.bytes().position(|byte| !is_verbatim(byte)) {
        let (run, special) = rest.split_at(at);
        out.put_slice(run.as_bytes());
        let Some(c) = special.chars().next() else { return };
        match c {
            '"' => out.put_slice(b"\\\""),
            '\\' => out.put_slice(b"\\\\"),
            '\n' => out.put_slice(b"\\n"),
            '\r' => out.put_slice(b"\\r"),
            '\t' => out.put_slice(b"\\t"),
            '\u{8}' => out.put_slice(b"\\b"),
            '\u{c}' => out.put_slice(b"\\f"),
            c => put_unicode(out, c),
        }
        rest = &special[c.len_utf8()..];
    }
    out.put_slice(rest.as_bytes());
}

const fn is_verbatim(byte: u8) -> bool {
    matches!(byte, b' '..=0x7f) && byte != b'"' && byte != b'\\'
}

fn put_unicode(out: &mut BytesMut, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a buffer cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// Writes valid JSON on one line and in ASCII. White space between tokens is removed. Strings are kept, with every
/// character above U+007F escaped.
fn compact_ascii(out: &mut BytesMut, json: &str) {
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if c.is_ascii_whitespace() {
            continue;
        } else if c == '"' {
            in_string = true;
        }
        if c.is_ascii() {
            out.put_u8(c as u8);
        } else {
            put_unicode(out, c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(&frame.bytes).unwrap()
    }

    fn object_step(rowid: &str, message: &str) -> Step<'static> {
        Step {
            rowid: Some(Cow::Owned(rowid.to_owned())),
            ..Step::stage("device", StepStatus::Progress, message.to_owned())
        }
    }

    #[test]
    fn a_step_is_written_as_python_would() {
        let (_, frame) = SseEncoder::start(&object_step("café \u{1f600}\u{2028}", "a \"quoted\" \\ line\n"));
        assert_eq!(
            text(&frame),
            "event: step\ndata: {\"step\": \"device\", \"status\": \"progress\", \
             \"message\": \"a \\\"quoted\\\" \\\\ line\\n\", \
             \"rowid\": \"caf\\u00e9 \\ud83d\\ude00\\u2028\"}\n\n"
        );
    }

    #[test]
    fn no_step_is_longer_than_the_log_line_of_netbox() {
        for filler in ["x", "é", "\u{1f600}", "\"", "\n", "\u{1}"] {
            let long = filler.repeat(2000);
            let mut step = object_step(&long, &long);
            step.error = Some(Cow::Owned(long.clone()));
            step.step = Cow::Owned(long);
            let (_, frame) = SseEncoder::start(&step);
            let json = text(&frame).strip_prefix("event: step\ndata: ").unwrap().trim_end();
            assert!(json.len() <= STEP_LIMIT, "{} for {filler:?}", json.len());
            assert!(json.len() > STEP_LIMIT - 12, "{} for {filler:?}", json.len());
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert!(value["message"].as_str().unwrap().ends_with("..."));
        }
    }

    #[test]
    fn no_end_is_longer_than_the_log_line_of_netbox() {
        for filler in ["x", "é", "\u{1f600}", "a\u{1f600}", "\"", "\u{1}"] {
            for length in (0..2000).step_by(7) {
                let long = filler.repeat(length);
                let failure =
                    Failure { step: long.clone(), error: long.clone(), detail: format!("{long} {long}") };
                for failure in [None, Some(failure)] {
                    let (stream, _) = SseEncoder::start(&object_step("a", "b"));
                    let is_ok = failure.is_none();
                    let verdict = StreamEnd { message: long.clone(), failure, ..StreamEnd::default() };
                    let frames = stream.finish(verdict);
                    let end = text(frames.last().unwrap());
                    let json = end.strip_prefix("event: complete\ndata: ").unwrap().trim_end();
                    assert!(json.len() <= COMPLETE_LIMIT, "{} for {length} of {filler:?}", json.len());
                    let value: serde_json::Value = serde_json::from_str(json).unwrap();
                    assert_eq!(value["ok"], is_ok);
                }
            }
        }
    }

    #[test]
    fn a_message_that_just_fits_is_not_cut() {
        let fixed = r#"{"step": "device", "status": "progress", "message": "", "rowid": "a"}"#.len();
        let exact = "m".repeat(STEP_LIMIT - fixed);
        let (mut stream, frame) = SseEncoder::start(&object_step("a", &exact));
        assert!(text(&frame).contains(&exact));
        let frame = stream.step(&object_step("a", &format!("{exact}m")));
        assert!(text(&frame).contains("m..."));
    }

    #[test]
    fn foreign_json_is_encoded_on_one_line_in_ascii() {
        let raw: &RawValue = serde_json::from_str("{\r\n \"a\\\"\" : [1,\t\"é\u{85} x\"]\n}").unwrap();
        let (mut stream, _) = SseEncoder::start(&object_step("a", "b"));
        let frame = stream.extra("discovery", raw).unwrap();
        assert_eq!(text(&frame), "event: discovery\ndata: {\"a\\\"\":[1,\"\\u00e9\\u0085 x\"]}\n\n");
        for name in ["complete", "error", "step", "", "two words", "a\nb", "é"] {
            assert!(stream.extra(name, raw).is_none(), "{name}");
        }
    }

    #[test]
    fn an_event_of_the_backend_is_distinguished_from_our_own() {
        let raw = |json: String| RawValue::from_string(json).unwrap();
        let (mut stream, step) = SseEncoder::start(&object_step("a", "b"));
        let longest = raw(format!("\"{}\"", "x".repeat(EXTRA_LIMIT - 2)));
        let extra = stream.extra("discovery", &longest).unwrap();
        assert_eq!((extra.name, step.name), (FrameName::Extra, FrameName::Step(StepStatus::Progress)));
        assert!(stream.extra("discovery", &raw(format!("[{longest}]"))).is_none());
        let failure = Some(Failure::new("", String::new()));
        let verdict = StreamEnd { failure, ..StreamEnd::default() };
        let names: Vec<_> = stream.finish(verdict).iter().map(|frame| frame.name).collect();
        assert_eq!(names, [FrameName::Error, FrameName::Complete]);
    }

    #[test]
    fn failures_and_events_of_the_backend_take_no_memory_of_the_steps_around_them() {
        let (mut stream, before) = SseEncoder::start(&object_step("a", "b"));
        let longest = RawValue::from_string(format!("\"{}\"", "x".repeat(EXTRA_LIMIT - 2))).unwrap();
        let extra = stream.extra("discovery", &longest).unwrap();
        let failed = stream.step(&Step { status: StepStatus::Failed, ..object_step("a", "b") });
        let after = stream.step(&object_step("a", "b"));
        assert!(extra.bytes.is_unique() && failed.bytes.is_unique());
        assert_eq!(before.bytes.as_ptr_range().end, after.bytes.as_ptr());
    }

    #[test]
    fn numbers_are_left_out_by_and_by() {
        let count = Count { seen: 3, completed: 2, failed: 1, unconfirmed: 0 };
        let counts = Counts(vec![(crate::core::domain::object::Object::Device, count)]);
        let numbers = [("count", 2), ("created", 0), ("updated", 2)].map(|(name, n)| (name.to_owned(), n));
        let warnings = vec!["a".to_owned(), "b".to_owned()];
        let summary = ResultSummary { numbers: numbers.into(), warnings, ..ResultSummary::default() };
        for (extent, expected) in [
            (
                ResultExtent::Full,
                r#"{"count": 2, "backend_count": 2, "created": 0, "updated": 2, "warnings": ["a", "b"], "objects": {"device": {"seen": 3, "completed": 2, "failed": 1, "unconfirmed": 0}}}"#,
            ),
            (
                ResultExtent::Counted,
                r#"{"count": 2, "updated": 2, "warnings": ["a", "b"], "objects": {"device": {"seen": 3, "completed": 2, "failed": 1}}}"#,
            ),
            (
                ResultExtent::ByObject,
                r#"{"count": 2, "objects": {"device": {"seen": 3, "completed": 2, "failed": 1}}}"#,
            ),
            (ResultExtent::InTotal, r#"{"count": 2, "failed": 1}"#),
        ] {
            let mut out = BytesMut::new();
            result(&mut out, &counts, &summary, extent);
            assert_eq!(out, expected);
        }
        // A bridge behind this one.
        for (names, expected) in [
            (&["count", "backend_count"][..], r#"{"count": 2, "backend_count": 1, "objects": "#),
            (&["backend_count"], r#"{"count": 2, "backend_count": 1, "objects": "#),
        ] {
            let numbers =
                names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), 1 + index as u64));
            let summary = ResultSummary { numbers: numbers.collect(), ..ResultSummary::default() };
            let mut out = BytesMut::new();
            result(&mut out, &counts, &summary, ResultExtent::Full);
            assert!(out.starts_with(expected.as_bytes()), "{out:?}");
        }
    }

    #[test]
    fn a_text_is_cut_by_what_it_takes_in_json() {
        assert_eq!(truncate_escaped("12345678", 8), "12345678");
        assert_eq!(truncate_escaped("12345678", 7), "1234...");
        assert_eq!(truncate_escaped(&"\u{1}".repeat(10), 20), "\u{1}\u{1}...");
    }
}
