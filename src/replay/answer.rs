//! A recorded response for replay: its head, and the events of its body with their times.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::recording::{Headers, RecordedEvent, Recording};

/// The recorded answer to a request. Times count from the request.
#[derive(Clone, Debug)]
pub(super) struct RecordedResponse {
    pub(super) head: Option<ResponseHead>,
    pub(super) parts: VecDeque<(Duration, BodyPart)>,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub(super) struct ResponseHead {
    pub(super) after: Duration,
    pub(super) status: StatusCode,
    /// The headers without those on the framing of the body, which are set anew.
    pub(super) headers: HeaderMap,
    /// The `Content-Length` that the backend declared.
    pub(super) declared_length: Option<HeaderValue>,
}

/// An event of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyPart {
    Data(Bytes),
    End,
    Cut,
}

impl RecordedResponse {
    pub(super) fn from_recording(recording: &Recording) -> Self {
        let mut start = Duration::ZERO;
        let mut answer = Self { head: None, parts: VecDeque::new() };
        for frame in &recording.frames {
            let after = frame.at().saturating_sub(start);
            match &frame.event {
                RecordedEvent::Request { .. } => start = frame.at(),
                RecordedEvent::Response { status, headers } => {
                    answer.head = ResponseHead::new(after, *status, headers)
                }
                RecordedEvent::Body(bytes) => answer.parts.push_back((after, BodyPart::Data(bytes.clone()))),
                RecordedEvent::End => answer.parts.push_back((after, BodyPart::End)),
                RecordedEvent::Cut => answer.parts.push_back((after, BodyPart::Cut)),
                // A body that stays open has no end event.
                _ => {}
            }
        }
        answer
    }

    /// Whether the connection was dropped before there was a response.
    pub(super) fn dropped_at(&self) -> Option<Duration> {
        match (&self.head, self.parts.front()) {
            (None, Some((after, BodyPart::Cut))) => Some(*after),
            _ => None,
        }
    }

    /// Whether the body is a stream of events.
    pub(super) fn is_sse(&self) -> bool {
        let content_type = self.head.as_ref().and_then(|head| head.headers.get(header::CONTENT_TYPE));
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
    }

    /// The `Content-Length` to send: the length of a complete body, else the one that the backend declared.
    pub(super) fn length(&self) -> Option<HeaderValue> {
        let mut length: u64 = 0;
        for (_, part) in &self.parts {
            match part {
                BodyPart::Data(bytes) => length += bytes.len() as u64,
                BodyPart::End => return Some(length.into()),
                BodyPart::Cut => break,
            }
        }
        self.head.as_ref()?.declared_length.clone()
    }
}

impl ResponseHead {
    /// `None` if the status is invalid in HTTP.
    fn new(after: Duration, status: u16, recorded: &Headers) -> Option<Self> {
        let status = StatusCode::from_u16(status).ok()?;
        let mut head = Self { after, status, headers: HeaderMap::new(), declared_length: None };
        for (name, value) in recorded {
            let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
            else {
                continue;
            };
            match name {
                header::CONTENT_LENGTH => head.declared_length = Some(value),
                header::TRANSFER_ENCODING
                | header::CONNECTION
                | header::UPGRADE
                | header::SEC_WEBSOCKET_ACCEPT => {}
                name => {
                    head.headers.append(name, value);
                }
            }
        }
        Some(head)
    }
}
