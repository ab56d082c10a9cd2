//! The JSON of one line, before and after it means something.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Direction, Event, FORMAT, Frame, Header, Headers, Key, Protocol};

/// What can be wrong with a line of a recording.
#[derive(Debug, thiserror::Error)]
pub enum WrongLine {
    /// There is no first line.
    #[error("a recording begins with a header line, and this file is empty")]
    Empty,
    /// Not JSON, or not the JSON of a header or a frame.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A format that a newer release of this program wrote.
    #[error("this is a recording of format {0}, and only format 1 is known here")]
    Format(u32),
    /// A field that this kind of frame cannot do without.
    #[error("a frame of this kind needs the field {0}")]
    Missing(&'static str),
    /// Bytes that are not base64.
    #[error("the base64 of this frame cannot be decoded: {0}")]
    Base64(#[from] base64::DecodeError),
    /// A time that is negative or no number.
    #[error("t_ms is {0}, and must be zero or more")]
    Time(f64),
    /// A response that goes out, and the like.
    #[error("a frame of this kind cannot have this dir")]
    Direction,
    /// Something after `open`.
    #[error("nothing can follow a frame of the kind open")]
    AfterOpen,
}

/// The header's line. Fields that a newer recorder may add are passed over.
#[derive(Serialize, Deserialize)]
pub(super) struct HeaderLine {
    recording: u32,
    backend: String,
    protocol: Protocol,
    key: Key,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl HeaderLine {
    pub(super) fn of(header: &Header) -> Self {
        let Header { backend, protocol, key, note } = header.clone();
        Self { recording: FORMAT, backend, protocol, key, note }
    }

    pub(super) fn into_header(self) -> Result<Header, WrongLine> {
        if self.recording != FORMAT {
            return Err(WrongLine::Format(self.recording));
        }
        Ok(Header { backend: self.backend, protocol: self.protocol, key: self.key, note: self.note })
    }
}

/// The kinds of frames.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
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

/// A frame's line: one flat object, so that a missing field can be called by its name.
#[derive(Serialize, Deserialize)]
pub(super) struct FrameLine {
    t_ms: f64,
    dir: Direction,
    kind: Kind,
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
    pub(super) fn of(frame: &Frame) -> Self {
        let mut line = Self {
            t_ms: frame.t_ms,
            dir: frame.direction,
            kind: Kind::End,
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
            Event::Request { method, target, headers } => {
                (line.method, line.target, line.headers) = (Some(method), Some(target), Some(headers));
                Kind::Request
            }
            Event::Response { status, headers } => {
                (line.status, line.headers) = (Some(status), Some(headers));
                Kind::Response
            }
            Event::Body(bytes) => {
                match std::str::from_utf8(&bytes) {
                    Ok(text) => line.text = Some(text.to_owned()),
                    Err(_) => line.base64 = Some(STANDARD.encode(&bytes)),
                }
                Kind::Body
            }
            Event::Text(text) => {
                line.text = Some(text);
                Kind::Text
            }
            Event::Binary(bytes) => line.bytes(&bytes, Kind::Binary),
            Event::Ping(bytes) => line.bytes(&bytes, Kind::Ping),
            Event::Pong(bytes) => line.bytes(&bytes, Kind::Pong),
            Event::Close { code, reason } => {
                (line.code, line.reason) = (code, Some(reason));
                Kind::Close
            }
            Event::End => Kind::End,
            Event::Cut => Kind::Cut,
            Event::Open => Kind::Open,
            Event::Returned => Kind::Returned,
        };
        line
    }

    fn bytes(&mut self, bytes: &Bytes, kind: Kind) -> Kind {
        self.base64 = Some(STANDARD.encode(bytes));
        kind
    }

    pub(super) fn into_frame(mut self) -> Result<Frame, WrongLine> {
        if !self.t_ms.is_finite() || self.t_ms < 0.0 {
            return Err(WrongLine::Time(self.t_ms));
        }
        let event = match self.kind {
            Kind::Request => Event::Request {
                method: self.method.take().ok_or(WrongLine::Missing("method"))?,
                target: self.target.take().ok_or(WrongLine::Missing("target"))?,
                headers: self.headers.take().unwrap_or_default(),
            },
            Kind::Response => Event::Response {
                status: self.status.ok_or(WrongLine::Missing("status"))?,
                headers: self.headers.take().unwrap_or_default(),
            },
            Kind::Body => Event::Body(self.payload("text or base64")?),
            Kind::Text => Event::Text(self.text.take().ok_or(WrongLine::Missing("text"))?),
            Kind::Binary => Event::Binary(self.payload("base64")?),
            Kind::Ping => Event::Ping(self.payload("base64")?),
            Kind::Pong => Event::Pong(self.payload("base64")?),
            Kind::Close => Event::Close { code: self.code, reason: self.reason.take().unwrap_or_default() },
            Kind::End => Event::End,
            Kind::Cut => Event::Cut,
            Kind::Open => Event::Open,
            Kind::Returned => Event::Returned,
        };
        if !event.goes(self.dir) {
            return Err(WrongLine::Direction);
        }
        Ok(Frame { t_ms: self.t_ms, direction: self.dir, event })
    }

    fn payload(&mut self, wanted: &'static str) -> Result<Bytes, WrongLine> {
        match (self.text.take(), self.base64.take()) {
            (Some(text), None) => Ok(text.into()),
            (None, Some(base64)) => Ok(STANDARD.decode(base64)?.into()),
            _ => Err(WrongLine::Missing(wanted)),
        }
    }
}
