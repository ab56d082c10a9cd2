//! The log of a job in NetBox's format.

use serde::Serialize;

use crate::core::domain::event::StepStatus;
use crate::core::wire::sse::frame::{Frame, FrameName};
use crate::ledger::LoggedFrame;

/// One line of the log.
#[derive(Debug, Serialize)]
pub(super) struct LogEntry {
    timestamp: String,
    level: Level,
    message: String,
}

/// The log levels of NetBox's scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Progress.
    Info,
    /// An object, a stage or the job completed.
    Success,
    /// An object failed and the job continued.
    Warning,
    /// The job failed.
    Failure,
}

/// The log entries of `frames`. Events of the backend's own types are skipped.
pub(super) fn entries(frames: &[LoggedFrame]) -> Vec<LogEntry> {
    let entries = frames.iter().filter_map(|LoggedFrame { at, frame, .. }| {
        let (level, message) = entry(frame)?;
        Some(LogEntry { timestamp: at.to_string(), level, message })
    });
    entries.collect()
}

fn entry(frame: &Frame) -> Option<(Level, String)> {
    let data = frame.decode()?;
    let (message, error) = (data.message.or_empty(), data.error.or_empty());
    let (level, message) = match frame.name {
        FrameName::Extra => return None,
        FrameName::Error => (Level::Failure, error),
        FrameName::Complete if data.ok => (Level::Success, message),
        FrameName::Complete => (Level::Failure, message),
        FrameName::Step(StepStatus::Failed) if message.contains(error) => (Level::Warning, message),
        FrameName::Step(StepStatus::Failed) => return Some((Level::Warning, format!("{message}: {error}"))),
        FrameName::Step(StepStatus::Completed) => (Level::Success, message),
        FrameName::Step(StepStatus::Started | StepStatus::Progress) => (Level::Info, message),
    };
    Some((level, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_level_and_what_it_says() {
        let logged = |name, data: &str| {
            let bytes = format!("event: x\ndata: {data}\n\n").into();
            entry(&Frame { name, bytes, payload: None })
        };
        let step = r#"{"step": "devices", "status": "failed", "message": "A", "error": "B"}"#;
        let [started, progress, completed, failed] =
            [StepStatus::Started, StepStatus::Progress, StepStatus::Completed, StepStatus::Failed]
                .map(FrameName::Step);
        for (name, data, level, message) in [
            (started, step, Level::Info, "A"),
            (progress, step, Level::Info, "A"),
            (completed, step, Level::Success, "A"),
            (failed, step, Level::Warning, "A: B"),
            (FrameName::Error, r#"{"error": "B", "detail": "C"}"#, Level::Failure, "B"),
            (FrameName::Complete, r#"{"ok": true, "message": "A"}"#, Level::Success, "A"),
            (FrameName::Complete, r#"{"ok": false, "message": "A"}"#, Level::Failure, "A"),
        ] {
            assert_eq!(logged(name, data), Some((level, message.to_owned())), "{name:?} {data}");
        }
        for (name, data) in [(FrameName::Extra, "{}"), (started, "["), (started, "")] {
            assert_eq!(logged(name, data), None, "{name:?} {data}");
        }
    }
}
