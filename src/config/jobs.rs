//! What becomes of jobs that nobody watches or that cannot be recorded, and what is kept of them.

use super::draft::Draft;
use crate::core::run::policy::UnknownWord;
use crate::core::text::words::words;

/// The table `[jobs]`.
///
/// Bounds and defaults stand in the table of keys ([`super::keys`]); `Jobs::default()` is those defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// What becomes of a job whose last client has gone.
    pub on_disconnect: OnDisconnect,
    /// What becomes of new jobs while the record of jobs cannot be written. Nothing said is to go on with them, if the
    /// record could be written before.
    pub without_ledger: Option<WithoutLedger>,
    /// Whether the raw frames of the backend are kept in `data_dir/recordings`, for
    /// `/jobs/{id}/recording`. There is a data directory if they are.
    pub recording: bool,
    /// How many of the last frames of a job the record keeps.
    pub log_frames: usize,
}

impl Jobs {
    /// What the defaults are written over.
    pub(super) const BLANK: Self =
        Self { on_disconnect: OnDisconnect::Grace, without_ledger: None, recording: false, log_frames: 0 };
}

impl Default for Jobs {
    fn default() -> Self {
        Draft::default().jobs
    }
}

/// What becomes of a job whose last client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDisconnect {
    /// It goes on for `limits.detach_grace` and is then cancelled.
    #[default]
    Grace,
    /// It goes on to its end.
    Continue,
    /// It is cancelled at once.
    Cancel,
}

words!(OnDisconnect or UnknownWord(&OnDisconnect::WORDS) {
    Grace => "grace",
    Continue => "continue",
    Cancel => "cancel",
});

/// What becomes of new jobs while the record of jobs cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WithoutLedger {
    /// They run without a record until it can be, also if it never could be.
    Continue,
    /// They are refused with status 503.
    Refuse,
}

words!(WithoutLedger or UnknownWord(&WithoutLedger::WORDS) { Continue => "continue", Refuse => "refuse" });
