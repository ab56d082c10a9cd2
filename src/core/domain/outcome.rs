//! Outcomes and causes of runs.

use super::event::Failure;
use crate::core::domain::counts::Counts;
use crate::core::text::redact::Redactor;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It succeeded.
    Completed,
    /// It failed.
    Errored,
    /// A client or an operator cancelled it.
    Cancelled,
    /// It exceeded a time limit.
    TimedOut,
    /// The bridge terminated during the run.
    Interrupted,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::Errored, Self::Cancelled, Self::TimedOut, Self::Interrupted];

    /// The name of the outcome in logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Errored => "errored",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }

    /// The outcome with this name in logs and records.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// Why a run did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The backend reported a failure.
    BackendFailed,
    /// Objects failed, and the operator's policy makes that a failure.
    ObjectsFailed,
    /// The backend disconnected before its terminal event.
    BackendLost,
    /// The backend's terminal event was invalid.
    BackendNonsense,
    /// The backend could not be reached.
    Unreachable,
    /// The backend rejected the API key, or requires one.
    KeyRefused,
    /// The backend refused the request.
    Refused,
    /// The backend does not support the sync.
    Unsupported,
    /// The backend was silent for too long.
    Idle,
    /// The run exceeded its maximum duration.
    Total,
    /// The bridge was shut down.
    Stopping,
    /// The last client disconnected.
    ClientGone,
    /// It was cancelled on request.
    CancelRequested,
    /// The queue was full, or the same sync was running.
    Busy,
    /// It could not be recorded.
    Unrecorded,
    /// The bridge terminated without recording the end of the run.
    Crashed,
}

/// Which side caused the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorSource {
    /// The backend.
    Backend,
    /// The client.
    Client,
    /// The bridge.
    Bridge,
}

impl Cause {
    /// All causes.
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

    /// The name of the cause in logs and records.
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

    /// The cause with this name in logs and records.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// Which side the cause is attributed to.
    pub const fn source(self) -> ErrorSource {
        match self {
            Self::KeyRefused | Self::ClientGone | Self::CancelRequested => ErrorSource::Client,
            Self::Stopping | Self::Busy | Self::Unrecorded | Self::Crashed => ErrorSource::Bridge,
            _ => ErrorSource::Backend,
        }
    }

    /// The outcome of a run with this cause.
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
    /// The name of the source in logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Client => "client",
            Self::Bridge => "bridge",
        }
    }
}

/// The final report of a run.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The outcome.
    pub outcome: Outcome,
    /// The cause, if it did not complete.
    pub cause: Option<Cause>,
    /// The failure, if it failed.
    pub failure: Option<Failure>,
    /// The counts of its objects.
    pub counts: Counts,
    /// The first and the last failed objects, without those that completed later.
    pub failed_objects: Vec<FailedObject>,
    /// Events that produced no step.
    pub dropped: u64,
    /// Events that could not be parsed.
    pub unreadable: u64,
}

impl RunReport {
    /// Redacts the secrets that `redactor` knows.
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

/// A failed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedObject {
    /// Its type and name.
    pub object: String,
    /// The error.
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

    #[test]
    fn every_cause_is_of_the_backend_but_for_those_of_clients_and_of_the_bridge() {
        for cause in Cause::ALL {
            let source = match cause {
                Cause::KeyRefused | Cause::ClientGone | Cause::CancelRequested => ErrorSource::Client,
                Cause::Stopping | Cause::Busy | Cause::Unrecorded | Cause::Crashed => ErrorSource::Bridge,
                _ => ErrorSource::Backend,
            };
            assert_eq!(cause.source(), source, "{cause:?}");
        }
    }

    #[test]
    fn no_text_of_a_report_holds_a_secret() {
        let text = || "not with s3cret-key".to_owned();
        let mut report = RunReport {
            outcome: Outcome::Errored,
            cause: None,
            failure: Some(Failure { step: text(), error: text(), detail: text() }),
            counts: Counts::default(),
            failed_objects: vec![FailedObject { object: text(), error: text() }],
            dropped: 0,
            unreadable: 0,
        };
        report.redact(&Redactor::new(["s3cret-key"]));
        assert!(!format!("{report:?}").contains("s3cret"), "{report:?}");
    }
}
