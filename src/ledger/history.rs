//! What outlives the records of jobs: the last success of each kind on each backend, and the last known capabilities of
//! each backend.

use super::record::{JobId, Record, Timestamp};
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;
use crate::core::http::url::BackendUrl;
use crate::core::run::capabilities::Capabilities;

/// The last sync of a kind that completed on a backend. Syncs of a single virtual machine and skipped syncs do not
/// count: they leave the rest of the inventory as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSuccess {
    /// Its job. The record of the job may have been removed since.
    pub job: JobId,
    /// When it ended.
    pub at: Timestamp,
    /// How many of its objects failed.
    pub failed: u64,
    /// How many of its objects the backend did not confirm.
    pub unconfirmed: u64,
}

impl LastSuccess {
    /// The success that `record` is, if it is one.
    pub fn from_record(record: &Record) -> Option<Self> {
        let end = record.end.as_ref().filter(|end| end.outcome == Outcome::Completed)?;
        let total = record.progress.counts.total();
        let Record { id: job, vm: None, started: Some(_), .. } = *record else { return None };
        Some(Self { job, at: end.finished, failed: total.failed, unconfirmed: total.unconfirmed })
    }
}

/// The capabilities of a backend when they were last detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectedCapabilities {
    /// When they were detected.
    pub at: Timestamp,
    /// The capabilities. Streams of single virtual machines are not stored.
    pub capabilities: Capabilities,
}

/// What the ledger knows of all backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHistory {
    /// The last success of each kind on each backend.
    pub successes: Vec<(BackendUrl, Kind, LastSuccess)>,
    /// The capabilities of each backend.
    pub capabilities: Vec<(BackendUrl, DetectedCapabilities)>,
}
