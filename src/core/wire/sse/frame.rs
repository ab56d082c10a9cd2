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

/// An encoded event, including its blank line.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The type of the event.
    pub name: FrameName,
    /// The encoded event, short enough for every client.
    pub bytes: Bytes,
    /// The event with the parts that exceed R13, if they were kept: the backend's payload of an object, or the full
    /// result.
    pub with_payload: Option<Bytes>,
}
