//! `proxbox-bridge sync`: runs a sync and follows it to its end.
//!
//! | module | subject |
//! |---|---|
//! | `remote` | the job of a running bridge |
//! | `local` | a job in this process, for a backend without a bridge |
//! | `event` | the events and their texts |
//! | `report` | the events as lines or as JSON |
//! | `bars` | the events as progress bars on a terminal |

mod bars;
mod event;
mod local;
mod remote;
mod report;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use form_urlencoded::byte_serialize;
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse};

use super::bridge::BridgeArgs;
use crate::client::{BridgeError, StreamItem};
use crate::core::domain::counts::Counts;
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;
use crate::core::http::url::BackendUrl;
use local::LocalJob;
use remote::RemoteJob;
use report::Report;

/// Run a sync and follow it to its end.
///
/// The sync is started on a running bridge, or attached to if it runs there already. With --url it is run on a backend
/// without a bridge. On a terminal it is shown as progress bars, elsewhere as lines.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("backend", |backend| {
        backend.hide(false).value_name("NAME").help("The backend, if the bridge has several").conflicts_with("url")
    }),
    mut_arg("channel", |channel| channel.hide(false).help("With --url: auto, native, websocket or json [default: auto]")),
    after_help = HELP
)]
pub struct Args {
    /// What is synchronised
    #[arg(value_parser = PossibleValuesParser::new(Kind::all().map(Kind::as_str))
        .try_map(|name| Kind::from_name(&name).ok_or("no such kind")))]
    kind: Kind,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Parameter of the sync, as in proxmox_endpoint_ids=1,2. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    query: Vec<String>,
    /// Wait for the end of the sync. This is the default
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// Start the sync and print the id of its job
    #[arg(long)]
    detach: bool,
    /// Print each event as a JSON object on one line
    #[arg(long)]
    json: bool,
    /// Exit with 4 if the sync completed and objects failed
    #[arg(long)]
    strict: bool,
    /// Run the sync on the backend at this URL, without a bridge
    #[arg(long, value_name = "URL", conflicts_with_all = ["bridge", "detach"])]
    url: Option<BackendUrl>,
    /// File with the API key of the backend. A bridge with backend.api_key_file sends that key instead
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How long a stream whose connection was lost is resumed
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

const HELP: &str = "Exit codes: 0 the sync completed; 1 it failed or could not be started; 2 its stream was lost and \
                    could not be resumed; 3 it was cancelled; 4 with --strict, objects failed; 64 invalid command \
                    line; 78 invalid configuration; 130 left before its end.\n\n\
                    Ctrl-C cancels a sync that this command has started, and leaves one that was running before. \
                    A second Ctrl-C leaves at once.\n\n\
                    Examples:\n  \
                    proxbox-bridge sync full-update\n  \
                    proxbox-bridge sync devices --query proxmox_endpoint_ids=1,2 --json\n  \
                    proxbox-bridge sync virtual-machines --url http://127.0.0.1:8000";

const NO_OUTPUT: &str = "cannot write to standard output";

fn parse_parameter(text: &str) -> Result<String, String> {
    let (name, value) =
        text.split_once('=').ok_or("expected NAME=VALUE, such as proxmox_endpoint_ids=1,2")?;
    Ok(format!("{}={}", encoded(name), encoded(value)))
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Why a sync did not complete, as its exit code tells.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// It failed.
    #[error("the sync failed: {0}")]
    Failed(String),
    /// Its stream was lost.
    #[error("the stream was lost and could not be resumed")]
    Lost(#[source] BridgeError),
    /// It was cancelled.
    #[error("the sync was cancelled")]
    Cancelled,
    /// It completed, and this many objects failed.
    #[error("objects that failed: {0}")]
    ObjectsFailed(u64),
    /// This command left before its end.
    #[error("{0}")]
    Left(String),
}

impl SyncError {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Lost(_) => 2,
            Self::Cancelled => 3,
            Self::ObjectsFailed(_) => 4,
            // As a shell reports a command that Ctrl-C ended.
            Self::Left(_) => 130,
        }
    }
}

/// The job that is followed.
enum SyncJob {
    Remote(Box<RemoteJob>),
    Local(Box<LocalJob>),
}

/// How a job ended.
struct JobResult {
    outcome: Outcome,
    /// All details of the failure.
    error: String,
    counts: Counts,
}

/// What is known of the request to cancel a job.
#[derive(Clone, Copy)]
enum Cancellation {
    /// It was not sent, or is not answered yet.
    Unknown,
    /// The bridge has accepted it.
    Accepted,
}

impl SyncJob {
    async fn start(args: &mut Args, mut query: Vec<String>, key: Option<ApiKey>) -> anyhow::Result<Self> {
        match &args.url {
            Some(url) => {
                let flags = &args.bridge.flags;
                let job = LocalJob::start(flags, url, args.kind, &query.join("&"), key).await?;
                Ok(Self::Local(Box::new(job)))
            }
            None => {
                let backend = args.bridge.take_backend();
                query.extend(backend.map(|name| format!("bridge.backend={}", encoded(&name))));
                let (client, query) = (args.bridge.client()?, query.join("&"));
                let job = RemoteJob::start(client, args.kind, &query, key, args.retry_for).await?;
                Ok(Self::Remote(Box::new(job)))
            }
        }
    }

    async fn next(&mut self) -> Result<Option<StreamItem>, BridgeError> {
        match self {
            Self::Remote(job) => job.events.next().await,
            Self::Local(job) => Ok(job.next().await.map(StreamItem::Event)),
        }
    }

    /// Cancels the job.
    fn cancel(&self) -> BoxFuture<'static, Result<(), BridgeError>> {
        match self {
            Self::Remote(job) => job.cancel().boxed(),
            Self::Local(job) => {
                job.cancel();
                futures::future::pending().boxed()
            }
        }
    }

    /// This command leaves the job before its end.
    fn left(&self, cancellation: Cancellation) -> SyncError {
        SyncError::Left(match self {
            Self::Remote(job) if job.is_own => match cancellation {
                Cancellation::Accepted => format!("left job {}, which is being cancelled", job.id),
                Cancellation::Unknown => format!("left job {}, which may not have been cancelled", job.id),
            },
            Self::Remote(job) => format!("left job {}, which was there before and goes on", job.id),
            Self::Local(_) => "the sync was cut off".to_owned(),
        })
    }

    /// How the job ended, if that is known.
    async fn result(&self) -> Option<JobResult> {
        match self {
            Self::Remote(job) => job.result().await,
            Self::Local(job) => job.result().await,
        }
    }
}

/// Runs the sync and prints its events.
///
/// # Errors
///
/// [`SyncError`], an invalid configuration, or a sync that could not be started.
pub async fn run(mut args: Args) -> anyhow::Result<()> {
    let [first, second] = [1, 2].map(super::termination);
    let mut first = pin!(first.context("cannot listen for signals")?.fuse());
    let mut second = pin!(second.context("cannot listen for signals")?.fuse());
    let key = args.key_file.as_deref().map(super::bridge::read_key).transpose()?;
    let mut report = if args.json { Report::Json(0) } else { Report::new(args.kind) };
    let mut query = args.query.clone();
    // The backend's own events have the number of objects.
    query.extend(report.draws().then(|| "bridge.events=all".to_owned()));
    let mut job = tokio::select! {
        job = SyncJob::start(&mut args, query, key) => job?,
        () = &mut first => {
            let text = "left before the answer: the sync may have been started";
            return Err(SyncError::Left(text.to_owned()).into());
        }
    };
    if let SyncJob::Remote(job) = &job {
        if args.detach && !args.wait {
            return super::print(&if args.json { job.object.clone() } else { job.id.clone() });
        }
        match report.job(job) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.context(NO_OUTPUT)?,
        }
    }

    let mut cancelled = pin!(Fuse::<BoxFuture<'_, _>>::terminated());
    let mut cancellation = Cancellation::Unknown;
    let mut is_complete = None;
    let lost = loop {
        tokio::select! {
            biased;
            () = &mut second => return Err(job.left(cancellation).into()),
            () = &mut first => {
                if matches!(&job, SyncJob::Remote(job) if !job.is_own) {
                    return Err(job.left(cancellation).into());
                }
                report.note("Cancelling the sync. Ctrl-C again leaves at once.");
                cancelled.set(job.cancel().fuse());
            }
            result = &mut cancelled => match result {
                Ok(()) => cancellation = Cancellation::Accepted,
                Err(error) => report.note(&format!("Cannot cancel the sync: {:#}", anyhow::Error::from(error))),
            },
            item = job.next() => match item {
                Ok(None) => break None,
                Err(error) => break Some(error),
                Ok(Some(StreamItem::Lost(error))) => {
                    report.note(&format!("Resuming the stream: {:#}.", anyhow::Error::from(error)));
                }
                Ok(Some(StreamItem::Event(event))) => {
                    if event.name == "complete" {
                        is_complete = Some(event::is_ok(&event));
                    }
                    match report.event(&event) {
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => match &job {
                            // The sync does not depend on its reader.
                            SyncJob::Remote(_) => return Ok(()),
                            SyncJob::Local(_) => report = Report::Silent,
                        },
                        written => written.context(NO_OUTPUT)?,
                    }
                }
            },
        }
    };
    let result = job.result().await;
    report.end(&result.as_ref().map(|result| result.counts.clone()).unwrap_or_default())?;
    let (outcome, error, failed) = match (result, is_complete, lost) {
        (Some(JobResult { outcome, error, counts }), ..) => (outcome, error, counts.total().failed),
        (None, Some(is_ok), _) => {
            let outcome = if is_ok { Outcome::Completed } else { Outcome::Errored };
            (outcome, "its record could not be read".to_owned(), report.failed())
        }
        (None, None, Some(error)) => return Err(SyncError::Lost(error).into()),
        (None, None, None) => return Err(anyhow!("the stream has no end")),
    };
    match outcome {
        Outcome::Completed if args.strict && failed > 0 => Err(SyncError::ObjectsFailed(failed).into()),
        Outcome::Completed => Ok(()),
        Outcome::Cancelled => Err(SyncError::Cancelled.into()),
        _ => Err(SyncError::Failed(error).into()),
    }
}
