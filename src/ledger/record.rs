//! What is recorded of a job.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use uuid::Uuid;

use crate::core::domain::counts::Counts;
use crate::core::domain::event::Failure;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, FailedObject, Outcome};

/// The name of a job: a UUID of version 7, so that names sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Uuid);

impl JobId {
    /// A name that no other job has.
    #[allow(clippy::new_without_default, reason = "a default is always the same, and this never is")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not the name of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a job: a UUID is wanted")]
pub struct InvalidJobId;

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        text.parse().map(Self).map_err(|_| InvalidJobId)
    }
}

/// A moment, in whole milliseconds since the beginning of 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// What the clock of the system says.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long it is since `earlier`; nothing if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// In seconds since 1970.
    pub fn seconds(self) -> f64 {
        Duration::from_millis(self.0).as_secs_f64()
    }

    /// This moment, and a length of time more.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This moment, less a length of time.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The last millisecond of the year 9999, the last year that RFC 3339 has.
const MAX_MILLIS: u64 = 253_402_300_799_999;

/// RFC 3339, in UTC: `2026-11-24T15:16:46.123Z`. A later year than 9999 is shown as the end of that year.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = UNIX_EPOCH + Duration::from_millis(self.0.min(MAX_MILLIS));
        humantime::format_rfc3339_millis(at).fmt(f)
    }
}

/// Who asked for a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// A short fingerprint of the credential; it means nothing outside this ledger.
    pub fingerprint: Option<String>,
    /// The address that the request came from.
    pub address: Option<String>,
    /// What the client said in `X-Proxbox-LedgerWriter`.
    pub actor: Option<String>,
}

/// Everything that is recorded of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub id: JobId,
    /// Its backend.
    pub backend: String,
    /// What it synchronises.
    pub kind: Kind,
    /// The one virtual machine that it is about, if it is about one.
    pub vm: Option<u64>,
    /// How it drives the backend: the channels of its legs, each once. Empty until that is known.
    pub channels: Vec<String>,
    /// The dialect of the backend's `/ws`, if it is known.
    pub dialect: Option<String>,
    /// The query that the backend gets.
    pub query: String,
    /// Who asked for it.
    pub requester: Requester,
    /// When it was asked for.
    pub queued: Timestamp,
    /// When it began to drive the backend.
    pub started: Option<Timestamp>,
    /// How far it has come.
    pub progress: JobProgress,
    /// For how long its backend may be at work on it. None if nothing was begun there, or its end is known.
    pub cooldown: Option<Cooldown>,
    /// How it ended.
    pub end: Option<JobEnd>,
}

impl Record {
    /// The record of a new job of `kind` on `backend`, which was asked for at `queued` by nobody in particular.
    pub fn new(backend: String, kind: Kind, queued: Timestamp) -> Self {
        Self {
            id: JobId::new(),
            backend,
            kind,
            vm: None,
            channels: Vec::new(),
            dialect: None,
            query: String::new(),
            requester: Requester::default(),
            queued,
            started: None,
            progress: JobProgress::default(),
            cooldown: None,
            end: None,
        }
    }
}

/// For how long the backend of a job may be at work on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cooldown {
    /// The least time after the bridge let go of the backend; zero when the job has ended, and `until` counts
    /// alone.
    pub least: Duration,
    /// Until when, as far as it was known when this was written.
    pub until: Timestamp,
}

impl Cooldown {
    /// Until when the backend may be at work if the bridge lets go of it at `now`.
    pub fn ends(self, now: Timestamp) -> Timestamp {
        self.until.max(now.after(self.least))
    }
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// When this was so.
    pub updated: Option<Timestamp>,
    /// From the start to the backend's first event.
    pub first_frame: Option<Duration>,
    /// What became of its objects so far.
    pub counts: Counts,
    /// Events and frames that came from the backend.
    pub frames_in: u64,
    /// Bytes of the streams and frames that came from the backend.
    pub bytes_in: u64,
    /// Events that were written for readers.
    pub frames_out: u64,
    /// Bytes of these.
    pub bytes_out: u64,
    /// The most clients that watched it at once.
    pub watchers: u64,
    /// How often a client came to a job that was there already.
    pub attaches: u64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// When.
    pub finished: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Why, if it did not complete.
    pub cause: Option<Cause>,
    /// What was said about it, if it failed.
    pub failure: Option<Failure>,
    /// The first and the last objects that failed.
    pub failed_objects: Vec<FailedObject>,
}

/// One frame of a job, as it was written for readers, without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFrame {
    /// Its number in the log of the job; the first one has 1.
    pub sequence: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Its bytes, the blank line at the end included.
    pub bytes: Bytes,
}

/// What is written about a job at one time.
#[derive(Clone, Debug)]
pub struct JobUpdate {
    /// The whole record as it is now.
    pub record: Record,
    /// The frames that are new since the last time.
    pub frames: Vec<StoredFrame>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_in_seconds_and_moved_both_ways() {
        let moment = Timestamp(2_500);
        assert!((moment.seconds() - 2.5).abs() < f64::EPSILON);
        let [second, hour] = [1, 3600].map(Duration::from_secs);
        assert_eq!((moment.after(second), moment.before(second)), (Timestamp(3_500), Timestamp(1_500)));
        assert_eq!(moment.before(hour), Timestamp(0));
    }
}
