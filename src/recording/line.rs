//! The JSON of one line: what is checked beyond its types, and the bytes of a frame.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Direction, FORMAT, RecordedEvent, RecordedFrame, RecordingHeader};

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
    #[serde(flatten)]
    header: RecordingHeader,
}

impl HeaderLine {
    pub(super) fn from_header(header: &RecordingHeader) -> Self {
        Self { recording: FORMAT, header: header.clone() }
    }
}

/// Parses the line of the header.
pub(super) fn parse_header(line: &str) -> Result<RecordingHeader, LineError> {
    let HeaderLine { recording, header } = serde_json::from_str(line)?;
    if recording == FORMAT { Ok(header) } else { Err(LineError::Format(recording)) }
}

/// Parses the line of a frame.
pub(super) fn parse_frame(line: &str) -> Result<RecordedFrame, LineError> {
    let frame: RecordedFrame = serde_json::from_str(line)?;
    if !frame.t_ms.is_finite() || frame.t_ms < 0.0 {
        return Err(LineError::Time(frame.t_ms));
    }
    if frame.event.is_valid_for(frame.direction) { Ok(frame) } else { Err(LineError::Direction) }
}

impl RecordedEvent {
    /// Whether this event can have `direction`: requests go out, responses come in, remarks have none.
    pub(super) fn is_valid_for(&self, direction: Direction) -> bool {
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

/// The content of a frame, as text or as base64.
#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Serializes a text.
pub(super) fn write_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Payload { text: Some(text.to_owned()), base64: None }.serialize(serializer)
}

/// Serializes bytes as base64.
pub(super) fn write_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    Payload { text: None, base64: Some(STANDARD.encode(bytes)) }.serialize(serializer)
}

/// Serializes bytes as text if they are one, and as base64 if not.
pub(super) fn write_bytes<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => write_text(text, serializer),
        Err(_) => write_base64(bytes, serializer),
    }
}

/// Deserializes a text.
pub(super) fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Payload::deserialize(deserializer)?.text.ok_or_else(|| D::Error::missing_field("text"))
}

/// Deserializes bytes in either form.
pub(super) fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    match Payload::deserialize(deserializer)? {
        Payload { text: Some(text), base64: None } => Ok(text.into()),
        Payload { text: None, base64: Some(base64) } => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(D::Error::custom(format!("the base64 of this frame is invalid: {error}"))),
        },
        _ => Err(D::Error::custom("a frame of this kind requires one of the fields text and base64")),
    }
}
