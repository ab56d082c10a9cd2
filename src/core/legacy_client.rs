//! Serves old plugin pages on `/ws`: rebuilds the frames that fill their tables from the log of the job that runs
//! their command.
//!
//! The pages' scripts define the format. A frame of a `device` or a `virtual_machine` sets every cell of one row, as
//! HTML. A missing key is shown as `undefined`, so a frame has all keys or is not sent. A frame with `completed:
//! false` increments a total and must be sent once per object. A frame with `completed: true` and `increment_count:
//! "yes"` increments the number of synced objects. The end of a stage re-enables its button. All other frames go to a
//! list of raw frames, which the oldest pages also render as HTML. Backend text is therefore never sent as markup,
//! except links to `http` and `https`.

mod command;
mod markup;
mod row;
mod rows;
mod stages;
#[cfg(test)]
mod tests;

use super::domain::event::StepStatus;
use super::domain::kind::{Kind, WsCommand};
use super::domain::object::Object;
use super::text::detail::{self, SENTENCE};
use super::text::plain;
use super::wire::sse::frame::{Frame, FrameData, FrameName};
use markup::ClientEnvelope;
use row::{Cells, LegacyFields, TableRow};
use rows::RowTracker;
use stages::StageTracker;

pub use command::{ClientCommand, parse_command, unknown_command_frames};

/// The greeting of every backend when its `/ws` is ready for a command.
pub const GREETING: [&str; 2] = ["Connected!", "Connected 2!"];

/// One command of one page, from its first frame to its last.
#[derive(Debug)]
pub struct LegacyClient {
    command: WsCommand,
    envelope: ClientEnvelope,
    rows: RowTracker,
    stages: StageTracker,
    /// The stage of the failure in the log, and the failure.
    failed_stage: Option<(Option<Kind>, String)>,
    /// The end of the command, once the log has ended: the error as plain text on one line, if it failed.
    pub ending: Option<Result<(), String>>,
}

impl LegacyClient {
    /// Creates the state of a page that sent `command`. If it sent a `run_id`, its frames carry it.
    pub fn new(command: WsCommand, run_id: Option<String>) -> Self {
        Self {
            command,
            envelope: ClientEnvelope::new(run_id.as_deref()),
            rows: RowTracker::default(),
            stages: StageTracker::new(command),
            failed_stage: None,
            ending: None,
        }
    }

    /// The frames before the log begins. Releases from 0.0.7 on echo this command and no other.
    pub fn greeting(&self) -> Vec<String> {
        match self.command {
            WsCommand::SyncNodes => vec![self.envelope.message(self.command.as_str())],
            WsCommand::SyncVirtualMachines | WsCommand::FullUpdate => Vec::new(),
        }
    }

    /// Appends to `out` the frames for the next frame of the log. Malformed frames, and frames after `complete`, add
    /// nothing.
    pub fn push_frame(&mut self, frame: &Frame, out: &mut Vec<String>) {
        if self.ending.is_some() {
            return;
        }
        match (frame.name, frame.decode()) {
            (FrameName::Step(status), Some(data)) => match data.rowid.as_str() {
                Some(rowid) => self.object(status, &data, rowid, out),
                None => self.stage(status, &data, out),
            },
            (FrameName::Error, Some(data)) => {
                let text = data.detail.as_str().or(data.error.as_str()).unwrap_or_default().to_owned();
                self.failed_stage = Some((Kind::from_stage(data.step.or_empty()), text));
            }
            // A malformed `complete` ends the command too, and counts as a failure.
            (FrameName::Complete, data) => self.complete(&data.unwrap_or_default(), out),
            _ => {}
        }
    }

    fn stage(&mut self, status: StepStatus, data: &FrameData<'_>, out: &mut Vec<String>) {
        let Some(kind) = Kind::from_stage(data.step.or_empty()) else { return };
        match status {
            StepStatus::Completed => self.end(kind, out),
            StepStatus::Started | StepStatus::Failed => self.stages.begin(kind),
            StepStatus::Progress => {}
        }
    }

    fn end(&mut self, kind: Kind, out: &mut Vec<String>) {
        if self.stages.end(kind) {
            let object = kind.row().object;
            out.push(self.envelope.close_object(format!("{{\"object\":\"{object}\",\"end\":true")));
        }
    }

    fn object(&mut self, status: StepStatus, data: &FrameData<'_>, rowid: &str, out: &mut Vec<String>) {
        let Some(object_name) = data.step.as_str() else { return };
        if let Some(kind) = Kind::from_stage(object_name) {
            self.stages.begin(kind);
        }
        let fields = LegacyFields::from_payload(data.payload);
        let object_type = Object::from_step(object_name).unwrap_or(Object::Other);
        if !object_type.has_rows() && status != StepStatus::Failed {
            // It is a parent whose objects were searched for. Pages have no row for it.
            return;
        }
        let owner = if object_type.is_scoped() { fields.owner() } else { None };
        let (object, rowid) =
            (markup::text(object_name, markup::MAX_TEXT), markup::text(rowid, markup::MAX_TEXT));
        let status = if status == StepStatus::Started { StepStatus::Progress } else { status };
        let key = (object.as_str(), owner.as_ref().map(|(_, name)| name.as_str()), rowid.as_str());
        let Some(news) = self.rows.update(key, status, Cells::from_fields(object_type, &fields)) else {
            return;
        };
        let remark = match status {
            StepStatus::Started | StepStatus::Progress => None,
            StepStatus::Completed => fields.text("warning"),
            StepStatus::Failed => {
                // Never empty, because clients detect a failure by its text.
                let error = data.error.as_str().or(data.message.as_str()).unwrap_or("no reason given");
                Some(markup::text(error, markup::MAX_TEXT))
            }
        };
        let row = TableRow { object: &object, object_type, owner, rowid: &rowid, cells: &news.cells, remark };
        if news.first {
            out.push(self.envelope.close_object(row.frame(StepStatus::Progress)));
        }
        if status != StepStatus::Progress {
            out.push(self.envelope.close_object(row.frame(status)));
        }
    }

    fn complete(&mut self, data: &FrameData<'_>, out: &mut Vec<String>) {
        self.ending = Some(if data.ok {
            let verdicts = self.stages.verdicts("completed");
            for kind in self.stages.unfinished() {
                self.end(kind, out);
            }
            self.full_update_end("completed", &verdicts, out);
            Ok(())
        } else {
            let reason = self.reason(data);
            self.failed(&reason, out);
            Err(reason)
        });
    }

    fn reason(&self, complete: &FrameData<'_>) -> String {
        let blamed = self.failed_stage.as_ref().map(|(_, text)| text.clone());
        let message = complete.message.as_str().map(str::to_owned);
        let parts = [detail::text_of_field(complete.errors), blamed, message].into_iter().flatten();
        let mut lines = parts.map(|text| plain(&text, SENTENCE).into_owned());
        lines
            .find(|line| !line.is_empty())
            .unwrap_or_else(|| "The sync failed, and its log does not say why.".to_owned())
    }

    fn failed(&self, reason: &str, out: &mut Vec<String>) {
        let reason = markup::text(reason, markup::MAX_TEXT);
        if !self.envelope.is_correlated() {
            out.push(format!("Error: {reason}"));
            return;
        }
        let blamed = self.failed_stage.as_ref().and_then(|(kind, _)| *kind);
        let part = blamed.filter(|kind| *kind != Kind::FullUpdate);
        let phase = part.or_else(|| self.stages.unfinished().first().copied()).unwrap_or(Kind::FullUpdate);
        out.push(self.envelope.close_object(format!(
            "{{\"event\":\"error_detail\",\"phase\":\"{}\",\"category\":\"internal\",\"message\":{}",
            phase.row().step,
            markup::json(&reason)
        )));
        self.full_update_end("failed", &self.stages.verdicts("failed"), out);
    }

    /// Writes the end of a full update. A failed one is only written for clients that correlate, because others treat
    /// any end as a success.
    fn full_update_end(&self, status: &str, verdicts: &str, out: &mut Vec<String>) {
        if self.command != WsCommand::FullUpdate {
            return;
        }
        // Pages ignore the status. A bridge treats an end without it as a failure.
        let mut frame = format!("{{\"object\":\"full-update\",\"end\":true,\"status\":\"{status}\"");
        if self.envelope.is_correlated() {
            frame += &format!(",\"stages\":{{{verdicts}}}");
        }
        out.push(self.envelope.close_object(frame));
    }
}
