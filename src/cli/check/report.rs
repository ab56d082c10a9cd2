//! What was found. `fixtures/check.schema.json` describes it as JSON: a change here is a change there.

use serde::{Serialize, Serializer};

use super::verdict::{Check, Verdict};
use crate::config;
use crate::core::compat::plugin::Forecast;
use crate::core::domain::channel::{Channel, Choice};
use crate::core::domain::kind::Kind;
use crate::core::run::policy::Unsupported;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    #[serde(serialize_with = "displayed")]
    pub(super) check: Check,
    #[serde(serialize_with = "displayed")]
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do about it, if there is something.
    pub(super) advice: Option<String>,
    /// The certificate that this is about.
    pub(super) certificate: Option<Shown>,
}

/// How a kind will be synchronised.
#[derive(Debug, Serialize)]
pub(super) struct KindLine {
    #[serde(serialize_with = "displayed")]
    pub(super) kind: Kind,
    /// The channels, in their order; none if it cannot be synchronised.
    #[serde(serialize_with = "all_displayed")]
    pub(super) channels: Vec<Channel>,
    /// The stages of a full update that will be left out.
    #[serde(serialize_with = "all_displayed")]
    pub(super) left_out: Vec<Kind>,
}

/// One backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendReport {
    pub(super) name: String,
    pub(super) url: String,
    /// The channels that are allowed.
    #[serde(serialize_with = "displayed")]
    pub(super) channel: Choice,
    pub(super) checks: Vec<Line>,
    pub(super) kinds: Vec<KindLine>,
    /// What becomes of a kind without a channel.
    #[serde(serialize_with = "displayed")]
    pub(super) unsupported: Unsupported,
    /// What jobs of NetBox come to; nothing if the backend did not say enough.
    pub(super) plugin_job: Option<Forecast>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The worst of all; what is no worse than skipped is ok.
    #[serde(serialize_with = "displayed")]
    pub(super) verdict: Verdict,
    /// What is wrong with the configuration. If there is anything, nothing was checked.
    pub(super) problems: Vec<String>,
    /// The bridge itself.
    pub(super) bridge: Vec<Line>,
    pub(super) backends: Vec<BackendReport>,
}

fn displayed<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn all_displayed<T: ToString, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

impl Line {
    pub(super) fn new(check: Check, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into(), advice: None, certificate: None }
    }

    pub(super) fn ok(check: Check, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found)
    }

    pub(super) fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl BackendReport {
    /// Of a backend that was not asked anything yet.
    pub(super) fn new(backend: &config::Backend) -> Self {
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

impl Report {
    pub(super) fn new(bridge: Vec<Line>, backends: Vec<BackendReport>) -> Self {
        let lines = backends.iter().flat_map(|backend| &backend.checks).chain(&bridge);
        let worst = lines.map(|line| line.verdict).filter(|verdict| *verdict > Verdict::Skipped).max();
        Self { verdict: worst.unwrap_or(Verdict::Ok), problems: Vec::new(), bridge, backends }
    }

    /// Of a configuration with which nothing can be checked.
    pub(super) fn of_problems(problems: Vec<String>) -> Self {
        Self { verdict: Verdict::Misconfigured, problems, bridge: Vec::new(), backends: Vec::new() }
    }
}

/// A certificate, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
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
    use crate::core::compat::plugin::{Ending, Treatment};

    #[test]
    fn the_schema_knows_every_word_and_no_other() {
        let schema: Value =
            serde_json::from_str(include_str!("../../../fixtures/check.schema.json")).unwrap();
        let kinds: Vec<&str> = Kind::all().map(Kind::as_str).collect();
        for (name, words) in [
            ("verdict", &Verdict::WORDS[..]),
            ("check", &Check::WORDS),
            ("treatment", &Treatment::WORDS),
            ("ending", &Ending::WORDS),
            // All but auto.
            ("channel", &Choice::WORDS[1..]),
            ("choice", &Choice::WORDS),
            ("unsupported", &Unsupported::WORDS),
            ("kind", &kinds),
        ] {
            assert_eq!(schema["$defs"][name]["enum"], serde_json::json!(words), "{name}");
        }
    }
}
