//! The report as text: one line for each check, and the advice below it.

use std::fmt;

use super::report::{BackendReport, CheckLine, CheckReport, KindLine};
use super::verdict::CheckVerdict;
use crate::core::compat::plugin::{self, Forecast, JobRequest};
use crate::core::domain::channel::ChannelChoice;
use crate::core::run::policy::UnsupportedPolicy;

impl CheckVerdict {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Skipped => "skipped",
            Self::Warning => "WARNING",
            Self::Failed | Self::Misconfigured => "FAILED",
        }
    }
}

impl fmt::Display for CheckLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<8} {:<12} {}", self.verdict.label(), self.check.as_str(), self.found)?;
        match &self.advice {
            Some(advice) => writeln!(f, "{:24}→ {advice}", ""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Bridge")?;
        self.bridge.iter().try_for_each(|line| line.fmt(f))?;
        self.backends.iter().try_for_each(|backend| write!(f, "\n{backend}"))
    }
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend {}", self.url)?;
        // The default name is the address in the URL.
        if self.url.ends_with(&format!("//{}", self.name)) {
            writeln!(f)?;
        } else {
            writeln!(f, ", name {}", self.name)?;
        }
        self.checks.iter().try_for_each(|line| line.fmt(f))?;
        if !self.kinds.is_empty() {
            let allowed = match self.channel {
                ChannelChoice::Auto => String::new(),
                ChannelChoice::Only(channel) => format!(" (backend.channel allows {channel} only)"),
            };
            writeln!(f, "\n  {:<21} channel{allowed}", "kind")?;
            self.kinds.iter().try_for_each(|line| line.fmt(f))?;
        }
        if self.kinds.iter().any(|line| line.channels.is_empty()) {
            let answer = match self.unsupported {
                UnsupportedPolicy::Refuse => "are answered 404",
                UnsupportedPolicy::Skip => "get a stream that reports it as skipped",
                UnsupportedPolicy::Auto => {
                    "are answered 404, or in a job of several stages get a stream that reports it as skipped"
                }
            };
            writeln!(f, "  –: not supported by this backend; clients {answer} (backend.unsupported)")?;
        }
        self.plugin_job.iter().try_for_each(|forecast| write_forecast(f, forecast))
    }
}

impl fmt::Display for KindLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, channels, left_out } = self;
        write!(f, "  {:<21} ", kind.as_str())?;
        let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
        match channels.as_slice() {
            [] => f.write_str("–")?,
            channels => f.write_str(&channels.join(", "))?,
        }
        for (index, kind) in left_out.iter().enumerate() {
            write!(f, "{}{kind}", if index == 0 { ", without " } else { ", " })?;
        }
        writeln!(f)
    }
}

fn write_forecast(f: &mut fmt::Formatter<'_>, forecast: &Forecast) -> fmt::Result {
    writeln!(f, "\n  Requests of a job of the NetBox plugin {}, and their answers:", forecast.plugin)?;
    for JobRequest { request, treatment, why } in &forecast.requests {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        writeln!(f, "  {:<11} {request}{why}", treatment.as_str())?;
    }
    writeln!(f, "\n  Expected result of the job in NetBox:")?;
    for plugin::JobForecast { kind, ending, because } in &forecast.verdicts {
        writeln!(f, "  {:<21} {ending}", kind.as_str())?;
        because.iter().try_for_each(|because| writeln!(f, "  {:<21}   because: {because}", ""))?;
    }
    forecast.conditions.iter().try_for_each(|condition| writeln!(f, "  {:<21} if: {condition}", ""))
}
