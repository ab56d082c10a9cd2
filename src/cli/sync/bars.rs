//! The events of a sync as progress bars on a terminal, one for each stage.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressState, ProgressStyle};
use serde::Deserialize;

use super::event::{EventData, text};
use crate::core::domain::counts::{Count, Counts};
use crate::core::domain::kind::Kind;

/// The interval at which bars are drawn again, so that their clocks run.
const TICK: Duration = Duration::from_millis(200);
/// The width of a terminal, in columns, below which a bar has its counts alone.
const NARROW: u16 = 64;
/// The width of the names of stages on wider terminals, in columns: the `prefix` of the templates.
const NAME_WIDTH: usize = 18;

/// The progress bars of a sync.
pub(super) struct Bars {
    all: MultiProgress,
    /// The last line: the last message.
    last: ProgressBar,
    kind: Kind,
    stages: Vec<StageBar>,
}

/// The bar of a stage.
struct StageBar {
    kind: Kind,
    bar: ProgressBar,
    /// The objects that the stage works on, by name.
    seen: HashSet<String>,
    /// Those that completed or failed.
    ended: HashSet<String>,
    failed: u64,
    /// The number of objects, as far as the backend tells.
    total: Option<u64>,
    /// The number of finished objects, where the backend tells nothing else of them.
    current: u64,
    /// How long the stage took, once it has finished.
    took: Option<Duration>,
    /// The final counts of its objects.
    count: Option<Count>,
}

/// What is read of an event of the backend's own type.
#[derive(Deserialize)]
struct OwnEvent {
    phase: String,
    count: Option<u64>,
    progress: Option<Progress>,
}

#[derive(Deserialize)]
struct Progress {
    current: u64,
    total: u64,
}

impl Bars {
    pub(super) fn new(kind: Kind) -> Self {
        let all = MultiProgress::new();
        let last = all.add(ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear));
        last.set_style(style("{spinner} {elapsed} {wide_msg}"));
        last.enable_steady_tick(TICK);
        Self { all, last, kind, stages: Vec::new() }
    }

    /// Prints a line above the bars.
    pub(super) fn print(&self, text: &str) {
        // Standard error may be closed.
        let _ = self.all.println(text);
    }

    pub(super) fn step(&mut self, data: &EventData) {
        let line = text("step", data).unwrap_or_default();
        self.last.set_message(line.clone());
        if data.status == "failed" {
            self.print(&line);
        }
        let stage = Kind::from_stage(&data.step).filter(|kind| *kind != Kind::FullUpdate);
        match &data.rowid {
            None => match (stage, data.status.as_str()) {
                (Some(stage), "started") => drop(self.stage(stage)),
                (Some(stage), "completed") => self.stage(stage).finish(),
                _ => {}
            },
            Some(name) => {
                let of_object = |bar: &&StageBar| bar.kind.row().object.as_str() == data.step;
                let kind = self.stages.iter().rfind(of_object).or(self.stages.last());
                let kind = kind.map_or(stage.unwrap_or(self.kind), |bar| bar.kind);
                let bar = self.stage(kind);
                let has_failed = data.status == "failed";
                if has_failed || data.status == "completed" {
                    bar.failed += u64::from(bar.ended.insert(name.clone()) && has_failed);
                }
                bar.seen.insert(name.clone());
                bar.draw();
            }
        }
    }

    /// Takes the number of objects from an event of the backend's own type.
    pub(super) fn own_event(&mut self, data: &str) {
        let Ok(OwnEvent { phase, count, progress }) = serde_json::from_str(data) else { return };
        let Some(kind) = Kind::from_stage(&phase).filter(|kind| *kind != Kind::FullUpdate) else { return };
        let bar = self.stage(kind);
        bar.total = count.or(progress.as_ref().map(|progress| progress.total)).or(bar.total);
        bar.current = progress.map_or(bar.current, |progress| progress.current);
        bar.draw();
    }

    pub(super) fn complete(&self, data: &EventData) {
        self.last.set_message(text("complete", data).unwrap_or_default());
    }

    /// Ends all bars, with the final `counts` of their objects, and leaves them on the screen. Returns the last message.
    pub(super) fn end(&mut self, counts: &Counts) -> String {
        for stage in &mut self.stages {
            let count = counts.0.iter().find(|(object, _)| *object == stage.kind.row().object);
            stage.count = count.map(|(_, count)| *count);
            stage.finish();
        }
        let message = self.last.message();
        self.last.finish_and_clear();
        message
    }

    /// How many objects failed.
    pub(super) fn failed(&self) -> u64 {
        self.stages.iter().map(|stage| stage.failed).sum()
    }

    /// The bar of `kind`.
    fn stage(&mut self, kind: Kind) -> &mut StageBar {
        let index = self.stages.iter().position(|stage| stage.kind == kind);
        let index = index.unwrap_or_else(|| {
            let bar =
                ProgressBar::no_length().with_prefix(kind.as_str()).with_finish(ProgressFinish::Abandon);
            let bar = self.all.insert_before(&self.last, bar);
            let (seen, ended) = (HashSet::new(), HashSet::new());
            let stage = StageBar {
                kind,
                bar,
                seen,
                ended,
                failed: 0,
                total: None,
                current: 0,
                took: None,
                count: None,
            };
            stage.draw();
            stage.bar.enable_steady_tick(TICK);
            self.stages.push(stage);
            self.stages.len() - 1
        });
        &mut self.stages[index]
    }
}

impl StageBar {
    /// How many objects have ended, of how many.
    fn position(&self) -> (u64, u64) {
        let [ended, seen] = [&self.ended, &self.seen].map(|names| names.len() as u64);
        (ended.max(self.current), seen.max(self.total.unwrap_or_default()))
    }

    fn draw(&self) {
        let (ended, total) = self.position();
        let (_, columns) = Term::stderr().size();
        let is_narrow = columns < NARROW;
        if let Some(took) = self.took {
            let (name, summary) = (self.kind.as_str(), self.summary());
            let width = if is_narrow { 0 } else { NAME_WIDTH };
            self.bar.set_message(format!("{name:width$} {summary} in {}", humantime::format_duration(took)));
            return;
        }
        self.bar.set_style(style(match self.total {
            _ if is_narrow => "{wide_msg}",
            Some(_) => "{prefix:18} {wide_bar:.cyan} {pos:>5}/{len:5} {rate:>8} {eta:>4} left",
            None => "{prefix:18} {pos:>5}/{len:5} {rate:>8} {spinner}",
        }));
        self.bar.set_length(total);
        self.bar.set_position(ended);
        self.bar.set_message(format!("{} {ended}/{total}", self.kind));
    }

    /// The counts of a finished stage.
    fn summary(&self) -> String {
        let (ended, total) = self.position();
        let Some(count) = self.count else {
            return if ended > 0 { format!("{ended} of {total}") } else { "finished".to_owned() };
        };
        let parts =
            [(count.completed, "completed"), (count.failed, "failed"), (count.unconfirmed, "unconfirmed")];
        let parts = parts.iter().filter(|(number, _)| *number > 0);
        let parts: Vec<String> = parts.map(|(number, how)| format!("{number} {how}")).collect();
        if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") }
    }

    fn finish(&mut self) {
        if self.took.is_none() {
            self.took = Some(Duration::from_secs(self.bar.elapsed().as_secs()));
            self.bar.set_style(style("{wide_msg}"));
            self.bar.abandon();
        }
        self.draw();
    }
}

/// The style with the template `text`, which is valid.
fn style(text: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        // Writing to a text does not fail.
        let _ = write!(out, "{:.1}/s", state.per_sec());
    })
}
