//! One recorded exchange of HTTP or of a WebSocket.

use crate::recording::Recording;

/// A recording with its name.
#[derive(Clone, Debug)]
pub(super) struct RecordedExchange {
    pub(super) name: String,
    /// Whether it was selected by name.
    pub(super) chosen: bool,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) recording: Recording,
}
