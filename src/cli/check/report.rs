//! The report. `fixtures/check.schema.json` describes its JSON: change both together.

use serde::Serialize;

use super::verdict::{CheckName, CheckVerdict};
use crate::config;
use crate::core::compat::plugin::Forecast;
use crate::core::domain::channel::{Channel, ChannelChoice};
use crate::core::domain::kind::Kind;
use crate::core::run::policy::UnsupportedPolicy;

/// The result of one check.
#[derive(Debug, Serialize)]
pub(super) struct CheckLine {
    pub(super) check: CheckName,
    pub(super) verdict: CheckVerdict,
    /// The finding.
    pub(super) found: String,
    /// What to do about it, if anything.
    pub(super) advice: Option<String>,
    /// The certificate that was checked, for checks of certificates.
    pub(super) certificate: Option<CertificateInfo>,
}

/// How a kind will be synchronised.
#[derive(Debug, Serialize)]
pub(super) struct KindLine {
    pub(super) kind: Kind,
    /// The channels, in order of use; empty if the backend cannot sync the kind.
    pub(super) channels: Vec<Channel>,
    /// The stages of a full update that will be skipped.
    pub(super) left_out: Vec<Kind>,
}

/// The results for one backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendReport {
    pub(super) name: String,
    pub(super) url: String,
    /// The channels that are allowed.
    pub(super) channel: ChannelChoice,
    pub(super) checks: Vec<CheckLine>,
    pub(super) kinds: Vec<KindLine>,
    /// The answer to requests for a kind without a channel.
    pub(super) unsupported: UnsupportedPolicy,
    /// The forecast for jobs of the NetBox plugin; `None` if too little is known of the backend.
    pub(super) plugin_job: Option<Forecast>,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct CheckReport {
    /// The worst verdict of all checks; `ok` if none is worse than `skipped`.
    pub(super) verdict: CheckVerdict,
    /// The errors in the configuration. If there are any, nothing was checked.
    pub(super) problems: Vec<String>,
    /// The bridge itself.
    pub(super) bridge: Vec<CheckLine>,
    pub(super) backends: Vec<BackendReport>,
}

impl CheckLine {
    pub(super) fn new(check: CheckName, verdict: CheckVerdict, found: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into(), advice: None, certificate: None }
    }

    pub(super) fn ok(check: CheckName, found: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Ok, found)
    }

    pub(super) fn note(check: CheckName, found: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Note, found)
    }

    pub(super) fn skipped(check: CheckName, found: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Skipped, found)
    }

    pub(super) fn warning(check: CheckName, found: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Warning, found)
    }

    pub(super) fn failed(check: CheckName, found: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Failed, found)
    }

    pub(super) fn misconfigured(check: CheckName, error: &impl ToString) -> Self {
        Self::new(check, CheckVerdict::Misconfigured, error.to_string())
    }

    pub(super) fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl BackendReport {
    /// An empty report for a backend.
    pub(super) fn new(backend: &config::BackendConfig) -> Self {
        Self {
            name: backend.name.clone(),
            url: backend.url.to_string(),
            channel: backend.channel,
            checks: Vec::new(),
            kinds: Vec::new(),
            unsupported: backend.unsupported,
            plugin_job: None,
        }
    }
}

impl CheckReport {
    pub(super) fn new(bridge: Vec<CheckLine>, backends: Vec<BackendReport>) -> Self {
        let lines = backends.iter().flat_map(|backend| &backend.checks).chain(&bridge);
        let worst = lines.map(|line| line.verdict).filter(|verdict| *verdict > CheckVerdict::Skipped).max();
        Self { verdict: worst.unwrap_or(CheckVerdict::Ok), problems: Vec::new(), bridge, backends }
    }

    /// The report for a configuration with which nothing can be checked.
    pub(super) fn from_problems(problems: Vec<String>) -> Self {
        Self { verdict: CheckVerdict::Misconfigured, problems, bridge: Vec::new(), backends: Vec::new() }
    }
}

/// A certificate in the JSON report.
#[derive(Debug, Serialize)]
pub(super) struct CertificateInfo {
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) names: Vec<String>,
    pub(super) not_before: String,
    pub(super) not_after: String,
    pub(super) fingerprint: String,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::core::compat::plugin::{JobEnding, RequestHandling};

    #[test]
    fn the_schema_lists_every_enum_value_and_no_other() {
        let schema: Value =
            serde_json::from_str(include_str!("../../../fixtures/check.schema.json")).unwrap();
        let kinds: Vec<&str> = Kind::all().map(Kind::as_str).collect();
        for (name, words) in [
            ("verdict", &CheckVerdict::NAMES[..]),
            ("check", &CheckName::NAMES),
            ("treatment", &RequestHandling::NAMES),
            ("ending", &JobEnding::NAMES),
            // Without `auto`.
            ("channel", &ChannelChoice::NAMES[1..]),
            ("choice", &ChannelChoice::NAMES),
            ("unsupported", &UnsupportedPolicy::NAMES),
            ("kind", &kinds),
        ] {
            assert_eq!(schema["$defs"][name]["enum"], serde_json::json!(words), "{name}");
        }
    }
}
