//! `proxbox-bridge jobs watch`.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use anyhow::bail;
use clap::builder::styling::{AnsiColor, Style};
use http::{HeaderMap, Method};
use serde::Deserialize;
use tokio::time::{interval, sleep};

use super::super::bridge::BridgeArgs;
use super::super::note;
use super::events::BridgeEvents;
use super::list::JobList;
use super::record::{JobRecord, readable_time};
use super::source::JobSource;
use super::{parse, table};
use crate::client::{BridgeClient, JobEvent, JobEvents, StreamItem};
use crate::core::text::printable;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge jobs watch\n  \
    proxbox-bridge jobs watch 01a22f78-e567")]
pub(super) struct Args {
    /// The id of a job: follow its log to its end. Without it, all jobs
    job: Option<String>,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Print each event as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The delay before the lost stream of all jobs is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// The interval between two redraws, for the running times.
const REDRAW: Duration = Duration::from_secs(1);
/// How many jobs are shown besides those that run.
const RECENT: usize = 20;
/// Moves the cursor to the first column, and clears the line.
const CLEAR_LINE: &str = "\r\x1b[2K";
const LOST: &str = "The connection to the bridge was lost. Trying again.";

/// Follows one job or all of them. A closed pipe, as `head` leaves it, is not an error.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.bridge.client()?;
    let output = match args.json {
        true => Output::Json,
        false if table::is_terminal() => Output::Terminal,
        false => Output::Lines,
    };
    let watched = match args.job {
        Some(job) => {
            let id = JobSource::Bridge(client.clone()).find_id(&job).await?;
            watch_job(client, &id, output).await
        }
        None => watch_all(&client, output).await,
    };
    let is_closed = |error: &anyhow::Error| {
        error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::BrokenPipe)
    };
    watched.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// What is new is drawn over what is old.
    Terminal,
    /// A line for each change.
    Lines,
    /// The JSON of each event on one line.
    Json,
}

/// Writes `text` to standard output at once.
fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn write_line(text: &str) -> io::Result<()> {
    write(&format!("{text}\n"))
}

/// Follows all jobs until the process is stopped.
async fn watch_all(client: &BridgeClient, output: Output) -> anyhow::Result<()> {
    let mut view = JobsView { output, jobs: BTreeMap::new(), drawn: 0, is_lost: false };
    let mut has_connected = false;
    let mut ticks = interval(REDRAW);
    loop {
        match BridgeEvents::open(client).await {
            Ok(mut events) => {
                // Jobs may have ended while there was no connection.
                let recent: JobList = client.get(&format!("/jobs?limit={RECENT}")).await?;
                for job in recent.results.into_iter().filter(|job| job.outcome.is_some()).rev() {
                    if view.has_changed(&job) && has_connected {
                        view.write_change(&job)?;
                    }
                    view.jobs.insert(job.id.clone(), job);
                }
                has_connected = true;
                loop {
                    tokio::select! {
                        event = events.next() => match event {
                            Some(event) => view.apply(&event)?,
                            None => break,
                        },
                        _ = ticks.tick() => {}
                    }
                    view.draw()?;
                }
            }
            Err(error) if !has_connected || error.refusal().is_some() => return Err(error.into()),
            Err(_) => {}
        }
        view.lose()?;
        sleep(RETRY).await;
    }
}

/// The jobs, as they are shown.
#[derive(Debug)]
struct JobsView {
    output: Output,
    jobs: BTreeMap<String, JobRecord>,
    /// How many lines of the terminal were drawn.
    drawn: usize,
    /// Whether the last line says that the connection is lost.
    is_lost: bool,
}

impl JobsView {
    fn apply(&mut self, event: &JobEvent) -> anyhow::Result<()> {
        self.is_lost = false;
        if event.name != "job" {
            return Ok(());
        }
        if self.output == Output::Json {
            return Ok(write_line(&event.data)?);
        }
        let job: JobRecord = parse(event.data.as_bytes())?;
        if self.has_changed(&job) {
            self.write_change(&job)?;
        }
        self.jobs.insert(job.id.clone(), job);
        Ok(())
    }

    /// Whether `job` is new, or in another state than it was.
    fn has_changed(&self, job: &JobRecord) -> bool {
        let change = |job: &JobRecord| (job.state().to_owned(), job.failed_total);
        self.jobs.get(&job.id).is_none_or(|before| change(before) != change(job))
    }

    /// Writes the new state of a job where there is no terminal to draw on.
    fn write_change(&self, job: &JobRecord) -> io::Result<()> {
        if self.output != Output::Lines {
            return Ok(());
        }
        let time = readable_time(job.completed.as_ref().or(job.started.as_ref()).unwrap_or(&job.created));
        let total = job.total();
        let failed =
            if job.failed_total > 0 { format!(", {} failed", job.failed_total) } else { String::new() };
        let objects = format!("{}/{} objects{failed}", total.completed, total.seen);
        write_line(&printable(&format!("{time}  {}  {}  {}  {objects}", job.id, job.sync(), job.state())))
    }

    /// Draws the table of the jobs in the place of the one before: first those that run, and then the newest ones.
    fn draw(&mut self) -> io::Result<()> {
        let (Output::Terminal, (_, Some(height))) = (self.output, table::size()) else { return Ok(()) };
        let (ended, mut shown): (Vec<_>, Vec<_>) =
            self.jobs.values().rev().cloned().partition(|job| job.outcome.is_some());
        shown.extend(ended.into_iter().take(RECENT));
        let text = if shown.is_empty() { "No job yet.".to_owned() } else { table::text(table::jobs(&shown)) };
        let mut lines: Vec<&str> = text.lines().take(usize::from(height).saturating_sub(2).max(1)).collect();
        if self.is_lost {
            lines.push("The bridge does not answer. Trying again.");
        }
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        self.drawn = lines.len();
        write(&format!("{up}\r\x1b[J{}\n", lines.join("\n")))
    }

    /// Reports a lost connection once.
    fn lose(&mut self) -> io::Result<()> {
        if !self.is_lost && self.output != Output::Terminal {
            note(LOST);
        }
        self.is_lost = true;
        self.draw()
    }
}

/// The fields of an event of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamEvent {
    step: String,
    status: String,
    message: String,
    error: Option<String>,
    detail: Option<String>,
    ok: bool,
}

/// Follows the log of one job to its end.
async fn watch_job(client: BridgeClient, id: &str, output: Output) -> anyhow::Result<()> {
    // A bridge that does not answer at all is an error. A connection that is lost later is retried until the process is
    // stopped.
    client.call(Method::GET, &format!("/jobs/{id}"), HeaderMap::new()).await?;
    let mut events = JobEvents::new(client, id, "", Duration::MAX);
    while let Some(item) = events.next().await? {
        let StreamItem::Event(JobEvent { name, data }) = item else {
            note(LOST);
            continue;
        };
        let event: StreamEvent = parse(data.as_bytes()).unwrap_or_default();
        match output {
            Output::Json => write_line(&data)?,
            _ => print_event(&name, &event)?,
        }
        if name == "complete" && event.ok {
            return Ok(());
        }
    }
    bail!("job {id} did not complete")
}

/// Prints an event of a job. On a terminal, progress is overwritten by what follows.
fn print_event(name: &str, event: &StreamEvent) -> io::Result<()> {
    let StreamEvent { step, status, message, error, detail, ok } = event;
    let (style, text) = match (name, status.as_str()) {
        ("complete", _) if *ok => (AnsiColor::Green.on_default(), message.clone()),
        ("complete", _) => (AnsiColor::Red.on_default(), message.clone()),
        ("error", _) => {
            let texts = [error, detail].into_iter().flatten().map(String::as_str);
            (AnsiColor::Red.on_default(), format!("{step}: {}", texts.collect::<Vec<_>>().join(": ")))
        }
        ("step", "failed") => {
            let error = error.as_deref().filter(|error| !message.contains(error));
            let error = error.map(|error| format!(": {error}")).unwrap_or_default();
            (AnsiColor::Yellow.on_default(), format!("{step}: {message}{error}"))
        }
        ("step", _) => (Style::new(), format!("{step}: {message}")),
        // The types of newer backends.
        _ => return Ok(()),
    };
    let text = printable(&text);
    if !table::is_terminal() {
        return write_line(&text);
    }
    let style = if table::is_coloured() { style } else { Style::new() };
    if (name, status.as_str()) == ("step", "progress") {
        let line: String = text.chars().take(usize::from(table::size().0).saturating_sub(1)).collect();
        return write(&format!("{CLEAR_LINE}{line}"));
    }
    write(&format!("{CLEAR_LINE}{style}{text}{style:#}\n"))
}
