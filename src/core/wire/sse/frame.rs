//! The frames of a job's log.

use bytes::Bytes;

use crate::core::domain::event::StepStatus;

/// The type of a frame.
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

impl FrameName {
    /// All names.
    pub const ALL: [Self; 7] = [
        Self::Step(StepStatus::Started),
        Self::Step(StepStatus::Progress),
        Self::Step(StepStatus::Completed),
        Self::Step(StepStatus::Failed),
        Self::Error,
        Self::Complete,
        Self::Extra,
    ];

    /// The name in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Step(status) => status.as_str(),
            Self::Error => "error",
            Self::Complete => "complete",
            Self::Extra => "extra",
        }
    }

    /// The frame type with this name in the ledger.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|frame| frame.as_str() == name)
    }
}

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

    /// The encoded event with its payload, if it has one.
    pub fn with_payload(&self) -> Bytes {
        let Some(payload) = &self.payload else { return self.bytes.clone() };
        if self.name == FrameName::Complete {
            return [b"event: complete\ndata: ", &payload[..], b"\n\n"].concat().into();
        }
        let step = self.bytes.strip_suffix(b"}\n\n").unwrap_or(&self.bytes);
        [step, b", \"payload\": ", payload, b"}\n\n"].concat().into()
    }

    /// The data of the encoded event, as JSON.
    pub(super) fn data(&self) -> &[u8] {
        let lines = self.bytes.strip_suffix(b"\n\n").unwrap_or(&self.bytes);
        let data = lines.splitn(2, |byte| *byte == b'\n').nth(1);
        data.and_then(|line| line.strip_prefix(b"data: ")).unwrap_or_default()
    }
}
