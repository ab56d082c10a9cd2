//! Frames by what they are, for those who count them.

use super::sse::encoder::FrameName;

/// What a frame is, whichever way it goes and whatever its wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Something has come further.
    Step,
    /// Something failed as a whole.
    Error,
    /// A stage or a run has ended.
    Complete,
    /// Anything else: greetings, echoes, and what only newer backends say.
    Other,
}

impl FrameType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Step, Self::Error, Self::Complete, Self::Other];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Error => "error",
            Self::Complete => "complete",
            Self::Other => "other",
        }
    }

    /// The type of an event of the backend's stream that has this name.
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

/// How many frames there were of each type, in the order of [`FrameType::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts([u64; FrameType::ALL.len()]);

impl FrameCounts {
    /// One more of this type.
    pub fn count(&mut self, frame: FrameType) {
        self.0[frame as usize] += 1;
    }

    /// How many of this type.
    pub fn get(&self, frame: FrameType) -> u64 {
        self.0[frame as usize]
    }

    /// How many of all types.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What has come since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (now, then) in since.0.iter_mut().zip(earlier.0) {
            *now = now.saturating_sub(then);
        }
        since
    }
}
