//! `proxbox-bridge jobs`: the jobs of a running bridge, or of its ledger while none runs.
//!
//! | module | subject |
//! |---|---|
//! | `source` | requests to the bridge, or to the ledger |
//! | `events` | the events of the bridge and of all its jobs |
//! | `record` | what is read of a job |
//! | `table` | tables that fit the terminal |
//! | `list`, `show`, `failed`, `watch`, `export` | the subcommands |

mod events;
mod export;
mod failed;
mod list;
mod record;
mod show;
mod source;
mod table;
mod watch;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::bridge::BridgeArgs;
use source::JobSource;

/// Show, follow and cancel jobs, and export one for a bug report.
///
/// While no bridge runs, the jobs are read from its ledger, which is not changed. The id of a job may be shortened.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum JobsCommand {
    /// List jobs, newest first
    List(list::Args),
    /// Show a job and its log
    Show(show::Args),
    /// Follow the jobs of a running bridge, or one job and its log
    Watch(watch::Args),
    /// List the failed objects of a job, or count them by their error
    Failed(failed::Args),
    /// Cancel a job of a running bridge
    Cancel(CancelArgs),
    /// Write one file for a bug report: a job with its log, failed objects and recording, the versions, and the
    /// configuration without secrets
    Export(export::Args),
}

/// The help of `--data-dir` where the ledger may be read.
const DATA_DIR: &str = "Directory of the ledger, which is read while no bridge runs";

/// The format of the output; a table without either.
#[derive(Debug, clap::Args)]
struct FormatArgs {
    /// Print the JSON of the API
    #[arg(long)]
    json: bool,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge jobs cancel 01a22f78-e567")]
struct CancelArgs {
    /// Its id
    job: String,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Print the JSON of the API
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
///
/// An invalid configuration, an error of the bridge or the ledger, or of standard output.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        JobsCommand::List(args) => list::run(args).await,
        JobsCommand::Show(args) => show::run(args).await,
        JobsCommand::Watch(args) => watch::run(args).await,
        JobsCommand::Failed(args) => failed::run(args).await,
        JobsCommand::Cancel(args) => cancel(args).await,
        JobsCommand::Export(args) => export::run(args).await,
    }
}

async fn cancel(args: CancelArgs) -> anyhow::Result<()> {
    let client = args.bridge.client()?;
    let id = JobSource::Bridge(client.clone()).find_id(&args.job).await?;
    let body = client.call(Method::DELETE, &format!("/jobs/{id}"), HeaderMap::new()).await?;
    super::print(&if args.json { text(&body).into_owned() } else { format!("Job {id} is being cancelled.") })
}

/// The text of an answer.
fn text(body: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(body)
}

/// Parses the JSON of an answer.
fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("the answer is not the JSON of a bridge")
}
