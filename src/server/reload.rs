//! Reading the configuration again while the bridge serves.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::certificate::Certificates;
use super::files::{self, FileReader, ReadResult};
use super::{Server, StartError, bind, listener_roles, log_startup, supervisor};
use crate::app::AppState;
use crate::app::Reload;
use crate::config::{self, Config};
use crate::proxy::Proxy;
use crate::telemetry;
use crate::tls::TlsError;

/// Where a configuration is read from again.
#[derive(Clone)]
pub(super) struct ConfigSource(Arc<dyn Fn() -> Result<Config, config::ConfigError> + Send + Sync>);

/// A configuration that was read, with the files that it names.
#[derive(Debug)]
pub(super) struct PreparedReload {
    certificates: Certificates,
    state: AppState,
}

/// A reload that is on its way, if there is one.
#[derive(Debug)]
pub(super) struct PendingReload {
    reader: FileReader<Result<PreparedReload, ReloadError>>,
    /// Where the answer goes.
    reply: Option<ReloadReply>,
}

/// Where the answer to somebody goes who wants a reload.
pub(super) type ReloadReply = oneshot::Sender<Result<(), ReloadError>>;

/// Asks the bridge to read its configuration again.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<ReloadReply>);

/// Why the configuration that was in force is in force still.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one is wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
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
    /// A file could not be read in time.
    #[error(
        "a file of the configuration, or one that it names, could not be read within {}: see whether the disk that \
         they are on answers",
        humantime::format_duration(files::READ_TIMEOUT)
    )]
    Overdue,
    /// There is nothing to read it from, or the bridge is stopping.
    #[error("the bridge is stopping, or does not know where its configuration came from")]
    Unavailable,
}

/// What an error leaves to its source to say.
fn why(error: &StartError) -> String {
    error.source().map(|source| format!(": {source}")).unwrap_or_default()
}

impl Reloader {
    pub(super) fn new(sender: mpsc::Sender<ReloadReply>) -> Self {
        Self(sender)
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

impl ConfigSource {
    pub(super) fn new(
        read: impl Fn() -> Result<Config, config::ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the configuration, and the files that it names. It blocks.
    fn prepare(&self, proxy: &Proxy) -> Result<PreparedReload, ReloadError> {
        let Self(read) = self;
        let before = proxy.app.state();
        let config = read()?;
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
        let certificates = Certificates::load(&config)?;
        let state = AppState::new(config, Some(&before))?;
        for netbox in proxy.netboxes() {
            netbox.reload_files();
        }
        Ok(PreparedReload { certificates, state })
    }
}

impl Default for PendingReload {
    fn default() -> Self {
        Self { reader: FileReader::Idle, reply: None }
    }
}

impl PendingReload {
    /// Whether another reload may begin, or be refused at once because files hang.
    pub(super) fn is_free(&self) -> bool {
        !self.reader.is_reading()
    }

    /// What was read; waits for ever if no reload is on its way.
    pub(super) async fn prepared(&mut self) -> Result<PreparedReload, ReloadError> {
        match self.reader.read().await {
            ReadResult::Done(prepared) => prepared,
            ReadResult::TimedOut => Err(ReloadError::Overdue),
        }
    }
}

impl fmt::Debug for ConfigSource {
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
    /// Begins to read the configuration again, on another thread.
    pub(super) fn begin_reload(&mut self, reply: ReloadReply) {
        if !self.proxy.app.registry.is_draining() {
            supervisor::reloading();
        }
        self.reloading.reply = Some(reply);
        match self.source.clone() {
            None => self.reloaded(Err(ReloadError::Unavailable)),
            // The files hang from the last time: another thread would hang with them.
            Some(_) if !self.reloading.reader.is_idle() => self.reloaded(Err(ReloadError::Overdue)),
            Some(source) => {
                let proxy = Arc::clone(&self.proxy);
                self.reloading.reader.begin(move || source.prepare(&proxy));
            }
        }
    }

    /// Ends the reload with what was read. Everything of it is in force then, for whatever begins from now on; or
    /// nothing.
    pub(super) async fn end_reload(&mut self, prepared: Result<PreparedReload, ReloadError>) {
        let reloaded = match prepared {
            Ok(prepared) => self.take_over(prepared).await,
            Err(error) => Err(error),
        };
        self.reloaded(reloaded);
    }

    fn reloaded(&mut self, reloaded: Result<(), ReloadError>) {
        telemetry::ConfigReloaded { error: reloaded.as_ref().err().map(ToString::to_string) }.emit();
        // Whoever was told that the bridge is stopping need not be told more.
        if !self.proxy.app.registry.is_draining() {
            supervisor::ready(&self.status());
        }
        if let Some(wanted) = self.reloading.reply.take() {
            // Nobody may wait for it any more.
            let _ = wanted.send(reloaded);
        }
    }

    async fn take_over(&mut self, prepared: PreparedReload) -> Result<(), ReloadError> {
        let PreparedReload { certificates, state } = prepared;
        let wanted = listener_roles(&state.config);
        let mut bound = Vec::new();
        for (door, address) in &wanted {
            if !self.listeners.has(*door, *address) {
                bound.push((*door, *address, bind(*door, *address).await?));
            }
        }
        // From here on nothing can fail.
        self.proxy.replace(state);
        self.certificates.replace(certificates);
        self.listeners.retain(&wanted);
        for (door, address, listener) in bound {
            self.listeners.open(door, address, listener, self.certificates.of(door));
        }
        log_startup(&self.proxy.app.state().config);
        self.listeners.log_addresses();
        self.recall();
        Ok(())
    }
}
