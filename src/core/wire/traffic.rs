//! Frame types and counts for metrics.

use super::sse::encoder::FrameName;

/// The type of a frame, in either direction and in any wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Progress.
    Step,
    /// A failure of a stage or run.
    Error,
    /// The end of a stage or run.
    Complete,
    /// Any other frame: greetings, echoes, and event types of newer backends.
    Other,
}

impl FrameType {
    /// All types.
    pub const ALL: [Self; 4] = [Self::Step, Self::Error, Self::Complete, Self::Other];

    /// The name of the type in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Error => "error",
            Self::Complete => "complete",
            Self::Other => "other",
        }
    }

    /// The type of a backend's event with this name.
    pub fn from_event(name: &[u8]) -> Self {
        match name {
            b"step" => Self::Step,
            b"error" => Self::Error,
            b"complete" => Self::Complete,
            _ => Self::Other,
        }
    }
}

impl From<FrameName> for FrameType {
    fn from(name: FrameName) -> Self {
        match name {
            FrameName::Step(_) => Self::Step,
            FrameName::Error => Self::Error,
            FrameName::Complete => Self::Complete,
            FrameName::Extra => Self::Other,
        }
    }
}

/// The number of frames per type, in the order of [`FrameType::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts([u64; FrameType::ALL.len()]);

impl FrameCounts {
    /// Adds one frame of this type.
    pub fn count(&mut self, frame: FrameType) {
        self.0[frame as usize] += 1;
    }

    /// The number of frames of this type.
    pub fn get(&self, frame: FrameType) -> u64 {
        self.0[frame as usize]
    }

    /// The number of frames of all types.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The frames counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (now, then) in since.0.iter_mut().zip(earlier.0) {
            *now = now.saturating_sub(then);
        }
        since
    }
}
