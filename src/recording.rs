//! Recordings of exchanges between a client and a backend: the format, its types, its reader and writer.
//!
//! A recording is NDJSON. The first line is the [`RecordingHeader`]. Each further line is a [`RecordedFrame`]: its
//! time, its direction and its event. Bytes that are valid UTF-8 are written as `"text"`, all others as `"base64"`, so
//! that a recording can be read and edited by hand.
//!
//! ```
//! use proxbox_bridge::recording::{Direction, Protocol, RecordedEvent, RecordedKey, Recording};
//!
//! let recording = Recording::new("0.0.11.post2", Protocol::Http, RecordedKey::Sent)
//!     .with(0.0, Direction::Out, RecordedEvent::get("/version"))
//!     .with(1.5, Direction::In, RecordedEvent::Response { status: 200, headers: vec![] })
//!     .with(1.6, Direction::In, RecordedEvent::Body("{}".into()))
//!     .with(1.6, Direction::In, RecordedEvent::End);
//! assert_eq!(Recording::parse(&recording.to_ndjson()).unwrap(), recording);
//! ```

mod bodies;
mod check;
mod envelope;
mod line;
mod ndjson;
mod returned;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use check::Problem;
pub(crate) use envelope::{CommandEnvelope, key_in};
pub use line::LineError;
pub use ndjson::{ParseError, RecordingError};

/// What every recording begins with.
pub(crate) const START: &str = "{\"recording\":";

/// The version of the format that this crate reads and writes.
pub const FORMAT: u32 = 1;

/// One exchange: a request with its response, or a WebSocket from its handshake to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The first line.
    pub header: RecordingHeader,
    /// The frames, in order.
    pub frames: Vec<RecordedFrame>,
}

/// The first line of a recording: the backend, the protocol and the API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingHeader {
    /// The release of the backend, in the form of its package: `0.0.11.post2`.
    pub backend: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The API key that the client sent.
    pub key: RecordedKey,
    /// A note by the author of the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The protocol of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One HTTP request and its response, streamed or not.
    Http,
    /// A WebSocket, its handshake included.
    Websocket,
}

/// The API key that the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedKey {
    /// The valid key.
    Sent,
    /// No key.
    None,
    /// A wrong key.
    Wrong,
}

/// One event of a recording, with its time and direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedFrame {
    /// Milliseconds since the recording began; finite and not negative.
    pub t_ms: f64,
    /// The direction.
    #[serde(rename = "dir")]
    pub direction: Direction,
    /// The event.
    #[serde(flatten)]
    pub event: RecordedEvent,
}

impl RecordedFrame {
    /// The time since the recording began.
    pub fn at(&self) -> Duration {
        Duration::try_from_secs_f64(self.t_ms / 1000.0).unwrap_or_default()
    }
}

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the backend.
    Out,
    /// From the backend to the client.
    In,
    /// None: a remark of the recorder.
    Ctl,
}

/// Names and values of HTTP headers, in the order in which they were sent.
pub type Headers = Vec<(String, String)>;

/// An event of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RecordedEvent {
    /// A request, or the request that opens a WebSocket.
    Request {
        /// The method.
        method: String,
        /// The path and query.
        target: String,
        /// As sent, without credentials.
        #[serde(default)]
        headers: Headers,
    },
    /// The head of a response. For a WebSocket 101 means accepted.
    Response {
        /// The status code.
        status: u16,
        /// As sent.
        #[serde(default)]
        headers: Headers,
    },
    /// A part of a response's body. The boundaries between parts have no meaning.
    #[serde(serialize_with = "line::write_bytes", deserialize_with = "line::read_bytes")]
    Body(Bytes),
    /// The body ended as its framing requires.
    End,
    /// A WebSocket text frame.
    #[serde(serialize_with = "line::write_text", deserialize_with = "line::read_text")]
    Text(String),
    /// A WebSocket binary frame.
    #[serde(serialize_with = "line::write_base64", deserialize_with = "line::read_bytes")]
    Binary(Bytes),
    /// A WebSocket ping.
    #[serde(serialize_with = "line::write_base64", deserialize_with = "line::read_bytes")]
    Ping(Bytes),
    /// A WebSocket pong.
    #[serde(serialize_with = "line::write_base64", deserialize_with = "line::read_bytes")]
    Pong(Bytes),
    /// A WebSocket close frame.
    Close {
        /// The code, if the frame had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The reason, empty if the frame had none.
        #[serde(default)]
        reason: String,
    },
    /// The connection was closed without the end that the protocol requires.
    Cut,
    /// The recorder disconnected while the backend was still connected and silent. Always the last frame.
    Open,
    /// The backend's command loop is free again. Later frames come from background tasks of the command.
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
}

impl Recording {
    /// A recording without frames.
    pub fn new(backend: &str, protocol: Protocol, key: RecordedKey) -> Self {
        let header = RecordingHeader { backend: backend.to_owned(), protocol, key, note: None };
        Self { header, frames: Vec::new() }
    }

    /// Appends an event, `t_ms` milliseconds after the beginning of the recording.
    pub fn push(&mut self, t_ms: f64, direction: Direction, event: RecordedEvent) {
        debug_assert!(event.is_valid_for(direction), "{event:?} cannot go {direction:?}");
        self.frames.push(RecordedFrame { t_ms, direction, event });
    }

    /// This recording with one more frame, see [`Recording::push`].
    #[must_use]
    pub fn with(mut self, t_ms: f64, direction: Direction, event: RecordedEvent) -> Self {
        self.push(t_ms, direction, event);
        self
    }

    /// The method and target of the request, which is the first frame of every complete recording.
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
