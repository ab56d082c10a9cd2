//! The log of a job in NetBox's format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ledger::Timestamp;

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

/// The fields of an event that the log uses.
#[derive(Deserialize)]
struct EventFields {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    ok: bool,
}

/// The log entries of `frames`. Events of the backend's own types are skipped.
pub(super) fn entries<'a>(frames: impl Iterator<Item = (Timestamp, &'a Bytes)>) -> Vec<LogEntry> {
    frames
        .filter_map(|(at, bytes)| {
            let (level, message) = parse_frame(std::str::from_utf8(bytes).ok()?)?;
            Some(LogEntry { timestamp: at.to_string(), level, message })
        })
        .collect()
}

fn parse_frame(frame: &str) -> Option<(Level, String)> {
    let (name, data) = frame.strip_prefix("event: ")?.split_once("\ndata: ")?;
    if !matches!(name, "step" | "error" | "complete") {
        return None;
    }
    let EventFields { status, message, error, ok } = serde_json::from_str(data).ok()?;
    Some(match (name, status.as_str()) {
        ("error", _) => (Level::Failure, error),
        ("complete", _) if ok => (Level::Success, message),
        ("complete", _) => (Level::Failure, message),
        (_, "failed") if message.contains(&error) => (Level::Warning, message),
        (_, "failed") => (Level::Warning, format!("{message}: {error}")),
        (_, "completed") => (Level::Success, message),
        _ => (Level::Info, message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_level_and_what_it_says() {
        let step = |status: &str| {
            format!(
                "event: step\ndata: {{\"step\": \"devices\", \"status\": \"{status}\", \"message\": \"A\", \"error\": \"B\"}}\n\n"
            )
        };
        let error = "event: error\ndata: {\"error\": \"B\", \"detail\": \"C\"}\n\n";
        let complete = |ok| format!("event: complete\ndata: {{\"ok\": {ok}, \"message\": \"A\"}}\n\n");
        for (frame, level, message) in [
            (step("started"), Level::Info, "A"),
            (step("progress"), Level::Info, "A"),
            (step("completed"), Level::Success, "A"),
            (step("failed"), Level::Warning, "A: B"),
            (error.to_owned(), Level::Failure, "B"),
            (complete(true), Level::Success, "A"),
            (complete(false), Level::Failure, "A"),
        ] {
            assert_eq!(parse_frame(&frame), Some((level, message.to_owned())), "{frame}");
        }
        for frame in ["event: discovery\ndata: {}\n\n", "event: step\ndata: [\n\n", ": keepalive\n\n", ""] {
            assert_eq!(parse_frame(frame), None, "{frame}");
        }
    }
}
