//! `proxbox-bridge check`: checks the configuration, its files, the backends and NetBox.
//!
//! | module | subject |
//! |---|---|
//! | `bridge` | the configuration and its files |
//! | `backend` | one backend: runs the checks below |
//! | `connect` | its host name, its addresses, its certificate |
//! | `probe` | its release, its API key, its channels |
//! | `netbox` | its connection to NetBox |
//! | `notify` | the targets of notifications |
//! | `certificate`, `redact` | the texts on certificates, and answers without the API key |
//! | `report`, `verdict`, `render` | the results as JSON, their values, and their text form |

mod backend;
mod bridge;
mod certificate;
mod connect;
mod netbox;
mod notify;
mod probe;
mod redact;
mod render;
mod report;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};

use futures::future::join_all;

use super::print;
use crate::config::{self, Config, EffectiveConfig, Flags, environment};
use crate::core::domain::credential::ApiKey;
use backend::{check_backend, check_files};
use report::CheckReport;
use verdict::CheckVerdict;

/// Check the configuration, the backends and NetBox without changing anything.
///
/// The check starts no sync, opens no /ws and writes nothing. It tries an API key at most once, because backends lock
/// an address out after five refusals. The output of --json is described by fixtures/check.schema.json.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        proxbox-bridge check --config /etc/proxbox-bridge/proxbox-bridge.toml\n  \
        proxbox-bridge check --offline --config new.toml\n  \
        proxbox-bridge check --backend http://127.0.0.1:8802 --key-file plugin-key\n\n\
        Exit codes: 0 no check failed (there may be warnings); 1 a check failed; 64 invalid command line; \
        78 invalid configuration, or a file that it names is not usable.")]
pub struct Args {
    #[command(flatten)]
    flags: Flags,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Check the configuration and its files only, without any connection
    #[arg(long, conflicts_with_all = ["notify", "key_file"])]
    offline: bool,

    /// Send a test notification to each target of [[notify]]
    #[arg(long)]
    notify: bool,

    /// Check this backend only
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// File with the API key to check a backend with that has no backend.api_key_file, such as the plugin's key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Why the check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A check failed. The report has been printed.
    #[error("checks failed: see the lines marked FAILED")]
    ChecksFailed,
    /// A file that the configuration names is not usable. The report has been printed.
    #[error("the configuration is not usable: see the lines marked FAILED")]
    Configuration,
    /// An argument does not fit the configuration. Nothing was checked.
    #[error("{0}")]
    Arguments(String),
}

impl CheckError {
    /// Whether the configuration or the command line has to be changed.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Configuration | Self::Arguments(_))
    }
}

/// Runs all checks and prints the report.
///
/// # Errors
///
/// An invalid configuration, [`CheckError`], or an error of standard output.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags, json, offline, notify, only, key_file } = args;
    let config = match Config::load(&flags, environment()) {
        Ok(config) => config,
        Err(error) => {
            if json {
                print_problems(error.problems().iter().map(ToString::to_string).collect())?;
            }
            return Err(error.into());
        }
    };
    let (backends, key) = match select_backends(&config, only.as_deref(), key_file.as_deref()) {
        Ok(chosen) => chosen,
        Err(problem) => {
            if json {
                print_problems(vec![problem.clone()])?;
            }
            return Err(CheckError::Arguments(problem).into());
        }
    };
    let mut bridge = bridge::check_bridge(&config);
    bridge.extend(
        EffectiveConfig::load(&flags, environment())?.secret_files().filter_map(bridge::secret_file_line),
    );
    bridge.extend(if notify { notify::test_targets(&config).await } else { notify::check_targets(&config) });
    let backends = match offline {
        true => backends.into_iter().map(|backend| check_files(&config, backend)).collect(),
        false => {
            join_all(backends.into_iter().map(|backend| check_backend(&config, backend, key.as_ref()))).await
        }
    };
    let report = CheckReport::new(bridge, backends);
    print(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    match report.verdict {
        CheckVerdict::Misconfigured => Err(CheckError::Configuration.into()),
        CheckVerdict::Failed => Err(CheckError::ChecksFailed.into()),
        _ => Ok(()),
    }
}

/// The backends to check, and the key for the one without a configured key.
fn select_backends<'a>(
    config: &'a Config,
    only: Option<&str>,
    key_file: Option<&Path>,
) -> Result<(Vec<&'a config::BackendConfig>, Option<ApiKey>), String> {
    let is_wanted = |backend: &&config::BackendConfig| only.is_none_or(|name| backend.name == name);
    let backends: Vec<_> = config.backends.iter().filter(is_wanted).collect();
    if backends.is_empty() {
        let names = names(config.backends.iter());
        return Err(format!("--only: no backend has this name; configured: {names}"));
    }
    let Some(path) = key_file else { return Ok((backends, None)) };
    let text =
        fs::read_to_string(path).map_err(|error| format!("--key-file: cannot read {path:?}: {error}"))?;
    let key = text.parse().map_err(|error| format!("--key-file: not a key in {path:?}: {error}"))?;
    let keyless: Vec<_> = backends.iter().copied().filter(|backend| backend.api_key.is_none()).collect();
    // A key must not be sent to a backend that it is not for.
    match keyless.as_slice() {
        [_] => Ok((backends, Some(key))),
        [] => {
            Err("--key-file: not needed, because backend.api_key_file is set and its key is checked"
                .to_owned())
        }
        several => {
            let names = names(several.iter().copied());
            Err(format!("--key-file: a key is for one backend; select it with --only from {names}"))
        }
    }
}

fn names<'a>(backends: impl Iterator<Item = &'a config::BackendConfig>) -> String {
    backends.map(|backend| backend.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Prints a report in JSON with the `problems` of a configuration with which nothing can be checked.
fn print_problems(problems: Vec<String>) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(&CheckReport::from_problems(problems))?)
}
