//! Where jobs are read from.

use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::super::bridge::BridgeArgs;
use super::super::note;
use super::record::JobRecord;
use crate::admin::StoredJobs;
use crate::client::{BridgeClient, BridgeError, connectable_address};
use crate::config::{Config, environment};
use crate::ledger::JobId;

/// A running bridge, or a ledger.
#[derive(Debug)]
pub(super) enum JobSource {
    /// The API of a running bridge.
    Bridge(BridgeClient),
    /// The ledger, while no bridge runs.
    Ledger(Box<StoredJobs>),
}

/// The statuses of answers that say that there is no such data.
const MISSING: [StatusCode; 2] = [StatusCode::NOT_FOUND, StatusCode::GONE];
/// An id that is greater than any other.
const GREATEST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// The least number of characters of an abbreviated id, so that a typing error or an empty variable names no job.
const SHORTEST_ID: usize = 8;

/// The error that a ledger answered with.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{message} {detail}")]
struct StoredError {
    #[serde(skip)]
    status: StatusCode,
    message: String,
    detail: String,
}

/// What is read of a list of jobs to find one.
#[derive(Deserialize)]
struct JobIds {
    results: Vec<JobIdField>,
}

#[derive(Deserialize)]
struct JobIdField {
    id: String,
}

impl JobSource {
    /// The running bridge. If no bridge listens on this machine, its ledger, which is noted on standard error.
    ///
    /// # Errors
    ///
    /// An invalid configuration, or neither a bridge nor a readable ledger.
    pub(super) async fn open(args: &BridgeArgs) -> anyhow::Result<Self> {
        let client = args.client()?;
        let unreachable = match client.call(Method::GET, "/livez", HeaderMap::new()).await {
            Err(error) if error.is_not_running() && !args.is_remote() => error,
            // Another error is that of the first request, too.
            _ => return Ok(Self::Bridge(client)),
        };
        let config = Config::load(&args.flags, environment())
            .or_else(|_| Config::without_backends(&args.flags, environment()))?;
        let Some(directory) = config.data_dir.clone() else {
            let reason = "no bridge answers, and data_dir, which has the ledger, is not set";
            return Err(anyhow::Error::from(unreachable).context(reason));
        };
        let address = connectable_address(config.admin_listen);
        let place = directory.display().to_string();
        let jobs = StoredJobs::open(config, directory).await;
        let jobs = jobs.with_context(|| format!("no bridge answers at http://{address}"))?;
        note(&format!("No bridge answers at http://{address}: read from the ledger in {place}."));
        Ok(Self::Ledger(Box::new(jobs)))
    }

    /// The body of a successful answer to a GET of `target`.
    ///
    /// # Errors
    ///
    /// Any other answer, or none.
    pub(super) async fn get(&self, target: &str) -> anyhow::Result<Bytes> {
        match self {
            Self::Bridge(client) => Ok(client.call(Method::GET, target, HeaderMap::new()).await?),
            Self::Ledger(jobs) => {
                let (parts, body) = jobs.get(target).await.into_parts();
                let body = body.collect().await.map_err(|error| anyhow!(error))?.to_bytes();
                if parts.status.is_success() {
                    return Ok(body);
                }
                Err(StoredError { status: parts.status, ..super::parse(&body)? }.into())
            }
        }
    }

    /// [`JobSource::get`] for data that a job may not have.
    ///
    /// # Errors
    ///
    /// Any other error than that there is no such data.
    pub(super) async fn find(&self, target: &str) -> anyhow::Result<Option<Bytes>> {
        let found = self.get(target).await;
        let is_missing = found.as_ref().is_err_and(|error| {
            let refusal = error.downcast_ref().and_then(BridgeError::refusal).map(|refusal| refusal.status);
            let stored = error.downcast_ref().map(|error: &StoredError| error.status);
            refusal.or(stored).is_some_and(|status| MISSING.contains(&status))
        });
        // The answer 204 has no body.
        if is_missing { Ok(None) } else { Ok(Some(found?).filter(|body| !body.is_empty())) }
    }

    /// `job` as it is shown. An unfinished job in a ledger does not run; the next start of the bridge ends it.
    pub(super) fn shown(&self, job: JobRecord) -> JobRecord {
        match self {
            Self::Ledger(_) if job.outcome.is_none() => {
                JobRecord { status: "unfinished".to_owned(), started: None, ..job }
            }
            _ => job,
        }
    }

    /// The id that begins with `text`.
    ///
    /// # Errors
    ///
    /// If there is no such job, or more than one.
    pub(super) async fn find_id(&self, text: &str) -> anyhow::Result<String> {
        let start = text.to_ascii_lowercase();
        let rest = GREATEST_ID.get(start.len()..).unwrap_or_default();
        if JobId::from_str(&format!("{start}{rest}")).is_err() {
            bail!("{text:?} is not the id of a job");
        }
        if start.len() < SHORTEST_ID {
            bail!("{text:?} is too short: an abbreviated id of a job has at least {SHORTEST_ID} characters");
        }
        if rest.is_empty() {
            return Ok(start);
        }
        let newest: JobIds = super::parse(&self.get(&format!("/jobs?limit=2&before={start}{rest}")).await?)?;
        let mut ids = newest.results.into_iter().map(|job| job.id).filter(|id| id.starts_with(&start));
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id),
            (Some(one), Some(other)) => {
                bail!("several ids of jobs begin with {start}, such as {other} and {one}")
            }
            (None, _) => bail!("the id of no job begins with {start}; `proxbox-bridge jobs list` shows them"),
        }
    }
}

/// `text` as a part of a path or as a value in a query.
pub(super) fn parameter(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
