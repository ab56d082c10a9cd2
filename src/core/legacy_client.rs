//! The other direction of `/ws`: frames from which old plugin pages draw their table, rebuilt from the
//! log of the job that runs their command.
//!
//! How these pages read, by their source. A frame of a `device` or a `virtual_machine` sets every cell of
//! one row, as HTML: what it lacks is shown as the word `undefined`, so a frame has all keys or is not
//! sent. A frame with `completed: false` adds one to a total and is never sent twice of one object; one
//! with `completed: true` and `increment_count: "yes"` adds one to what is synced. The end of an object's
//! stage gives back its button. Everything else goes to a list of raw frames, in the oldest pages as HTML
//! too. So no text of a backend leaves this module as markup, except links to `http` and `https`.

mod command;
mod envelope;
mod event;
mod markup;
mod row;
mod rows;
mod stages;
#[cfg(test)]
mod tests;

use super::domain::kind::{Command, Kind};
use super::domain::object::Object;
use super::text::detail::{self, SENTENCE};
use super::text::plain;
use super::wire::sse::parser::{Item, Parser};
use envelope::Envelope;
use event::{Data, Event};
use row::{Cells, Row, State};
use rows::Rows;
use stages::Stages;

pub use command::{Asked, asked, unknown};

/// What every backend says when its `/ws` is ready for a command.
pub const GREETING: [&str; 2] = ["Connected!", "Connected 2!"];

/// The largest event of a log that is read, in bytes of data: more than the encoder ever writes.
const EVENT: usize = 128 * 1024;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Well.
    Done,
    /// Not well.
    Failed {
        /// Why, as plain text on one line.
        reason: String,
    },
}

/// One command of one page, from its first frame to its last.
#[derive(Debug)]
pub struct Page {
    command: Command,
    envelope: Envelope,
    rows: Rows,
    stages: Stages,
    /// The stage that the log blames for the failure, and the failure.
    blamed: Option<(Option<Kind>, String)>,
    ending: Option<Ending>,
}

impl Page {
    /// A page that asked for `command`, and that finds its frames by `run_id` if it gave one.
    pub fn new(command: Command, run_id: Option<String>) -> Self {
        Self {
            command,
            envelope: Envelope::new(run_id.as_deref()),
            rows: Rows::default(),
            stages: Stages::new(command),
            blamed: None,
            ending: None,
        }
    }

    /// What is said before the log begins: releases from 0.0.7 on repeat this one command and no other.
    pub fn begin(&self) -> Vec<String> {
        match self.command {
            Command::SyncNodes => vec![self.envelope.message(self.command.text())],
            Command::SyncVirtualMachines | Command::FullUpdate => Vec::new(),
        }
    }

    /// Takes the next frame of the log and adds to `out` what the page is sent for it. What is no frame of
    /// a log, and what comes after its `complete`, adds nothing.
    pub fn frame(&mut self, frame: &[u8], out: &mut Vec<String>) {
        Parser::new(EVENT).feed(frame, |item| match item {
            Item::Event { name, data } => self.event(name, data, out),
            Item::Oversized { name, head, .. } => self.event(name, head, out),
        });
    }

    /// How the command ended, once the log has ended.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.clone()
    }

    fn event(&mut self, name: &[u8], data: &[u8], out: &mut Vec<String>) {
        if self.ending.is_some() {
            return;
        }
        let event = Event::read(data);
        match (name, event) {
            (b"step", Some(event)) => match event.rowid.said() {
                Some(rowid) => self.object(&event, rowid, out),
                None => self.stage(&event, out),
            },
            (b"error", Some(event)) => {
                let text = event.detail.said().or(event.error.said()).unwrap_or_default().to_owned();
                self.blamed = Some((Kind::of_stage(event.step.or_empty()), text));
            }
            // One that cannot be read is an end too, and none that anybody may call a good one.
            (b"complete", event) => self.complete(&event.unwrap_or_default(), out),
            _ => {}
        }
    }

    fn stage(&mut self, event: &Event<'_>, out: &mut Vec<String>) {
        let Some(kind) = Kind::of_stage(event.step.or_empty()) else { return };
        match event.status.or_empty() {
            "completed" => self.end(kind, out),
            "started" | "failed" => self.stages.begin(kind),
            _ => {}
        }
    }

    fn end(&mut self, kind: Kind, out: &mut Vec<String>) {
        if self.stages.end(kind) {
            let object = kind.row().object;
            out.push(self.envelope.seal(format!("{{\"object\":\"{object}\",\"end\":true")));
        }
    }

    fn object(&mut self, event: &Event<'_>, rowid: &str, out: &mut Vec<String>) {
        let Some(word) = event.step.said() else { return };
        if let Some(kind) = Kind::of_stage(word) {
            self.stages.begin(kind);
        }
        let data = Data::of(event.payload);
        let sort = Object::named(word).unwrap_or(Object::Other);
        if !sort.has_rows() && event.status.or_empty() != "failed" {
            // No object, but where objects were looked for: pages have no row for it.
            return;
        }
        let owner = if sort.is_scoped() { data.owner() } else { None };
        let (object, rowid) = (markup::text(word, markup::LONGEST), markup::text(rowid, markup::LONGEST));
        let state = match event.status.or_empty() {
            "completed" => State::Completed,
            "failed" => State::Failed,
            _ => State::Begun,
        };
        let key = (object.as_str(), owner.as_ref().map(|(_, name)| name.as_str()), rowid.as_str());
        let Some(news) = self.rows.take(key, state, Cells::read(sort, &data)) else { return };
        let remark = match state {
            State::Begun => None,
            State::Completed => data.text("warning"),
            State::Failed => Some(event.reason()),
        };
        let row = Row { object: &object, sort, owner, rowid: &rowid, cells: &news.cells, remark };
        if news.first {
            out.push(self.envelope.seal(row.frame(State::Begun)));
        }
        if state != State::Begun {
            out.push(self.envelope.seal(row.frame(state)));
        }
    }

    fn complete(&mut self, event: &Event<'_>, out: &mut Vec<String>) {
        let ending = if event.ok.0 == Some(true) {
            let verdicts = self.stages.verdicts(true);
            for kind in self.stages.unfinished() {
                self.end(kind, out);
            }
            self.full_update_end("completed", &verdicts, out);
            Ending::Done
        } else {
            let reason = self.reason(event);
            self.failed(&reason, out);
            Ending::Failed { reason }
        };
        self.ending = Some(ending);
    }

    fn reason(&self, complete: &Event<'_>) -> String {
        let blamed = self.blamed.as_ref().map(|(_, text)| text.clone());
        let message = complete.message.said().map(str::to_owned);
        let said = [detail::readable(complete.errors), blamed, message].into_iter().flatten();
        let mut lines = said.map(|text| plain(&text, SENTENCE).into_owned());
        lines
            .find(|line| !line.is_empty())
            .unwrap_or_else(|| "The sync failed, and its log does not say why.".to_owned())
    }

    fn failed(&self, reason: &str, out: &mut Vec<String>) {
        let reason = markup::text(reason, markup::LONGEST);
        if !self.envelope.is_correlated() {
            out.push(format!("Error: {reason}"));
            return;
        }
        let blamed = self.blamed.as_ref().and_then(|(kind, _)| *kind);
        let part = blamed.filter(|kind| *kind != Kind::FullUpdate);
        let phase = part.or_else(|| self.stages.unfinished().first().copied()).unwrap_or(Kind::FullUpdate);
        out.push(self.envelope.seal(format!(
            "{{\"event\":\"error_detail\",\"phase\":\"{}\",\"category\":\"internal\",\"message\":{}",
            phase.row().step,
            markup::json(&reason)
        )));
        self.full_update_end("failed", &self.stages.verdicts(false), out);
    }

    /// The end of a full update. Of a bad one only a client that correlates is told: for others, any end
    /// is a good one.
    fn full_update_end(&self, status: &str, verdicts: &str, out: &mut Vec<String>) {
        if self.command != Command::FullUpdate {
            return;
        }
        // Pages do not look at the status. A bridge takes an end without it for a failure.
        let mut frame = format!("{{\"object\":\"full-update\",\"end\":true,\"status\":\"{status}\"");
        if self.envelope.is_correlated() {
            frame += &format!(",\"stages\":{{{verdicts}}}");
        }
        out.push(self.envelope.seal(frame));
    }
}
