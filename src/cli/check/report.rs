//! What was found, for people and for programs.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{self, Config};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Not asked, because something before it failed or is missing.
    Skipped,
    /// It works, and will be a problem.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// What it is.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do about it, if there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// How a kind will be synchronised.
#[derive(Debug, Serialize)]
pub(super) struct KindLine {
    pub(super) kind: &'static str,
    /// The channels, in their order; none if it cannot be synchronised.
    pub(super) channels: Vec<&'static str>,
    /// What will be left out of it, or why it cannot be synchronised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// What the bridge makes up for.
#[derive(Debug, Serialize)]
pub(super) struct Shim {
    pub(super) name: &'static str,
    /// Whether the bridge answers in the place of the backend.
    pub(super) on: bool,
    /// Why, or why not.
    pub(super) why: String,
}

/// One backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendReport {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) lines: Vec<Line>,
    pub(super) kinds: Vec<KindLine>,
    pub(super) shims: Vec<Shim>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What the bridge will do.
    pub(super) plan: Vec<String>,
    pub(super) backends: Vec<BackendReport>,
}

impl Line {
    pub(super) fn new(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into(), advice: None }
    }

    pub(super) fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl Report {
    /// What a bridge with `config` will do.
    pub(super) fn of(config: &Config) -> Self {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let mut plan = Vec::new();
        for backend in &config.backends {
            let config::Backend { name, url, listen, hosts, channel, .. } = backend;
            let listen = listen.unwrap_or(config.listen);
            let told = match hosts.as_slice() {
                [] => String::new(),
                hosts => format!(" for {}", hosts.join(", ")),
            };
            plan.push(format!(
                "Serve clients on {scheme}://{listen}{told}, in front of {name} ({url}, channel {channel})."
            ));
            let without_tls = config.tls.is_none() && !listen.ip().is_loopback();
            if without_tls {
                plan.push(format!(
                    "Without TLS on {listen}, which others reach: set tls.certificate and tls.key."
                ));
            }
        }
        plan.push(format!("Serve operators on http://{}.", config.admin_listen));
        plan.push(match &config.data_dir {
            Some(folder) => format!("Record jobs in {}.", folder.display()),
            None => "Record jobs in memory only: set data_dir to keep them.".to_owned(),
        });
        plan.push(match config.trusted_proxies.as_slice() {
            [] => "Believe no X-Forwarded-For: set trusted_proxies if there is a proxy in front.".to_owned(),
            proxies => {
                let proxies: Vec<String> = proxies.iter().map(ToString::to_string).collect();
                format!("Believe the X-Forwarded-For of {}.", proxies.join(", "))
            }
        });
        Self { plan, backends: Vec::new() }
    }

    /// The worst of all.
    pub(super) fn verdict(&self) -> Verdict {
        let lines = self.backends.iter().flat_map(|backend| &backend.lines);
        lines.map(|line| line.verdict).max().unwrap_or(Verdict::Ok)
    }
}

/// What programs are told of a configuration that cannot be used.
pub(super) fn of_bad_configuration(error: &config::Error) -> Value {
    let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    json!({ "problems": problems })
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Skipped => "skipped",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The bridge will:")?;
        for step in &self.plan {
            writeln!(f, "  {step}")?;
        }
        for backend in &self.backends {
            write!(f, "\n{backend}")?;
        }
        Ok(())
    }
}

impl fmt::Display for BackendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Backend {} ({}):", self.name, self.url)?;
        for Line { check, verdict, found, advice } in &self.lines {
            writeln!(f, "  {:<8} {check:<12} {found}", verdict.word())?;
            if let Some(advice) = advice {
                writeln!(f, "  {:<8} {:<12} → {advice}", "", "")?;
            }
        }
        if !self.kinds.is_empty() {
            writeln!(f, "\n  kind                channel")?;
        }
        for KindLine { kind, channels, note } in &self.kinds {
            let channels = if channels.is_empty() { "none".to_owned() } else { channels.join(", ") };
            let note = note.as_ref().map(|note| format!("  ({note})")).unwrap_or_default();
            writeln!(f, "  {kind:<19} {channels}{note}")?;
        }
        if !self.shims.is_empty() {
            writeln!(f, "\n  shim                state")?;
        }
        for Shim { name, on, why } in &self.shims {
            writeln!(f, "  {name:<19} {}: {why}", if *on { "on" } else { "off" })?;
        }
        Ok(())
    }
}
