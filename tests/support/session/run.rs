//! A finished run: its stream and its report.

use proxbox_bridge::core::domain::outcome::RunReport;
use serde_json::Value;

use super::stream::{self, Event};

/// A whole stream that keeps the contract, and the report behind it.
pub struct FinishedRun {
    pub events: Vec<Event>,
    pub report: RunReport,
}

impl FinishedRun {
    /// Reads `bytes`. Panics if they break the contract or contradict the report.
    pub fn read(bytes: &[u8], report: RunReport) -> Self {
        let run = Self { events: stream::read(bytes), report };
        assert_eq!(run.is_ok(), run.report.cause.is_none(), "the stream and the report disagree");
        assert_eq!(run.is_ok(), run.report.failure.is_none(), "the stream and the report disagree");
        run
    }

    pub fn complete(&self) -> &Value {
        &self.events.last().expect("a stream has events").data
    }

    pub fn is_ok(&self) -> bool {
        self.complete()["ok"] == Value::Bool(true)
    }

    /// The message of `complete`.
    pub fn message(&self) -> &str {
        self.complete()["message"].as_str().unwrap_or_default()
    }

    /// The `error` event of a run that failed.
    pub fn error(&self) -> &Event {
        self.events.iter().find(|event| event.name == "error").expect("the run failed")
    }

    /// The detail of a run that failed, which is the same in both of its last events.
    pub fn detail(&self) -> &str {
        let detail = self.error().text("detail");
        assert_eq!(self.complete()["errors"][0]["detail"], detail);
        detail
    }

    pub fn steps(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.name == "step")
    }

    /// The messages of all steps.
    pub fn messages(&self) -> Vec<&str> {
        self.steps().map(|step| step.text("message")).collect()
    }

    /// Whether a step has `message`.
    pub fn has_message(&self, message: &str) -> bool {
        self.messages().contains(&message)
    }

    /// The `step`, `rowid` and `error` of the steps that failed.
    pub fn failed_steps(&self) -> Vec<(&str, &str, &str)> {
        self.steps()
            .filter(|step| step.text("status") == "failed")
            .map(|step| (step.text("step"), step.text("rowid"), step.text("error")))
            .collect()
    }

    /// Seen, completed, failed and unconfirmed objects of a type.
    pub fn objects(&self, object: &str) -> Option<[u64; 4]> {
        let counts = self.report.counts.0.iter();
        let mut of_sort = counts.filter(|(known, _)| known.as_str() == object);
        of_sort.next().map(|(_, count)| [count.seen, count.completed, count.failed, count.unconfirmed])
    }
}
