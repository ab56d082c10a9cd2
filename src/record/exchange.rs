//! One exchange, and its file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use secrecy::SecretString;
use tokio::time::Instant;

use super::Run;
use crate::backend::{API_KEY, LastRelease};
use crate::core::text::credentials::{is_credential, last_boundary};
use crate::core::text::redact::{HIDDEN, Redactor, secrets_in_query};
use crate::core::upstream::dialect::Dialect;
use crate::private;
use crate::recording::{
    Direction, Headers, Protocol, RecordedEvent, RecordedFrame, RecordedKey, Recording, RecordingHeader,
};

/// The placeholder for an API key.
const KEY: &str = "<api-key>";
/// The code of a close frame for a refused key.
const KEY_REFUSED: u16 = 4001;
/// How much of a body is held back to find credentials in it, in bytes. A longer body is cut where no credential lies across.
const MAX_HELD: usize = 16 << 20;
/// The maximum length of what is held of a body that ends for it to be redacted on the thread that reads the connection, in bytes.
/// Before the end, lines of events and parts of [`MAX_HELD`] bytes are redacted there, too.
const MAX_HIDDEN_AT_ONCE: usize = 64 << 10;
/// The length at which the recording of a WebSocket ends, in bytes: it is read again to find the ends of its commands.
const MAX_SOCKET: usize = 64 << 20;
/// The line of the head of the response in a file, counted from 0: the header and the request are before it.
const RESPONSE_LINE: usize = 2;
/// The maximum length of the part of a file name that is made of a path.
const MAX_SLUG: usize = 80;

/// How a body is redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    /// Line by line.
    Events,
    /// As a whole.
    Whole,
    /// It is left out, or the rest of it.
    LeftOut,
}

/// An exchange that has not ended.
#[derive(Debug)]
pub(super) struct Exchange {
    run: Arc<Run>,
    release: LastRelease,
    number: usize,
    method: String,
    /// Redacted.
    target: String,
    header: RecordingHeader,
    began: Instant,
    /// The time of the end, in milliseconds, once there was one.
    ended: Option<f64>,
    /// The number of bytes in the file.
    written: usize,
    /// The head of the response, once it was written.
    response: Option<RecordedFrame>,
    /// The number of bytes of the body that were written.
    body_length: usize,
    body: BodyKind,
    /// The end of the body, which may be a part of a line.
    held: Vec<u8>,
    /// Redacted by name, and held back while it may be the beginning of a known secret.
    unwritten: Vec<u8>,
    /// `None` once it could not be written.
    file: Option<File>,
}

/// An exchange that has ended, and its end.
#[derive(Debug)]
pub(super) struct Completion {
    exchange: Exchange,
    direction: Direction,
    event: RecordedEvent,
}

impl Completion {
    /// Completes the file.
    pub(super) fn run(self) {
        self.exchange.finish(self.direction, self.event);
    }
}

impl Exchange {
    /// Begins the recording of a request.
    pub(super) fn begin(
        run: &Arc<Run>,
        release: &LastRelease,
        method: String,
        target: &str,
        mut headers: Headers,
    ) -> Self {
        let is = |name: &str, expected: &str| name.eq_ignore_ascii_case(expected);
        let is_websocket = headers.iter().any(|(name, value)| is(name, "upgrade") && is(value, "websocket"));
        let has_key = headers.iter().any(|(name, value)| is(name, API_KEY.as_str()) && !value.is_empty());
        let header = RecordingHeader {
            backend: String::new(),
            protocol: if is_websocket { Protocol::Websocket } else { Protocol::Http },
            key: if has_key { RecordedKey::Sent } else { RecordedKey::None },
            note: None,
        };
        let mut exchange = Self {
            run: Arc::clone(run),
            release: Arc::clone(release),
            number: run.begin(),
            method: method.clone(),
            target: String::new(),
            header,
            began: Instant::now(),
            ended: None,
            written: 0,
            response: None,
            body_length: 0,
            body: BodyKind::Whole,
            held: Vec::new(),
            unwritten: Vec::new(),
            file: None,
        };
        run.learn_sent(target.split_once('?').map(|(_, query)| secrets_in_query(query)).unwrap_or_default());
        exchange.redact_headers(&mut headers);
        exchange.file = exchange.checked(private::open(&exchange.part()));
        exchange.name_backend();
        exchange.write(&exchange.header.to_line());
        let target = exchange.redacted(&run.redactor().target(target));
        exchange.target.clone_from(&target);
        exchange.frame(Direction::Out, RecordedEvent::Request { method, target, headers });
        exchange
    }

    /// Whether the response has no body, whatever its headers say.
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Records the head of the response.
    pub(super) fn respond(&mut self, status: u16, mut headers: Headers) {
        if self.header.key == RecordedKey::Sent && status == 401 {
            self.header.key = RecordedKey::Wrong;
        }
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        let value = |name: &str| {
            let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default()
        };
        let is_coded = !matches!(value("content-encoding").as_str(), "" | "identity");
        self.body = match value("content-type").starts_with("text/event-stream") {
            _ if is_coded => BodyKind::LeftOut,
            true => BodyKind::Events,
            false => BodyKind::Whole,
        };
        if is_coded {
            self.header.note = Some("the body is compressed, and left out".to_owned());
        }
        self.redact_headers(&mut headers);
        self.frame(Direction::In, RecordedEvent::Response { status, headers });
    }

    /// Records bytes of the body.
    pub(super) fn body(&mut self, bytes: &[u8]) {
        if self.body == BodyKind::LeftOut {
            return;
        }
        self.held.extend_from_slice(bytes);
        let end = match self.body {
            BodyKind::Events => memchr::memrchr(b'\n', &self.held).map_or(0, |at| at + 1),
            _ if self.held.len() > MAX_HELD => last_boundary(&self.held),
            _ => 0,
        };
        self.flush(end);
        if self.held.len() > MAX_HELD {
            self.body = BodyKind::LeftOut;
            self.held = Vec::new();
            self.header.note = Some(format!(
                "the rest of the body is left out: in {MAX_HELD} bytes without a break, credentials cannot be found"
            ));
        }
    }

    /// Writes the first `end` bytes that are held back.
    fn flush(&mut self, end: usize) {
        if end == 0 {
            return;
        }
        let bytes: Vec<u8> = self.held.drain(..end).collect();
        let bytes = self.without_credentials(&bytes);
        let bytes = self.run.redactor().chunk(&mut self.unwritten, &bytes);
        if !bytes.is_empty() {
            self.frame(Direction::In, RecordedEvent::Body(bytes.into()));
        }
    }

    /// Records a message of a WebSocket.
    pub(super) fn message(&mut self, direction: Direction, event: RecordedEvent) {
        let event = match event {
            RecordedEvent::Text(text) if direction == Direction::Out && Dialect::is_key_frame(&text) => {
                self.without_credentials(text.as_bytes());
                self.header.key = RecordedKey::Sent;
                RecordedEvent::Text(Dialect::key_frame(KEY))
            }
            RecordedEvent::Text(text) => RecordedEvent::Text(self.redacted(&text)),
            RecordedEvent::Binary(bytes) => RecordedEvent::Binary(match std::str::from_utf8(&bytes) {
                Ok(text) => self.redacted(text).into(),
                Err(_) => bytes,
            }),
            RecordedEvent::Close { code, reason } => {
                if direction == Direction::In
                    && code == Some(KEY_REFUSED)
                    && self.header.key == RecordedKey::Sent
                {
                    self.header.key = RecordedKey::Wrong;
                }
                RecordedEvent::Close { code, reason: self.redacted(&reason) }
            }
            event => event,
        };
        self.frame(direction, event);
    }

    /// Records the end, and has the file completed.
    pub(super) fn end(mut self, direction: Direction, event: RecordedEvent) {
        self.ended = Some(self.elapsed());
        let run = Arc::clone(&self.run);
        // In order: what is found in this body may be in the next one.
        if self.held.len() <= MAX_HIDDEN_AT_ONCE && run.unsearched.load(Ordering::Acquire) == 0 {
            self.flush(self.held.len());
        }
        if !self.held.is_empty() {
            run.unsearched.fetch_add(1, Ordering::AcqRel);
        }
        run.complete(Completion { exchange: self, direction, event });
    }

    fn finish(mut self, direction: Direction, event: RecordedEvent) {
        if !self.held.is_empty() {
            self.flush(self.held.len());
            self.run.unsearched.fetch_sub(1, Ordering::AcqRel);
        }
        let rest = Redactor::rest(&mut self.unwritten);
        if !rest.is_empty() {
            self.frame(Direction::In, RecordedEvent::Body(rest.into()));
        }
        let content_length =
            (event == RecordedEvent::End && self.body_length > 0).then_some(self.body_length);
        self.frame(direction, event);
        self.name_backend();
        if self.file.take().is_some() {
            let completed = self.complete(content_length);
            if self.checked(completed).is_some() {
                self.run.count(self.header.protocol);
            }
        }
    }

    /// Replaces the unfinished file by the recording, with the facts that were not known when it began.
    fn complete(&self, content_length: Option<usize>) -> io::Result<()> {
        let name = file_name(self.number, &self.method, &self.target);
        private::replace_with(&self.run.folder.join(name), |file| {
            let mut out = BufWriter::new(file);
            match self.header.protocol {
                Protocol::Http => self.copy_to(&mut out, content_length)?,
                // The end of a command is found in all frames.
                Protocol::Websocket => {
                    let mut recording = Recording::read(self.part()).map_err(io::Error::other)?;
                    recording.header = self.header.clone();
                    recording.end_with_first_end();
                    recording.mark_returned();
                    recording.correct_content_length();
                    out.write_all(recording.header.to_line().as_bytes())?;
                    for frame in &recording.frames {
                        out.write_all(frame.to_line().as_bytes())?;
                    }
                }
            }
            out.flush()
        })?;
        fs::remove_file(self.part())
    }

    /// Copies the unfinished file line by line: a body may be too long to be held.
    fn copy_to(&self, out: &mut impl Write, content_length: Option<usize>) -> io::Result<()> {
        out.write_all(self.header.to_line().as_bytes())?;
        let mut part = BufReader::new(File::open(self.part())?);
        let mut line = Vec::new();
        part.read_until(b'\n', &mut line)?;
        // The request, and then the head of the response.
        for at in 1.. {
            line.clear();
            if part.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            match &self.response {
                Some(response) if at == RESPONSE_LINE => {
                    let mut response = response.clone();
                    if let Some(length) = content_length {
                        response.event.set_content_length(length);
                    }
                    out.write_all(response.to_line().as_bytes())?;
                }
                _ => out.write_all(&line)?,
            }
        }
        Ok(())
    }

    fn part(&self) -> PathBuf {
        self.run.folder.join(format!(".{:05}.part", self.number))
    }

    fn name_backend(&mut self) {
        let release = self.run.release(&self.release);
        self.header.backend = release.map_or_else(|| "unknown".to_owned(), |release| release.to_string());
    }

    /// The time since the request, in milliseconds.
    fn elapsed(&self) -> f64 {
        let t_ms = self.began.elapsed().as_secs_f64() * 1000.0;
        (t_ms * 10.0).round() / 10.0
    }

    fn frame(&mut self, direction: Direction, event: RecordedEvent) {
        if self.written > MAX_SOCKET && self.header.protocol == Protocol::Websocket {
            self.stop();
            return;
        }
        self.body_length += event.body_length();
        let frame = RecordedFrame { t_ms: self.ended.unwrap_or_else(|| self.elapsed()), direction, event };
        self.write(&frame.to_line());
        if matches!(frame.event, RecordedEvent::Response { .. }) {
            self.response = Some(frame);
        }
    }

    /// Ends a recording that is too long to be read again.
    fn stop(&mut self) {
        if self.header.note.is_none() {
            self.header.note = Some(format!("the recording ends here: it has more than {MAX_SOCKET} bytes"));
            let t_ms = self.ended.unwrap_or_else(|| self.elapsed());
            let open = RecordedFrame { t_ms, direction: Direction::Ctl, event: RecordedEvent::Open };
            self.write(&open.to_line());
        }
    }

    fn write(&mut self, line: &str) {
        let Some(file) = &mut self.file else { return };
        let written = file.write_all(line.as_bytes());
        self.written += line.len();
        if self.checked(written).is_none() {
            self.file = None;
        }
    }

    /// The result of a write. A failure is kept for the end of the run.
    fn checked<T>(&self, written: io::Result<T>) -> Option<T> {
        written.map_err(|error| self.run.failed(error)).ok()
    }

    /// Hides credentials in `headers`, from now on in everything else, too.
    fn redact_headers(&self, headers: &mut Headers) {
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(API_KEY.as_str()) {
                self.run.learn([SecretString::from(std::mem::replace(value, KEY.to_owned()))]);
            } else if is_credential(name) {
                // The values of cookies, and what follows the scheme of an `Authorization`.
                let parts = value.split(';').filter_map(|part| part.rsplit_once(['=', ' ']));
                let parts =
                    parts.map(|(_, part)| part).filter(|part| part.bytes().any(|byte| byte.is_ascii_digit()));
                self.run.learn(parts.chain([value.as_str()]).map(SecretString::from));
                *value = HIDDEN.to_owned();
            } else {
                *value = self.redacted(value);
            }
        }
    }

    fn redacted(&self, text: &str) -> String {
        let bytes = self.without_credentials(text.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        self.run.redactor().text(&text).into_owned()
    }

    fn without_credentials(&self, bytes: &[u8]) -> Vec<u8> {
        self.run.without_credentials(bytes)
    }
}

impl Recording {
    /// Removes what follows the first end, such as the close frame of a client that answers the backend's.
    fn end_with_first_end(&mut self) {
        let is_end = |frame: &RecordedFrame| match frame.event {
            RecordedEvent::End | RecordedEvent::Cut | RecordedEvent::Open => true,
            RecordedEvent::Close { .. } => frame.direction == Direction::In,
            _ => false,
        };
        if let Some(end) = self.frames.iter().position(is_end) {
            self.frames.truncate(end + 1);
        }
    }

    /// Sets the `Content-Length` of a complete body to its length after redaction.
    pub(super) fn correct_content_length(&mut self) {
        let is_complete = self.frames.last().is_some_and(|frame| frame.event == RecordedEvent::End);
        let length: usize = self.frames.iter().map(|frame| frame.event.body_length()).sum();
        // A response to HEAD has the length of another body.
        if !is_complete || length == 0 {
            return;
        }
        for frame in &mut self.frames {
            frame.event.set_content_length(length);
        }
    }

    /// The name of its file.
    pub(super) fn file_name(&self, number: usize) -> String {
        let (method, target) = self.request().unwrap_or_default();
        file_name(number, method, target)
    }
}

impl RecordedEvent {
    /// Sets the `Content-Length` of a response.
    fn set_content_length(&mut self, length: usize) {
        let Self::Response { headers, .. } = self else { return };
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("content-length") {
                *value = length.to_string();
            }
        }
    }
}

/// The name of the file of an exchange: its number, the method and the path.
fn file_name(number: usize, method: &str, target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = method.to_ascii_lowercase();
    let mut slug = [method.as_str()].into_iter().chain(words).collect::<Vec<_>>().join("-");
    slug.truncate(MAX_SLUG);
    format!("{number:05}-{slug}.ndjson")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TrafficRecorder;

    /// Records `body` as the response to a request of `target`.
    fn record(recorder: &TrafficRecorder, target: &str, body: &str) {
        let release = LastRelease::default();
        let mut exchange = Exchange::begin(&recorder.0, &release, "GET".to_owned(), target, Vec::new());
        exchange.respond(200, Vec::new());
        exchange.body(body.as_bytes());
        exchange.end(Direction::In, RecordedEvent::End);
    }

    #[test]
    fn a_secret_in_a_long_body_is_hidden_in_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = TrafficRecorder::new(folder.path(), [""; 0]).unwrap();
        let long = format!(r#"{{"token": "k3y-0123456789", "x": "{}"}}"#, "x ".repeat(MAX_HIDDEN_AT_ONCE));
        record(&recorder, "/a", &long);
        record(&recorder, "/b", "refused k3y-0123456789");
        recorder.finish().unwrap();
        for name in ["00001-get-a.ndjson", "00002-get-b.ndjson"] {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains(HIDDEN) && !text.contains("k3y-0123456789"), "{name}");
        }
    }

    #[test]
    fn words_in_a_query_are_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = TrafficRecorder::new(folder.path(), [""; 0]).unwrap();
        record(&recorder, "/?has_token=true&token_state=active&token=k3y4", "true, active, undefined, k3y4");
        record(&recorder, "/?token=undefined", "true, active, undefined, k3y4");
        recorder.finish().unwrap();
        for name in ["00001-get.ndjson", "00002-get.ndjson"] {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains("true, active, undefined, [hidden]"), "{text}");
        }
    }

    #[test]
    fn the_recording_of_a_long_websocket_ends_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = TrafficRecorder::new(folder.path(), [""; 0]).unwrap();
        let upgrade = vec![("upgrade".to_owned(), "websocket".to_owned())];
        let release = LastRelease::default();
        let mut exchange = Exchange::begin(&recorder.0, &release, "GET".to_owned(), "/ws", upgrade);
        exchange.respond(101, Vec::new());
        let message = RecordedEvent::Binary(vec![0xFF; MAX_SOCKET / 8].into());
        for _ in 0..8 {
            exchange.message(Direction::In, message.clone());
        }
        exchange.end(Direction::In, RecordedEvent::Cut);
        recorder.finish().unwrap();
        let bytes = fs::read(folder.path().join("00001-get-ws.ndjson")).unwrap();
        assert!(Recording::problems(&bytes).is_empty());
        let recording = Recording::parse(std::str::from_utf8(&bytes).unwrap()).unwrap();
        let note = recording.header.note.unwrap();
        assert!(note.contains("the recording ends here"), "{note}");
        // In base64, six messages have that length.
        let kept = recording.frames.iter().filter(|frame| frame.event == message).count();
        assert_eq!((kept, &recording.frames.last().unwrap().event), (6, &RecordedEvent::Open));
    }
}
