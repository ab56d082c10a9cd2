//! `proxbox-bridge check`: what the bridge will do, and whether its backends let it.

mod examine;
mod report;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::config::{Config, Flags, environment};
use crate::core::credential::ApiKey;
use examine::examine;
use report::{Report, Verdict};

/// Read the configuration, say what the bridge will do, and ask its backends whether it can.
///
/// It starts no sync and writes nothing. A key is tried once at the most: five refusals lock the address out.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// A file with the API key to check with, such as the plugin's, where backend.api_key_file is not set
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Something is wrong, and was told.
#[derive(Debug, thiserror::Error)]
#[error("something is wrong: see what is marked with FAILED above")]
pub struct Failed;

/// Checks everything.
///
/// # Errors
///
/// A bad configuration, [`Failed`], or a file or an output that cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { flags, json, key_file } = args;
    let config = match Config::load(&flags, environment()) {
        Ok(config) => config,
        Err(error) => {
            if json {
                print(&report::of_bad_configuration(&error).to_string())?;
            }
            return Err(error.into());
        }
    };
    let key = key_file.map(|path| key(&path)).transpose()?;
    let mut report = Report::of(&config);
    for backend in &config.backends {
        report.backends.push(examine(&config, backend, key.as_ref()).await);
    }
    print(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    if report.verdict() == Verdict::Failed { Err(Failed.into()) } else { Ok(()) }
}

fn key(path: &std::path::Path) -> anyhow::Result<ApiKey> {
    let text = fs::read_to_string(path).with_context(|| format!("--key-file: cannot read {path:?}"))?;
    text.parse().with_context(|| format!("--key-file: no key in {path:?}"))
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write to standard output")
}
