//! Outcomes and causes of runs.

use serde::{Deserialize, Serialize};

use super::event::Failure;
use crate::core::domain::counts::Counts;
use crate::core::domain::object::Object;
use crate::core::text::redact::Redactor;
use crate::core::text::string_enum::string_enum;

string_enum! {
    /// How a run ended.
    pub enum Outcome {
        /// It succeeded.
        Completed = "completed",
        /// It failed.
        Errored = "errored",
        /// A client or an operator cancelled it.
        Cancelled = "cancelled",
        /// It exceeded a time limit.
        TimedOut = "timed_out",
        /// The bridge terminated during the run.
        Interrupted = "interrupted",
    }
}

string_enum! {
    /// Why a run did not complete.
    pub enum Cause {
        /// The backend reported a failure.
        BackendFailed = "backend_failed",
        /// Objects failed, and the operator's policy makes that a failure.
        ObjectsFailed = "objects_failed",
        /// The backend disconnected before its terminal event.
        BackendLost = "backend_lost",
        /// The backend's terminal event was invalid.
        BackendNonsense = "backend_nonsense",
        /// The backend could not be reached.
        Unreachable = "unreachable",
        /// The backend rejected the API key, or requires one.
        KeyRefused = "key_refused",
        /// The backend refused the request.
        Refused = "refused",
        /// The backend does not support the sync.
        Unsupported = "unsupported",
        /// The backend was silent for too long.
        Idle = "idle",
        /// The run exceeded its maximum duration.
        Total = "total",
        /// The bridge was shut down.
        Stopping = "stopping",
        /// The last client disconnected.
        ClientGone = "client_gone",
        /// It was cancelled on request.
        CancelRequested = "cancel_requested",
        /// The queue was full, or the same sync was running.
        Busy = "busy",
        /// It could not be recorded.
        Unrecorded = "unrecorded",
        /// The bridge terminated without recording the end of the run.
        Crashed = "crashed",
    }
}

string_enum! {
    /// Which side caused the failure.
    pub enum ErrorSource {
        /// The backend.
        Backend = "backend",
        /// The client.
        Client = "client",
        /// The bridge.
        Bridge = "bridge",
    }
}

impl Cause {
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
        let failed = self.failed_objects.iter_mut();
        redactor.redact(failed.flat_map(|FailedObject { object, error }| [object, error]));
    }
}

/// A failed object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedObject {
    /// Its type and name.
    pub object: String,
    /// The error.
    pub error: String,
}

/// The failure of one object, or of several that the backend does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFailure {
    /// The type of the object.
    pub object: Object,
    /// The name of the object. Empty if the backend does not name it.
    pub name: String,
    /// Its cluster, if the backend reports it.
    pub cluster: Option<String>,
    /// The node or virtual machine that it belongs to, if the backend reports it.
    pub owner: Option<String>,
    /// The number of objects. Above 1 only for unnamed ones.
    pub count: u64,
    /// The error.
    pub error: String,
}

impl ObjectFailure {
    /// Redacts the secrets that `redactor` knows.
    pub fn redact(&mut self, redactor: &Redactor) {
        let Self { object: _, name, cluster, owner, count: _, error } = self;
        redactor.redact([name, error].into_iter().chain(cluster).chain(owner));
    }

    /// A failed device, for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let (name, error) = ("pve1".to_owned(), "boom".to_owned());
        Self { object: Object::Device, name, cluster: None, owner: None, count: 1, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_name_parses() {
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
        let (cluster, owner) = (Some(text()), Some(text()));
        let mut failure =
            ObjectFailure { name: text(), cluster, owner, error: text(), ..ObjectFailure::example() };
        failure.redact(&Redactor::new(["s3cret-key"]));
        assert!(!format!("{failure:?}").contains("s3cret"), "{failure:?}");
    }
}
