//! How runs end, and who is to blame.

use super::event::Failure;
use crate::core::domain::counts::Counts;
use crate::core::text::redact::Redactor;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did what was asked.
    Completed,
    /// It failed.
    Errored,
    /// A client or an operator ended it.
    Cancelled,
    /// A limit ended it.
    TimedOut,
    /// The bridge ended under it.
    Interrupted,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::Errored, Self::Cancelled, Self::TimedOut, Self::Interrupted];

    /// The word for it in logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Errored => "errored",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }

    /// The outcome that `word` stands for in logs and records.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// Why a run did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The backend said that it failed.
    BackendFailed,
    /// Objects failed, and the operator's policy calls that a failure.
    ObjectsFailed,
    /// The backend went away before its last word.
    BackendLost,
    /// The backend's last word made no sense.
    BackendNonsense,
    /// The backend could not be reached.
    Unreachable,
    /// The backend refused the key, or wanted one.
    KeyRefused,
    /// The backend refused the request.
    Refused,
    /// The backend has no way to do it.
    Unsupported,
    /// The backend was silent for too long.
    Idle,
    /// The run took too long.
    Total,
    /// The bridge was stopped.
    Stopping,
    /// Nobody watched it any more.
    ClientGone,
    /// It was cancelled by request.
    CancelRequested,
    /// Too many syncs waited already, or the same one ran.
    Busy,
    /// It could not be recorded.
    Unrecorded,
    /// The bridge ended in the middle, without a chance to say so.
    Crashed,
}

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorSource {
    /// The backend's.
    Backend,
    /// The client's.
    Client,
    /// Ours.
    Bridge,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 16] = [
        Self::BackendFailed,
        Self::ObjectsFailed,
        Self::BackendLost,
        Self::BackendNonsense,
        Self::Unreachable,
        Self::KeyRefused,
        Self::Refused,
        Self::Unsupported,
        Self::Idle,
        Self::Total,
        Self::Stopping,
        Self::ClientGone,
        Self::CancelRequested,
        Self::Busy,
        Self::Unrecorded,
        Self::Crashed,
    ];

    /// The word for it in logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BackendFailed => "backend_failed",
            Self::ObjectsFailed => "objects_failed",
            Self::BackendLost => "backend_lost",
            Self::BackendNonsense => "backend_nonsense",
            Self::Unreachable => "unreachable",
            Self::KeyRefused => "key_refused",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Stopping => "stopping",
            Self::ClientGone => "client_gone",
            Self::CancelRequested => "cancel_requested",
            Self::Busy => "busy",
            Self::Unrecorded => "unrecorded",
            Self::Crashed => "crashed",
        }
    }

    /// The cause that `word` stands for in logs and records.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// Whose doing it is.
    pub const fn source(self) -> ErrorSource {
        match self {
            Self::KeyRefused | Self::ClientGone | Self::CancelRequested => ErrorSource::Client,
            Self::Stopping | Self::Busy | Self::Unrecorded | Self::Crashed => ErrorSource::Bridge,
            _ => ErrorSource::Backend,
        }
    }

    /// The outcome of a run that ended for it.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Idle | Self::Total => Outcome::TimedOut,
            Self::Stopping | Self::Crashed => Outcome::Interrupted,
            Self::ClientGone | Self::CancelRequested => Outcome::Cancelled,
            _ => Outcome::Errored,
        }
    }
}

impl ErrorSource {
    /// The word for it in logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Client => "client",
            Self::Bridge => "bridge",
        }
    }
}

/// What is left of a run when it is over.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, if it did not complete.
    pub cause: Option<Cause>,
    /// What was said about it, if it failed.
    pub failure: Option<Failure>,
    /// What became of its objects.
    pub counts: Counts,
    /// The first and the last objects that failed, and did not complete after all.
    pub failed_objects: Vec<FailedObject>,
    /// Events that no reader needed.
    pub dropped: u64,
    /// Events that could not be read.
    pub unreadable: u64,
}

impl RunReport {
    /// Takes the secrets that `redactor` knows out of its texts.
    pub fn redact(&mut self, redactor: &Redactor) {
        if let Some(failure) = &mut self.failure {
            failure.redact(redactor);
        }
        for FailedObject { object, error } in &mut self.failed_objects {
            for text in [object, error] {
                *text = redactor.owned(std::mem::take(text));
            }
        }
    }
}

/// An object that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedObject {
    /// Its sort and its name.
    pub object: String,
    /// Why.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_record_is_understood_again() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_name(outcome.as_str()), Some(outcome));
        }
        for cause in Cause::ALL {
            assert_eq!(Cause::from_name(cause.as_str()), Some(cause));
        }
        assert_eq!((Outcome::from_name("done"), Cause::from_name("")), (None, None));
    }
}
