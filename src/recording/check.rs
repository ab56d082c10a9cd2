//! All violations of the format in a text, for `replay --check`.

use std::fmt;

use super::line::{LineError, parse_frame, parse_header};
use super::{Direction, Protocol, RecordedEvent, RecordedFrame, Recording};

/// A violation of the format.
#[derive(Debug)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what is expected.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

impl Recording {
    /// Every violation of the format in `bytes`, in the order of the lines. Lines that cannot be parsed are reported, and
    /// the order of the others is checked without them.
    pub fn problems(bytes: &[u8]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut header = None;
        let mut frames: Vec<(usize, RecordedFrame)> = Vec::new();
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        if lines.pop().is_some_and(|rest| !rest.is_empty()) {
            let text = "the last line must end with a line feed: the recording may be incomplete".to_owned();
            problems.push(Problem { line: lines.len() + 1, text });
        }
        if lines.is_empty() && problems.is_empty() {
            problems.push(Problem { line: 1, text: LineError::Empty.to_string() });
        }
        for (index, line) in lines.iter().enumerate() {
            let mut report = |text: String| problems.push(Problem { line: index + 1, text });
            let line = match std::str::from_utf8(line) {
                Ok(line) => line,
                Err(error) => {
                    report(format!("the line must be UTF-8 ({error})"));
                    continue;
                }
            };
            if index == 0 {
                match parse_header(line) {
                    Ok(parsed) => header = Some(parsed),
                    Err(error) => report(format!("a header is expected: {error}")),
                }
            } else if line.trim().is_empty() {
                report("the line is empty: a frame is expected".to_owned());
            } else {
                match parse_frame(line) {
                    Ok(frame) => frames.push((index + 1, frame)),
                    Err(error) => report(format!("a frame is expected: {error}")),
                }
            }
        }
        let mut order = Order {
            // Without its header, the protocol is that which its frames have.
            protocol: header.map(|header| header.protocol),
            problems,
            state: State::Request,
            t_ms: 0.0,
        };
        for (line, frame) in &frames {
            order.check(*line, frame);
        }
        order.end(lines.len().max(1), &frames)
    }
}

/// Checks the order of frames.
struct Order {
    protocol: Option<Protocol>,
    problems: Vec<Problem>,
    state: State,
    t_ms: f64,
}

/// What is expected next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Request,
    Response,
    /// The body of a response.
    Body,
    /// The frames of a WebSocket.
    Socket,
    Ended,
}

impl State {
    fn expected(self) -> &'static str {
        match self {
            Self::Request => "the request is expected, as the first frame",
            Self::Response => "the response is expected",
            Self::Body => "a body frame or the end is expected",
            Self::Socket => "a frame of the WebSocket or its end is expected",
            Self::Ended => "the recording has ended, and no further frame is expected",
        }
    }
}

impl Order {
    fn report(&mut self, line: usize, text: String) {
        self.problems.push(Problem { line, text });
    }

    fn check(&mut self, line: usize, frame: &RecordedFrame) {
        if frame.t_ms < self.t_ms {
            let text = format!("t_ms is {}, after {}: it must not decrease", frame.t_ms, self.t_ms);
            self.report(line, text);
        }
        self.t_ms = frame.t_ms;
        let (next, fits) = self.next(frame);
        if !fits {
            self.report(line, format!("{} cannot be here: {}", frame.event.kind(), self.state.expected()));
        }
        self.state = next;
        match &frame.event {
            RecordedEvent::Request { target, .. } if !target.starts_with('/') => {
                self.report(line, format!("the target is {target:?}: it must begin with /"));
            }
            RecordedEvent::Body(bytes) if bytes.is_empty() => {
                self.report(line, "the body is empty: at least one byte is expected".to_owned());
            }
            _ => {}
        }
    }

    /// The state after `frame`, and whether `frame` is allowed in the current one.
    fn next(&self, frame: &RecordedFrame) -> (State, bool) {
        let state = self.state;
        let is_open = state != State::Ended && state != State::Request;
        match &frame.event {
            RecordedEvent::Request { .. } if state == State::Request => (State::Response, true),
            RecordedEvent::Request { .. } => (state, false),
            RecordedEvent::Response { status, .. } => {
                let accepts = *status == 101 && self.protocol != Some(Protocol::Http);
                (if accepts { State::Socket } else { State::Body }, state == State::Response)
            }
            RecordedEvent::Body(_) => (state, state == State::Body),
            RecordedEvent::End => (State::Ended, state == State::Body),
            RecordedEvent::Cut | RecordedEvent::Open => (State::Ended, is_open),
            RecordedEvent::Close { .. } if frame.direction == Direction::In => {
                (State::Ended, state == State::Socket)
            }
            RecordedEvent::Text(_)
            | RecordedEvent::Binary(_)
            | RecordedEvent::Ping(_)
            | RecordedEvent::Pong(_)
            | RecordedEvent::Close { .. }
            | RecordedEvent::Returned => (state, state == State::Socket),
        }
    }

    /// All problems, after the last frame.
    fn end(mut self, last_line: usize, frames: &[(usize, RecordedFrame)]) -> Vec<Problem> {
        if self.state != State::Ended {
            let text = match self.state {
                State::Socket => "the end is missing: a close frame of the backend, cut or open is expected",
                State::Body => "the end is missing: end, cut or open is expected",
                state => state.expected(),
            };
            self.report(last_line + 1, text.to_owned());
        }
        let is_head = frames.iter().any(|(_, frame)| frame.event.is_head_request());
        let is_complete = frames.last().is_some_and(|(_, frame)| frame.event == RecordedEvent::End);
        let length: usize = frames.iter().map(|(_, frame)| frame.event.body_length()).sum();
        for (line, frame) in frames.iter().filter(|_| is_complete && !is_head) {
            let Some(declared) =
                frame.event.declared_length().filter(|declared| *declared != length.to_string())
            else {
                continue;
            };
            self.report(
                *line,
                format!("content-length is {declared}: {length} is expected, the length of the body"),
            );
        }
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }
}

impl RecordedEvent {
    /// The name of this kind of frame.
    fn kind(&self) -> &'static str {
        match self {
            Self::Request { .. } => "request",
            Self::Response { .. } => "response",
            Self::Body(_) => "body",
            Self::End => "end",
            Self::Text(_) => "text",
            Self::Binary(_) => "binary",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Close { .. } => "close",
            Self::Cut => "cut",
            Self::Open => "open",
            Self::Returned => "returned",
        }
    }

    /// Whether this is a request whose response has no body, whatever length it declares.
    fn is_head_request(&self) -> bool {
        matches!(self, Self::Request { method, .. } if method == "HEAD")
    }

    /// The number of bytes of the body in this frame.
    pub(crate) fn body_length(&self) -> usize {
        match self {
            Self::Body(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// The `Content-Length` of a response.
    fn declared_length(&self) -> Option<&str> {
        let Self::Response { headers, .. } = self else { return None };
        let declared = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        declared.map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> Vec<String> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Recording::problems(text.as_bytes()).iter().map(Problem::to_string).collect()
    }

    const HTTP: &str = r#"{"recording":1,"backend":"0.0.11.post2","protocol":"http","key":"sent"}"#;
    const SOCKET: &str = r#"{"recording":1,"backend":"0.0.11.post2","protocol":"websocket","key":"sent"}"#;
    const REQUEST: &str = r#"{"t_ms":0,"dir":"out","kind":"request","method":"GET","target":"/ws"}"#;
    const RESPONSE: &str =
        r#"{"t_ms":1,"dir":"in","kind":"response","status":200,"headers":[["Content-Length","4"]]}"#;
    const SWITCHED: &str = r#"{"t_ms":1,"dir":"in","kind":"response","status":101}"#;
    const BODY: &str = r#"{"t_ms":2,"dir":"in","kind":"body","text":"body"}"#;
    const END: &str = r#"{"t_ms":3,"dir":"in","kind":"end"}"#;
    const TEXT: &str = r#"{"t_ms":3,"dir":"out","kind":"text","text":"Sync Nodes"}"#;
    const CLOSE: &str = r#"{"t_ms":4,"dir":"in","kind":"close","code":1000}"#;
    const OPEN: &str = r#"{"t_ms":4,"dir":"ctl","kind":"open"}"#;

    #[test]
    fn a_sound_recording_has_no_problems() {
        for lines in [
            &[HTTP, REQUEST, RESPONSE, BODY, END][..],
            &[HTTP, &REQUEST.replace("GET", "HEAD"), RESPONSE, END],
            &[HTTP, REQUEST, OPEN],
            &[SOCKET, REQUEST, RESPONSE, BODY, END],
            &[SOCKET, REQUEST, SWITCHED, TEXT, CLOSE],
        ] {
            assert!(found(lines).is_empty(), "{:?}", found(lines));
        }
    }

    #[test]
    fn every_problem_is_named_with_its_line_and_what_is_expected() {
        for (lines, expected) in [
            (&[""][..], &["1: a header is expected"][..]),
            (&[HTTP], &["2: the request is expected"]),
            (
                &["{}", "{}", "x"],
                &["1: a header is expected", "2: a frame is expected", "3: a frame is expected"],
            ),
            (&[HTTP, REQUEST], &["3: the response is expected"]),
            (&[HTTP, REQUEST, "", RESPONSE, BODY], &["3: the line is empty", "6: the end is missing"]),
            (&[SOCKET, REQUEST, SWITCHED], &["4: the end is missing: a close frame"]),
            (&[HTTP, RESPONSE, REQUEST, END], &["2: response cannot be here: the request"]),
            (&[HTTP, REQUEST, RESPONSE, END, BODY], &["5: t_ms is 2, after 3", "5: body cannot be here"]),
            (
                &[HTTP, REQUEST, RESPONSE, TEXT, END],
                &["3: content-length is 4: 0 is expected", "4: text cannot"],
            ),
            (&[HTTP, &REQUEST.replace("/ws", "ws"), OPEN], &["2: the target is \"ws\""]),
            (&[HTTP, REQUEST, RESPONSE, &BODY.replace("body\"}", "\"}"), OPEN], &["4: the body is empty"]),
        ] {
            let found = found(lines);
            let is_expected = |(problem, expected): (&String, &&str)| problem.starts_with(expected);
            assert!(
                found.len() >= expected.len() && found.iter().zip(expected).all(is_expected),
                "{found:#?} instead of {expected:#?}"
            );
        }
        let cut = Recording::problems(format!("{HTTP}\n{REQUEST}\n{RESPONSE}\n{{\"t_ms\":").as_bytes());
        let cut: Vec<String> = cut.iter().map(Problem::to_string).collect();
        assert!(
            cut[0].starts_with("4: the last line must end") && cut[1].starts_with("4: the end is missing")
        );
        assert!(Recording::problems(b"\xff\n")[0].to_string().contains("UTF-8"));
        assert!(Recording::problems(b"")[0].to_string().contains("the file is empty"));
    }
}
