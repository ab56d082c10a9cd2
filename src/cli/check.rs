//! `proxbox-bridge check`: what the bridge will do, and whether its backends let it.
//!
//! | part | what it looks at |
//! |---|---|
//! | `bridge` | the configuration, and the files that it names |
//! | `examine` | one backend, from its name to what it can do |
//! | `reach` | its name, its addresses, its certificate |
//! | `ask` | what it says of itself, and what follows for syncs |
//! | `netbox` | how it reaches NetBox |
//! | `certificate`, `said` | what may be shown of certificates and answers |
//! | `report`, `word`, `text` | what was found, for programs and for people |

mod backend;
mod bridge;
mod certificate;
mod connect;
mod netbox;
mod probe;
mod redact;
mod render;
mod report;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};

use futures::future::join_all;

use super::print;
use crate::config::{self, Config, Flags, environment};
use crate::core::domain::credential::ApiKey;
use backend::check_backend;
use report::CheckReport;
use verdict::CheckVerdict;

/// Read the configuration, say what the bridge will do, and ask its backends whether it can.
///
/// It starts no sync, opens no /ws and writes nothing. A key is tried once at the most: five refusals lock the
/// address out. What it prints with --json is described by fixtures/check.schema.json.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 it works, warnings or not; 1 something is wrong; 64 not a command line that \
                        we understand; 78 bad configuration, or a file that it names."
)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Look at this one of several backends
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// A file with the API key to check with, such as the plugin's, for a backend without backend.api_key_file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// What was found is not good.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Something is wrong, and was told.
    #[error("something is wrong: see what is marked FAILED")]
    ChecksFailed,
    /// A file that the configuration names cannot be used, and that was told.
    #[error("the configuration cannot be used: see what is marked FAILED")]
    Configuration,
    /// There was nothing to begin with.
    #[error("{0}")]
    Arguments(String),
}

impl CheckError {
    /// Whether it is the configuration that has to be changed.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Configuration | Self::Arguments(_))
    }
}

/// Checks everything.
///
/// # Errors
///
/// A bad configuration, [`CheckError::ChecksFailed`], or an output that cannot be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags, json, only, key_file } = args;
    let config = match Config::load(&flags, environment()) {
        Ok(config) => config,
        Err(error) => {
            let problems = error.problems().iter().map(ToString::to_string);
            return Err(report_config_errors(json, problems.collect(), error.into())?);
        }
    };
    let (backends, key) = match select_backends(&config, only.as_deref(), key_file.as_deref()) {
        Ok(chosen) => chosen,
        Err(problem) => {
            return Err(report_config_errors(
                json,
                vec![problem.clone()],
                CheckError::Arguments(problem).into(),
            )?);
        }
    };
    let examined = backends.into_iter().map(|backend| check_backend(&config, backend, key.as_ref()));
    let report = CheckReport::new(bridge::check_bridge(&config), join_all(examined).await);
    print(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    match report.verdict {
        CheckVerdict::Misconfigured => Err(CheckError::Configuration.into()),
        CheckVerdict::Failed => Err(CheckError::ChecksFailed.into()),
        _ => Ok(()),
    }
}

/// The backends to look at, and the key for one that has none of its own.
fn select_backends<'a>(
    config: &'a Config,
    only: Option<&str>,
    key_file: Option<&Path>,
) -> Result<(Vec<&'a config::Backend>, Option<ApiKey>), String> {
    let is_wanted = |backend: &&config::Backend| only.is_none_or(|name| backend.name == name);
    let backends: Vec<_> = config.backends.iter().filter(is_wanted).collect();
    if backends.is_empty() {
        let names = names(config.backends.iter());
        return Err(format!("--only: no backend has this name; there is {names}"));
    }
    let Some(path) = key_file else { return Ok((backends, None)) };
    let text =
        fs::read_to_string(path).map_err(|error| format!("--key-file: cannot read {path:?}: {error}"))?;
    let key = text.parse().map_err(|error| format!("--key-file: no key in {path:?}: {error}"))?;
    let keyless: Vec<_> = backends.iter().copied().filter(|backend| backend.api_key.is_none()).collect();
    // The key of one is a wrong one for the others, and none of their business.
    match keyless.as_slice() {
        [_] => Ok((backends, Some(key))),
        [] => Err("--key-file: backend.api_key_file is set, and that key is checked".to_owned()),
        several => {
            let names = names(several.iter().copied());
            Err(format!("--key-file: a key is for one backend; choose with --only which of {names}"))
        }
    }
}

fn names<'a>(backends: impl Iterator<Item = &'a config::Backend>) -> String {
    backends.map(|backend| backend.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Tells programs of `problems` for which nothing can be checked; gives `error` back.
fn report_config_errors(
    json: bool,
    problems: Vec<String>,
    error: anyhow::Error,
) -> anyhow::Result<anyhow::Error> {
    if json {
        print(&serde_json::to_string_pretty(&CheckReport::from_problems(problems))?)?;
    }
    Ok(error)
}
