//! One recorded exchange between a client and a backend: the format, its types, its reader and writer.
//!
//! A recording is NDJSON. The first line is the [`RecordingHeader`], every further line a [`RecordedFrame`]: when it
//! came, which way it went, and what it was. Bytes that are valid UTF-8 are written as `"text"`, all
//! others as `"base64"`, so that a recording can be read and edited by a person.
//!
//! ```
//! use proxbox_bridge::recording::{Direction, Event, Key, Protocol, Recording};
//!
//! let recording = Recording::new("0.0.11.post2", Protocol::Http, Key::Sent)
//!     .with(0.0, Direction::Out, Event::get("/version"))
//!     .with(1.5, Direction::In, Event::Response { status: 200, headers: vec![] })
//!     .with(1.6, Direction::In, Event::Body("{}".into()))
//!     .with(1.6, Direction::In, Event::End);
//! assert_eq!(Recording::parse(&recording.to_ndjson()).unwrap(), recording);
//! ```

mod line;
mod ndjson;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use line::LineError;
pub use ndjson::{ParseError, RecordingError};

/// The version of the format that this crate reads and writes.
pub const FORMAT: u32 = 1;

/// One exchange: a request with its response, or a WebSocket from its handshake to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What the recording is of.
    pub header: RecordingHeader,
    /// What went over the wire, in the order in which it went.
    pub frames: Vec<RecordedFrame>,
}

/// What a recording is of: its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingHeader {
    /// The release of the backend, as its package calls it: `0.0.11.post2`.
    pub backend: String,
    /// Whether it is a plain exchange or a WebSocket.
    pub protocol: Protocol,
    /// What the client sent as its API key.
    pub key: RecordedKey,
    /// A word from whoever recorded it.
    pub note: Option<String>,
}

/// What was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One HTTP request and its response, streamed or not.
    Http,
    /// A WebSocket, its handshake included.
    Websocket,
}

/// What the client sent as its API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedKey {
    /// The right one.
    Sent,
    /// None at all.
    None,
    /// A wrong one.
    Wrong,
}

/// Something that happened during a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedFrame {
    /// Milliseconds since the recording began; finite and not negative.
    pub t_ms: f64,
    /// Which way it went.
    pub direction: Direction,
    /// What it was.
    pub event: RecordedEvent,
}

impl RecordedFrame {
    /// When this happened, counted from the beginning of the recording.
    pub fn at(&self) -> Duration {
        Duration::try_from_secs_f64(self.t_ms / 1000.0).unwrap_or_default()
    }
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the backend.
    Out,
    /// From the backend to the client.
    In,
    /// Nowhere: a remark of the recorder.
    Ctl,
}

/// Names and values of HTTP headers, in the order in which they were sent.
pub type Headers = Vec<(String, String)>;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedEvent {
    /// A request, or the request that opens a WebSocket.
    Request {
        /// `GET` and the like.
        method: String,
        /// Path and query.
        target: String,
        /// As sent, without credentials.
        headers: Headers,
    },
    /// The head of a response. For a WebSocket 101 means accepted.
    Response {
        /// The status code.
        status: u16,
        /// As sent.
        headers: Headers,
    },
    /// A part of a response's body. Where the parts are cut means nothing.
    Body(Bytes),
    /// The body ended as HTTP wants it to.
    End,
    /// A WebSocket text frame.
    Text(String),
    /// A WebSocket binary frame.
    Binary(Bytes),
    /// A WebSocket ping.
    Ping(Bytes),
    /// A WebSocket pong.
    Pong(Bytes),
    /// A WebSocket close frame.
    Close {
        /// The code, if the frame had one.
        code: Option<u16>,
        /// The reason, empty if the frame had none.
        reason: String,
    },
    /// The connection ended without the ending that its protocol asks for.
    Cut,
    /// The recorder left while the backend was still connected and silent. Always the last frame.
    Open,
    /// The backend's command loop is free again. Frames that still come belong to tasks that the
    /// command left behind.
    Returned,
}

impl RecordedEvent {
    /// A `GET` without headers.
    pub fn get(target: &str) -> Self {
        Self::Request { method: "GET".to_owned(), target: target.to_owned(), headers: Headers::new() }
    }

    /// A text frame.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Whether this can go in `direction`: requests go out, responses come in, remarks go nowhere.
    fn is_valid_for(&self, direction: Direction) -> bool {
        match self {
            Self::Request { .. } => direction == Direction::Out,
            Self::Response { .. } | Self::Body(_) | Self::End | Self::Cut => direction == Direction::In,
            Self::Open | Self::Returned => direction == Direction::Ctl,
            Self::Text(_) | Self::Binary(_) | Self::Ping(_) | Self::Pong(_) | Self::Close { .. } => {
                direction != Direction::Ctl
            }
        }
    }
}

impl Recording {
    /// A recording without frames.
    pub fn new(backend: &str, protocol: Protocol, key: RecordedKey) -> Self {
        let header = RecordingHeader { backend: backend.to_owned(), protocol, key, note: None };
        Self { header, frames: Vec::new() }
    }

    /// Appends what happened `t_ms` milliseconds after the recording began.
    pub fn push(&mut self, t_ms: f64, direction: Direction, event: RecordedEvent) {
        debug_assert!(event.is_valid_for(direction), "{event:?} cannot go {direction:?}");
        self.frames.push(RecordedFrame { t_ms, direction, event });
    }

    /// This recording and one more frame, see [`Recording::push`].
    #[must_use]
    pub fn with(mut self, t_ms: f64, direction: Direction, event: RecordedEvent) -> Self {
        self.push(t_ms, direction, event);
        self
    }

    /// Method and target of the request, which is the first frame of every complete recording.
    pub fn request(&self) -> Option<(&str, &str)> {
        self.frames.iter().find_map(|frame| match &frame.event {
            RecordedEvent::Request { method, target, .. } => Some((method.as_str(), target.as_str())),
            _ => None,
        })
    }

    /// The status of the response, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.frames.iter().find_map(|frame| match frame.event {
            RecordedEvent::Response { status, .. } => Some(status),
            _ => None,
        })
    }
}
