//! The frames of a job's log, and their decoder.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::domain::event::StepStatus;
use crate::core::text::string_enum::variant_names;
use crate::core::upstream::lenient::LenientText;

/// The type of a frame. Its name in the ledger is that of the event or, for a step, its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameName {
    /// `event: step`.
    Step(StepStatus),
    /// `event: error`.
    Error,
    /// `event: complete`.
    Complete,
    /// An event of the backend's own type, for clients that requested these.
    Extra,
}

variant_names!(pub FrameName {
    Step(StepStatus::Started) => StepStatus::Started.as_str(),
    Step(StepStatus::Progress) => StepStatus::Progress.as_str(),
    Step(StepStatus::Completed) => StepStatus::Completed.as_str(),
    Step(StepStatus::Failed) => StepStatus::Failed.as_str(),
    Error => "error",
    Complete => "complete",
    Extra => "extra",
});

/// An encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type of the event.
    pub name: FrameName,
    /// The encoded event with its blank line, short enough for every client.
    pub bytes: Bytes,
    /// The JSON that exceeds R13, if it was kept: the backend's payload of an object, or the whole data of a
    /// `complete`.
    pub payload: Option<Bytes>,
}

impl Frame {
    /// The size of its content, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// The frame as the ledger stores it.
    #[must_use]
    pub fn without_payload(&self) -> Self {
        Self { name: self.name, bytes: self.bytes.clone(), payload: None }
    }

    /// The encoded event with its payload, if it has one.
    pub fn with_payload(&self) -> Bytes {
        let Some(payload) = &self.payload else { return self.bytes.clone() };
        if self.name == FrameName::Complete {
            return [b"event: complete\ndata: ", &payload[..], b"\n\n"].concat().into();
        }
        let step = self.bytes.strip_suffix(b"}\n\n").unwrap_or(&self.bytes);
        [step, b", \"payload\": ", payload, b"}\n\n"].concat().into()
    }

    /// Decodes the event with its payload. `None` if its data is malformed.
    pub fn decode(&self) -> Option<FrameData<'_>> {
        let (data, payload) = match (self.name, self.payload.as_deref()) {
            (FrameName::Complete, Some(whole)) => (whole, None),
            (_, payload) => (self.data(), payload),
        };
        let data: FrameData<'_> = serde_json::from_slice(data).ok()?;
        Some(FrameData { payload, ..data })
    }

    /// The data of the encoded event, as JSON.
    pub(super) fn data(&self) -> &[u8] {
        let lines = self.bytes.strip_suffix(b"\n\n").unwrap_or(&self.bytes);
        let data = lines.splitn(2, |byte| *byte == b'\n').nth(1);
        data.and_then(|line| line.strip_prefix(b"data: ")).unwrap_or_default()
    }
}

/// The fields of `step`, `error` and `complete`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct FrameData<'a> {
    /// The stage or object type.
    pub step: LenientText<'a>,
    /// The event as a sentence.
    pub message: LenientText<'a>,
    /// The name of the object.
    pub rowid: LenientText<'a>,
    /// The failure as a sentence.
    pub error: LenientText<'a>,
    /// All details of the failure.
    pub detail: LenientText<'a>,
    /// Whether the run succeeded.
    pub ok: bool,
    /// The details of the failure, as a list.
    pub errors: Option<&'a RawValue>,
    /// The backend's payload of the object, as JSON.
    #[serde(skip)]
    pub payload: Option<&'a [u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::domain::event::{Step, StreamEnd};
    use crate::core::domain::figures::ResultSummary;
    use crate::core::wire::sse::encoder::SseEncoder;

    #[test]
    fn a_payload_is_the_last_field_of_its_step_and_is_stored_alone() {
        let payload: Box<RawValue> = serde_json::from_str("{ \"name\": \"caf\u{e9}\" }").unwrap();
        let step = Step { payload: Some(&payload), ..Step::stage("device", StepStatus::Progress, "m") };
        let (_, frame) = SseEncoder::start(&step);
        let plain = r#"{"step": "device", "status": "progress", "message": "m", "rowid": null"#;
        let payload = r#"{"name":"caf\u00e9"}"#;
        assert_eq!(frame.bytes, format!("event: step\ndata: {plain}}}\n\n"));
        assert_eq!(frame.payload.as_deref(), Some(payload.as_bytes()));
        assert_eq!(frame.with_payload(), format!("event: step\ndata: {plain}, \"payload\": {payload}}}\n\n"));
        assert_eq!(frame.without_payload().with_payload(), frame.bytes);
        assert_eq!(frame.decode().unwrap().payload, Some(payload.as_bytes()));
    }

    #[test]
    fn a_complete_with_its_payload_is_the_whole_one() {
        let (stream, _) = SseEncoder::start(&Step::stage("devices", StepStatus::Started, "m"));
        let numbers = (0..100).map(|number| (format!("number{number}"), number)).collect();
        let [frame] = &stream.finish(StreamEnd {
            message: "Done.".to_owned(),
            summary: ResultSummary { numbers, ..ResultSummary::default() },
            ..StreamEnd::default()
        })[..] else {
            panic!("one frame")
        };
        let whole = frame.with_payload();
        assert!(!frame.bytes.windows(8).any(|text| text == b"number99") && frame.bytes.len() < whole.len());
        let end = b"\"number99\": 99, \"objects\": {}}}\n\n";
        assert!(whole.starts_with(b"event: complete\ndata: {\"ok\": true, ") && whole.ends_with(end));
        let data = frame.decode().unwrap();
        assert_eq!((data.ok, data.message.or_empty(), data.payload), (true, "Done.", None));
    }
}
