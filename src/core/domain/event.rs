//! The three events that a reader is given.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::figures::ResultSummary;
use crate::core::domain::counts::Counts;
use crate::core::text::redact::Redactor;

/// The `status` of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// A stage began.
    Started,
    /// Something is going on, or something is worth knowing.
    Progress,
    /// An object or a stage is done.
    Completed,
    /// One object failed inside a run that goes on (R9).
    Failed,
}

impl StepStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// `event: step`.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    /// The stage or the sort of object that this is about.
    pub step: Cow<'a, str>,
    /// What happened to it.
    pub status: StepStatus,
    /// The same in a sentence.
    pub message: Cow<'a, str>,
    /// The object, if it is about one.
    pub rowid: Option<Cow<'a, str>>,
    /// Why it failed, if it did.
    pub error: Option<Cow<'a, str>>,
    /// The backend's own account of it, for clients that asked.
    pub payload: Option<&'a RawValue>,
}

impl<'a> Step<'a> {
    /// A step about a stage.
    pub fn stage(
        step: impl Into<Cow<'a, str>>,
        status: StepStatus,
        message: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self { step: step.into(), status, message: message.into(), rowid: None, error: None, payload: None }
    }
}

/// How a stream ends: everything that `error` and `complete` say.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// `complete.message`.
    pub message: String,
    /// What was counted.
    pub counts: Counts,
    /// Numbers and warnings from the backend's own result.
    pub summary: ResultSummary,
    /// Why the run failed, if it did. `None` is success.
    pub failure: Option<Failure>,
}

impl StreamEnd {
    /// Takes the secrets that `redactor` knows out of everything that is written of it.
    pub fn redact(&mut self, redactor: &Redactor) {
        let numbers = self.summary.numbers.iter_mut().map(|(name, _)| name);
        for text in numbers.chain(&mut self.summary.warnings).chain([&mut self.message]) {
            *text = redactor.owned(std::mem::take(text));
        }
        if let Some(failure) = &mut self.failure {
            failure.redact(redactor);
        }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The stage that failed.
    pub step: String,
    /// The failure in a sentence.
    pub error: String,
    /// All that is known of it.
    pub detail: String,
}

impl Failure {
    /// Takes the secrets that `redactor` knows out of it.
    pub fn redact(&mut self, redactor: &Redactor) {
        for text in [&mut self.step, &mut self.error, &mut self.detail] {
            *text = redactor.owned(std::mem::take(text));
        }
    }
}
