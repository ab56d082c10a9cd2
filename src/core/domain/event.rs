//! The three event types of a stream.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::figures::ResultSummary;
use crate::core::domain::counts::Counts;
use crate::core::text::redact::Redactor;
use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The `status` of a step.
    pub enum StepStatus {
        /// A stage began.
        Started = "started",
        /// Work is in progress, or there is information for people.
        Progress = "progress",
        /// An object or a stage completed.
        Completed = "completed",
        /// One object failed while the run continues (R9).
        Failed = "failed",
    }
}

/// `event: step`.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    /// The stage or object type.
    pub step: Cow<'a, str>,
    /// The status of the stage or object.
    pub status: StepStatus,
    /// The event as a sentence.
    pub message: Cow<'a, str>,
    /// The name of the object, if the step is about one.
    pub rowid: Option<Cow<'a, str>>,
    /// The error, if it failed.
    pub error: Option<Cow<'a, str>>,
    /// The backend's own payload, for clients that requested it.
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

/// The end of a stream: the content of `error` and `complete`.
#[derive(Clone, Debug, Default)]
pub struct StreamEnd {
    /// `complete.message`.
    pub message: String,
    /// The counts of objects.
    pub counts: Counts,
    /// Numbers and warnings from the backend's own result.
    pub summary: ResultSummary,
    /// The failure of the run. `None` is success.
    pub failure: Option<Failure>,
}

impl StreamEnd {
    /// Redacts the secrets that `redactor` knows.
    pub fn redact(&mut self, redactor: &Redactor) {
        let numbers = self.summary.numbers.iter_mut().map(|(name, _)| name);
        redactor.redact(numbers.chain(&mut self.summary.warnings).chain([&mut self.message]));
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
    /// The failure as a sentence.
    pub error: String,
    /// All details.
    pub detail: String,
}

impl Failure {
    /// A failure of the stage `step` without further details.
    pub fn new(step: &str, error: String) -> Self {
        Self { step: step.to_owned(), detail: error.clone(), error }
    }

    /// Redacts the secrets that `redactor` knows.
    pub fn redact(&mut self, redactor: &Redactor) {
        redactor.redact([&mut self.step, &mut self.error, &mut self.detail]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::text::redact::HIDDEN;

    #[test]
    fn no_text_of_an_end_holds_a_secret() {
        let text = || "not with s3cret-key".to_owned();
        let failure = Failure { step: text(), error: text(), detail: text() };
        let summary =
            ResultSummary { numbers: vec![(text(), 1)], warnings: vec![text()], ..ResultSummary::default() };
        let mut verdict =
            StreamEnd { message: text(), summary, failure: Some(failure), ..StreamEnd::default() };
        verdict.redact(&Redactor::new(["s3cret-key"]));
        let texts = format!("{verdict:?}");
        assert_eq!((texts.matches(HIDDEN).count(), texts.matches("s3cret").count()), (6, 0), "{texts}");
    }
}
