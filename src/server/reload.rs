//! Reading the configuration again while the bridge serves.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::certificate::Certificate;
use super::{Server, StartError, bind, doors, supervisor, tell};
use crate::config::{self, Config};
use crate::handler::{Reload, State};
use crate::telemetry;
use crate::tls::TlsError;

/// Where a configuration is read from again.
pub(super) struct Source(Box<dyn Fn() -> Result<Config, config::Error> + Send>);

/// Where the answer to somebody goes who wants a reload.
pub(super) type Wanted = oneshot::Sender<Result<(), ReloadError>>;

/// Asks the bridge to read its configuration again.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<Wanted>);

/// Why the configuration that was in force is in force still.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A new listener could not be bound.
    #[error("{source}{}", why(.source))]
    Start {
        /// Why not.
        #[from]
        source: StartError,
    },
    /// It wants something that only a restart can do.
    #[error("{key} cannot change from {before} to {after} while the bridge runs: restart it")]
    Restart {
        /// What cannot change.
        key: &'static str,
        /// What it is.
        before: String,
        /// What it would be.
        after: String,
    },
    /// There is nothing to read it from, or the bridge is stopping.
    #[error("the bridge is stopping, or does not know where its configuration came from")]
    Unavailable,
}

/// What an error leaves to its source to say.
fn why(error: &StartError) -> String {
    error.source().map(|source| format!(": {source}")).unwrap_or_default()
}

impl Reloader {
    pub(super) fn new(wanted: mpsc::Sender<Wanted>) -> Self {
        Self(wanted)
    }

    /// Makes the bridge read its configuration again, and waits until it has.
    ///
    /// # Errors
    ///
    /// Why nothing has changed.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        let (sender, answer) = oneshot::channel();
        self.0.send(sender).await.map_err(|_| ReloadError::Unavailable)?;
        answer.await.unwrap_or(Err(ReloadError::Unavailable))
    }
}

impl Source {
    pub(super) fn new(read: impl Fn() -> Result<Config, config::Error> + Send + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Reload for Reloader {
    fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Reloader::reload(self).await.map_err(|error| error.to_string()) })
    }
}

impl Server {
    /// Reads the configuration again. Everything of it is in force then, for whatever begins from now on; or
    /// nothing.
    pub(super) async fn reload(&mut self) -> Result<(), ReloadError> {
        // Whoever was told that the bridge is stopping need not be told more.
        let is_serving = !self.bridge.registry.is_draining();
        if is_serving {
            supervisor::reloading();
        }
        let reloaded = self.take_over().await;
        telemetry::Reloaded { error: reloaded.as_ref().err().map(ToString::to_string) }.emit();
        if is_serving {
            supervisor::ready(&self.status());
        }
        reloaded
    }

    async fn take_over(&mut self) -> Result<(), ReloadError> {
        let Source(read) = self.source.as_ref().ok_or(ReloadError::Unavailable)?;
        let config = read()?;
        let before = self.bridge.state();
        if before.config.data_dir != config.data_dir {
            let shown = |path: &Option<PathBuf>| {
                path.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
            };
            let (before, after) = (shown(&before.config.data_dir), shown(&config.data_dir));
            return Err(ReloadError::Restart { key: "data_dir", before, after });
        }
        let [frames, wanted] = [&before.config, &config].map(|config| config.jobs.log_frames.to_string());
        if frames != wanted {
            return Err(ReloadError::Restart { key: "jobs.log_frames", before: frames, after: wanted });
        }
        let certificate = Certificate::load(config.tls.as_ref())?;
        let wanted = doors(&config);
        let state = State::new(config, Some(&before))?;
        let mut bound = Vec::new();
        for (door, address) in &wanted {
            if !self.listeners.has(*door, *address) {
                bound.push((*door, *address, bind(*door, *address).await?));
            }
        }
        // From here on nothing can fail.
        self.bridge.replace(state);
        self.certificate.replace(certificate);
        self.listeners.keep(&wanted);
        for (door, address, listener) in bound {
            self.listeners.open(door, address, listener);
        }
        tell(&self.bridge.state().config);
        self.listeners.tell();
        self.recall();
        Ok(())
    }
}
