//! The JSON of one line, and its conversion to and from headers and frames.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Direction, FORMAT, Headers, Protocol, RecordedEvent, RecordedFrame, RecordedKey, RecordingHeader,
};

/// Why a line of a recording is invalid.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The file is empty.
    #[error("the file is empty: a recording begins with a header line")]
    Empty,
    /// Not JSON, or not the JSON of a header or a frame.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// An unsupported format.
    #[error("the recording has format {0}: only format 1 is supported")]
    Format(u32),
    /// A required field of this kind of frame is missing.
    #[error("a frame of this kind requires the field {0}")]
    Missing(&'static str),
    /// Invalid base64.
    #[error("the base64 of this frame is invalid: {0}")]
    Base64(#[from] base64::DecodeError),
    /// A time that is negative or not finite.
    #[error("t_ms is {0}: it must be a number, zero or more")]
    Time(f64),
    /// A direction that the kind of frame cannot have, such as a response that goes out.
    #[error("a frame of this kind cannot have this dir")]
    Direction,
    /// A frame after `open`.
    #[error("a frame of the kind open must be the last one")]
    AfterOpen,
}

/// The line of the header. Unknown fields are ignored: a newer recorder may add some.
#[derive(Serialize, Deserialize)]
pub(super) struct HeaderLine {
    recording: u32,
    backend: String,
    protocol: Protocol,
    key: RecordedKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl HeaderLine {
    pub(super) fn from_header(header: &RecordingHeader) -> Self {
        let RecordingHeader { backend, protocol, key, note } = header.clone();
        Self { recording: FORMAT, backend, protocol, key, note }
    }

    pub(super) fn into_header(self) -> Result<RecordingHeader, LineError> {
        if self.recording != FORMAT {
            return Err(LineError::Format(self.recording));
        }
        Ok(RecordingHeader { backend: self.backend, protocol: self.protocol, key: self.key, note: self.note })
    }
}

/// The kinds of frames.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FrameKind {
    Request,
    Response,
    Body,
    End,
    Text,
    Binary,
    Ping,
    Pong,
    Close,
    Cut,
    Open,
    Returned,
}

/// The line of a frame: one flat object, so that an error can name the missing field.
#[derive(Serialize, Deserialize)]
pub(super) struct FrameLine {
    t_ms: f64,
    dir: Direction,
    kind: FrameKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Headers>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl FrameLine {
    pub(super) fn from_frame(frame: &RecordedFrame) -> Self {
        let mut line = Self {
            t_ms: frame.t_ms,
            dir: frame.direction,
            kind: FrameKind::End,
            method: None,
            target: None,
            status: None,
            headers: None,
            code: None,
            reason: None,
            text: None,
            base64: None,
        };
        line.kind = match frame.event.clone() {
            RecordedEvent::Request { method, target, headers } => {
                (line.method, line.target, line.headers) = (Some(method), Some(target), Some(headers));
                FrameKind::Request
            }
            RecordedEvent::Response { status, headers } => {
                (line.status, line.headers) = (Some(status), Some(headers));
                FrameKind::Response
            }
            RecordedEvent::Body(bytes) => {
                match std::str::from_utf8(&bytes) {
                    Ok(text) => line.text = Some(text.to_owned()),
                    Err(_) => line.base64 = Some(STANDARD.encode(&bytes)),
                }
                FrameKind::Body
            }
            RecordedEvent::Text(text) => {
                line.text = Some(text);
                FrameKind::Text
            }
            RecordedEvent::Binary(bytes) => line.bytes(&bytes, FrameKind::Binary),
            RecordedEvent::Ping(bytes) => line.bytes(&bytes, FrameKind::Ping),
            RecordedEvent::Pong(bytes) => line.bytes(&bytes, FrameKind::Pong),
            RecordedEvent::Close { code, reason } => {
                (line.code, line.reason) = (code, Some(reason));
                FrameKind::Close
            }
            RecordedEvent::End => FrameKind::End,
            RecordedEvent::Cut => FrameKind::Cut,
            RecordedEvent::Open => FrameKind::Open,
            RecordedEvent::Returned => FrameKind::Returned,
        };
        line
    }

    fn bytes(&mut self, bytes: &Bytes, kind: FrameKind) -> FrameKind {
        self.base64 = Some(STANDARD.encode(bytes));
        kind
    }

    pub(super) fn into_frame(mut self) -> Result<RecordedFrame, LineError> {
        if !self.t_ms.is_finite() || self.t_ms < 0.0 {
            return Err(LineError::Time(self.t_ms));
        }
        let event = match self.kind {
            FrameKind::Request => RecordedEvent::Request {
                method: self.method.take().ok_or(LineError::Missing("method"))?,
                target: self.target.take().ok_or(LineError::Missing("target"))?,
                headers: self.headers.take().unwrap_or_default(),
            },
            FrameKind::Response => RecordedEvent::Response {
                status: self.status.ok_or(LineError::Missing("status"))?,
                headers: self.headers.take().unwrap_or_default(),
            },
            FrameKind::Body => RecordedEvent::Body(self.payload("text or base64")?),
            FrameKind::Text => RecordedEvent::Text(self.text.take().ok_or(LineError::Missing("text"))?),
            FrameKind::Binary => RecordedEvent::Binary(self.payload("base64")?),
            FrameKind::Ping => RecordedEvent::Ping(self.payload("base64")?),
            FrameKind::Pong => RecordedEvent::Pong(self.payload("base64")?),
            FrameKind::Close => {
                RecordedEvent::Close { code: self.code, reason: self.reason.take().unwrap_or_default() }
            }
            FrameKind::End => RecordedEvent::End,
            FrameKind::Cut => RecordedEvent::Cut,
            FrameKind::Open => RecordedEvent::Open,
            FrameKind::Returned => RecordedEvent::Returned,
        };
        if !event.is_valid_for(self.dir) {
            return Err(LineError::Direction);
        }
        Ok(RecordedFrame { t_ms: self.t_ms, direction: self.dir, event })
    }

    fn payload(&mut self, field: &'static str) -> Result<Bytes, LineError> {
        match (self.text.take(), self.base64.take()) {
            (Some(text), None) => Ok(text.into()),
            (None, Some(base64)) => Ok(STANDARD.decode(base64)?.into()),
            _ => Err(LineError::Missing(field)),
        }
    }
}
