//! The events of a sync as lines or as JSON, and the choice of their form.

use std::io::{self, IsTerminal, Write};

use super::bars::Bars;
use super::event::{EventData, text};
use super::remote::RemoteJob;
use crate::client::JobEvent;
use crate::core::domain::counts::Counts;
use crate::core::domain::kind::Kind;

/// How events are shown.
pub(super) enum Report {
    /// As progress bars.
    Bars(Box<Bars>),
    /// As lines, such as ProxBox documents them, with the number of failed objects.
    Lines(Kind, u64),
    /// As JSON, with the number of failed objects.
    Json(u64),
    /// Not at all: the reader of the output is gone.
    Silent,
}

impl Report {
    /// Progress bars on a terminal, elsewhere lines.
    pub(super) fn new(kind: Kind) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if io::stdout().is_terminal() && io::stderr().is_terminal() && !is_dumb {
            Self::Bars(Box::new(Bars::new(kind)))
        } else {
            Self::Lines(kind, 0)
        }
    }

    /// Whether progress bars are drawn.
    pub(super) const fn draws(&self) -> bool {
        matches!(self, Self::Bars(_))
    }

    /// Shows the job that is followed.
    pub(super) fn job(&self, job: &RemoteJob) -> io::Result<()> {
        match self {
            Self::Json(_) => print(&format!("{{\"event\":\"job\",\"data\":{}}}", job.object)),
            Self::Lines(kind, _) => print(&format!("{kind}: {}", job.greeting())),
            Self::Bars(bars) => {
                bars.print(&job.greeting());
                Ok(())
            }
            Self::Silent => Ok(()),
        }
    }

    /// Shows something that is no event.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.print(text),
            // Standard error may be closed.
            _ => drop(writeln!(io::stderr(), "{text}")),
        }
    }

    /// Shows `event`.
    pub(super) fn event(&mut self, event: &JobEvent) -> io::Result<()> {
        let data = || serde_json::from_str::<EventData>(&event.data).unwrap_or_default();
        match self {
            Self::Silent => Ok(()),
            Self::Json(failed) => {
                *failed += u64::from(data().status == "failed");
                let JobEvent { name, data } = event;
                print(&format!("{{\"event\":\"{name}\",\"data\":{data}}}"))
            }
            Self::Lines(kind, failed) => {
                let data = data();
                *failed += u64::from(data.status == "failed");
                let Some(text) = text(&event.name, &data) else { return Ok(()) };
                print(&format!("{kind}: {text}"))?;
                if data.ok { print(&format!("{kind}: stream completed")) } else { Ok(()) }
            }
            Self::Bars(bars) => match event.name.as_str() {
                "step" => {
                    bars.step(&data());
                    Ok(())
                }
                "complete" => {
                    bars.complete(&data());
                    Ok(())
                }
                "error" => Ok(()),
                _ => {
                    bars.own_event(&event.data);
                    Ok(())
                }
            },
        }
    }

    /// Shows the end of the sync, with the final `counts` of its objects.
    pub(super) fn end(&mut self, counts: &Counts) -> io::Result<()> {
        match self {
            Self::Bars(bars) => print(&bars.end(counts)),
            _ => Ok(()),
        }
    }

    /// How many failed objects were shown.
    pub(super) fn failed(&self) -> u64 {
        match self {
            Self::Bars(bars) => bars.failed(),
            Self::Lines(_, failed) | Self::Json(failed) => *failed,
            Self::Silent => 0,
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()
}
