//! The part of the API that needs no running bridge: jobs, from a ledger that is only read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{Resource, jobs};
use crate::app::{App, AppState, Reloader};
use crate::config::Config;
use crate::core::domain::error_code::ErrorCode;
use crate::job;
use crate::ledger::{Ledger, LedgerOptions, LedgerReadError, SystemClock};
use crate::respond::{self, Body};

/// How long a read waits for a bridge that holds a lock on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The jobs in a ledger that no bridge serves.
#[derive(Debug)]
pub struct StoredJobs {
    app: App,
}

/// The answer to `GET /backends`: what the ledger has of them.
#[derive(Serialize)]
struct StoredBackends {
    results: Vec<StoredBackend>,
}

#[derive(Serialize)]
struct StoredBackend {
    url: String,
    version: Option<String>,
    dialect: Option<&'static str>,
    detected: String,
}

impl StoredJobs {
    /// Opens the ledger in `directory`, with the limits and the names of the backends in `config`. Nothing is written
    /// there.
    ///
    /// # Errors
    ///
    /// [`LedgerReadError`].
    pub async fn open(config: Config, directory: PathBuf) -> Result<Self, LedgerReadError> {
        let options = LedgerOptions {
            directory: Some(directory.clone()),
            retention: job::retention(&config.limits),
            log_frames: config.jobs.log_frames,
            busy_timeout: BUSY_TIMEOUT,
            clock: Arc::new(SystemClock),
            notifications: Vec::new(),
        };
        let ledger = Ledger::open_read_only(directory, options).await?;
        // No request is sent to a backend, whose certificates need not be readable.
        let state = AppState::without_backends(config);
        Ok(Self { app: App::new(state, ledger, Reloader::new(mpsc::channel(1).0)) })
    }

    /// Answers a GET of `target`, a path of the API with a query: `/jobs`, those below it, or `/backends`.
    pub async fn get(&self, target: &str) -> Response<Body> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match Resource::from_path(path) {
            Some((Resource::Jobs, _)) => jobs::list(&self.app, query).await,
            Some((Resource::Job, id)) => jobs::get(&self.app, id).await,
            Some((Resource::Events, id)) => jobs::stored_events(&self.app, id).await,
            Some((Resource::Failed, id)) => jobs::failed(&self.app, id, query, &HeaderMap::new()).await,
            Some((Resource::Recording, id)) => jobs::recording(&self.app, id).await,
            Some((Resource::Backends, _)) => self.backends().await,
            _ => respond::error(
                StatusCode::NOT_FOUND,
                ErrorCode::NotFound,
                "Not found.",
                "Without a running bridge there are the jobs in its ledger alone.",
            ),
        }
    }

    async fn backends(&self) -> Response<Body> {
        let read = self.app.registry.ledger().history().await;
        let detected = read.map(|history| history.capabilities).unwrap_or_default();
        let results = detected.into_iter().map(|(url, detected)| StoredBackend {
            url: url.to_string(),
            version: detected.capabilities.release.map(|release| release.to_string()),
            dialect: detected.capabilities.dialect().map(|dialect| dialect.as_str()),
            detected: detected.at.to_string(),
        });
        respond::object(StatusCode::OK, &StoredBackends { results: results.collect() })
    }
}
