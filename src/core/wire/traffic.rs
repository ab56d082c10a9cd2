//! Frame types and counts for metrics.

use super::sse::frame::FrameName;
use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The type of a frame, in either direction and in any wire format.
    pub enum FrameType {
        /// Progress.
        Step = "step",
        /// A failure of a stage or run.
        Error = "error",
        /// The end of a stage or run.
        Complete = "complete",
        /// Any other frame: greetings, echoes, and event types of newer backends.
        Other = "other",
    }
}

impl FrameType {
    /// The type of a backend's event with this name.
    pub fn from_event(name: &[u8]) -> Self {
        std::str::from_utf8(name).ok().and_then(Self::from_name).unwrap_or(Self::Other)
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
        Self(std::array::from_fn(|frame| self.0[frame].saturating_sub(earlier.0[frame])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_the_name_of_their_event() {
        let mut earlier = FrameCounts::default();
        earlier.count(FrameType::Step);
        let mut traffic = earlier;
        for name in ["step", "step", "error", "complete", "discovery"] {
            traffic.count(FrameType::from_event(name.as_bytes()));
        }
        let of = |traffic: &FrameCounts| {
            [FrameType::Step, FrameType::Error, FrameType::Complete, FrameType::Other]
                .map(|frame| traffic.get(frame))
        };
        assert_eq!((of(&traffic), traffic.total()), ([3, 1, 1, 1], 6));
        assert_eq!(of(&traffic.since(&earlier)), [2, 1, 1, 1]);
    }
}
