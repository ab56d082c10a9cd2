//! The record of a job.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::core::domain::channel::Channel;
use crate::core::domain::counts::Counts;
use crate::core::domain::event::Failure;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, FailedObject, ObjectFailure, Outcome};
use crate::core::http::url::BackendUrl;
use crate::core::upstream::dialect::Dialect;
use crate::core::wire::sse::frame::Frame;
use crate::core::wire::traffic::FrameType;

/// The id of a job: a UUID of version 7, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Uuid);

impl JobId {
    /// Creates a unique id.
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

/// A text that is not the id of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a job: expected a UUID")]
pub struct InvalidJobId;

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        text.parse().map(Self).map_err(|_| InvalidJobId)
    }
}

/// A time, in whole milliseconds since the beginning of 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The current time of the system clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The duration since `earlier`, or zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The time as databases store it. A time out of range is clamped, which preserves the order.
    pub(super) fn to_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The time that a database has stored. A bridge stores no time before 1970.
    pub(super) fn from_i64(at: i64) -> Self {
        Self(u64::try_from(at).unwrap_or_default())
    }

    /// The time in seconds since 1970.
    pub fn seconds(self) -> f64 {
        Duration::from_millis(self.0).as_secs_f64()
    }

    /// This time plus a duration.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This time minus a duration.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The last millisecond of the year 9999, the last year in RFC 3339.
const MAX_MILLIS: u64 = 253_402_300_799_999;

/// RFC 3339, in UTC: `2026-11-24T15:16:46.123Z`. Years after 9999 are shown as the end of 9999.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = UNIX_EPOCH + Duration::from_millis(self.0.min(MAX_MILLIS));
        humantime::format_rfc3339_millis(at).fmt(f)
    }
}

/// The client that requested a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// A short fingerprint of the credential, meaningless outside this ledger.
    pub fingerprint: Option<String>,
    /// The address of the client.
    pub address: Option<String>,
    /// The actor from the header `X-Proxbox-Actor`.
    pub actor: Option<String>,
}

/// A value in a record. A ledger may hold values of another release, which are kept as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<T> {
    /// A value of this release.
    Known(T),
    /// The text of any other value.
    Unknown(String),
}

impl<T> Stored<T> {
    /// The value, if this release knows it.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T: FromStr + fmt::Display> From<String> for Stored<T> {
    fn from(text: String) -> Self {
        match text.parse::<T>() {
            Ok(value) if value.to_string() == text => Self::Known(value),
            _ => Self::Unknown(text),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unknown(text) => text.fmt(f),
        }
    }
}

impl<T: fmt::Display> Serialize for Stored<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The record of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: JobId,
    /// The URL of its backend.
    pub backend: Stored<BackendUrl>,
    /// The kind of object that it synchronises.
    pub kind: Kind,
    /// The id of the virtual machine, for a sync of a single one.
    pub vm: Option<u64>,
    /// The channels of its legs, each once. Empty until they are known.
    pub channels: Vec<Stored<Channel>>,
    /// The dialect of the backend's `/ws`, if known.
    pub dialect: Option<Stored<Dialect>>,
    /// The query sent to the backend.
    pub query: String,
    /// The client that requested it.
    pub requester: Requester,
    /// When it was requested.
    pub queued: Timestamp,
    /// When it began to drive the backend.
    pub started: Option<Timestamp>,
    /// Its progress.
    pub progress: JobProgress,
    /// How long its backend may still run it. `None` if no work was begun there, or the work is known to have ended.
    pub cooldown: Option<Cooldown>,
    /// The user who cancelled it, if a user did.
    pub cancelled_by: Option<String>,
    /// How it ended.
    pub end: Option<JobEnd>,
}

impl Record {
    /// Creates the record of a new job of `kind` on `backend`, queued at `queued`, without a requester.
    pub fn new(backend: BackendUrl, kind: Kind, queued: Timestamp) -> Self {
        Self {
            id: JobId::new(),
            backend: Stored::Known(backend),
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
            cancelled_by: None,
            end: None,
        }
    }
}

/// How long the backend of a job may still run it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cooldown {
    /// The minimum time after the bridge has dropped its connection to the backend. Zero when the job has ended; only
    /// `until` applies then.
    pub least: Duration,
    /// The end, as known when this was written.
    pub until: Timestamp,
}

impl Cooldown {
    /// The end of the work if the bridge drops its connection to the backend at `now`.
    pub fn ends(self, now: Timestamp) -> Timestamp {
        self.until.max(now.after(self.least))
    }
}

/// The progress of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// When it was updated.
    pub updated: Option<Timestamp>,
    /// The time from the start to the backend's first event.
    pub first_frame: Option<Duration>,
    /// The counts of its objects so far.
    pub counts: Counts,
    /// Failed objects that the ledger does not have: over `jobs.failed_objects`, or of an earlier ledger.
    pub failed_left_out: u64,
    /// Events and frames received from the backend.
    pub frames_in: u64,
    /// Bytes of the streams and frames received from the backend.
    pub bytes_in: u64,
    /// Events written for readers.
    pub frames_out: u64,
    /// Bytes written for readers.
    pub bytes_out: u64,
    /// The highest number of clients that watched it at one time.
    pub watchers: u64,
    /// How often a client attached to the existing job.
    pub attaches: u64,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// When it ended.
    pub finished: Timestamp,
    /// Its outcome.
    pub outcome: Outcome,
    /// The cause, if it did not complete.
    pub cause: Option<Cause>,
    /// The failure, if it failed.
    pub failure: Option<Failure>,
    /// The first and the last objects that failed.
    pub failed_objects: Vec<FailedObject>,
}

/// How long a job took that started and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its kind.
    pub kind: Kind,
    /// The virtual machine, if it was for one.
    pub vm: Option<u64>,
    /// The time from its start to its end.
    pub duration: Duration,
}

/// One frame in the log of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedFrame {
    /// Its number; the first frame has 1.
    pub sequence: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The frame. The ledger stores no payload.
    pub frame: Frame,
}

impl LoggedFrame {
    /// The frame as the ledger stores it.
    #[must_use]
    pub fn without_payload(&self) -> Self {
        Self { frame: self.frame.without_payload(), ..*self }
    }
}

impl From<&LoggedFrame> for FrameType {
    fn from(logged: &LoggedFrame) -> Self {
        logged.frame.name.into()
    }
}

/// One failed object of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedFailure {
    /// Its number in the job; the first failure has 1.
    pub number: u64,
    /// When the backend reported it.
    pub at: Timestamp,
    /// The failure.
    pub failure: ObjectFailure,
}

impl LoggedFailure {
    /// Its approximate size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let ObjectFailure { name, cluster, owner, error, .. } = &self.failure;
        let texts = [Some(name), cluster.as_ref(), owner.as_ref(), Some(error)];
        size_of::<Self>() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// The failed objects of a job that have the same error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureGroup {
    /// The error.
    pub error: String,
    /// The number of objects.
    pub count: u64,
    /// The number of the first failure with this error.
    pub first: u64,
}

/// An update to the record of a job.
#[derive(Clone, Debug)]
pub struct JobUpdate {
    /// The whole current record.
    pub record: Record,
    /// The frames added since the last update.
    pub frames: Vec<LoggedFrame>,
    /// The objects that failed since the last update.
    pub failed: Vec<LoggedFailure>,
}

impl JobUpdate {
    /// Creates an update without failed objects.
    pub fn new(record: Record, frames: Vec<LoggedFrame>) -> Self {
        Self { record, frames, failed: Vec::new() }
    }
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

    #[test]
    fn a_failed_object_takes_as_much_memory_as_all_its_texts() {
        let failure = |text: &str| {
            let (name, error, text) = (text.to_owned(), text.to_owned(), Some(text.to_owned()));
            let failure =
                ObjectFailure { name, cluster: text.clone(), owner: text, error, ..ObjectFailure::example() };
            LoggedFailure { number: 1, at: Timestamp(1), failure }
        };
        let least = size_of::<LoggedFailure>();
        assert_eq!([failure(""), failure("abc")].map(|failure| failure.size()), [least, least + 12]);
    }

    #[test]
    fn a_stored_value_keeps_its_text_whatever_release_has_written_it() {
        for (text, is_known) in [("http://pve", true), ("HTTP://pve/", false), ("pve", false), ("", false)] {
            let stored = Stored::<BackendUrl>::from(text.to_owned());
            assert_eq!((stored.to_string().as_str(), stored.known().is_some()), (text, is_known));
        }
    }
}
