//! Reading the configuration again while the bridge serves.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::certificate::Certificates;
use super::files::{self, Read, Reader};
use super::{Server, StartError, bind, doors, supervisor, tell};
use crate::app::Reload;
use crate::app::State;
use crate::config::{self, Config};
use crate::proxy::Proxy;
use crate::telemetry;
use crate::tls::TlsError;

/// Where a configuration is read from again.
#[derive(Clone)]
pub(super) struct Source(Arc<dyn Fn() -> Result<Config, config::Error> + Send + Sync>);

/// A configuration that was read, with the files that it names.
#[derive(Debug)]
pub(super) struct Prepared {
    certificates: Certificates,
    state: State,
}

/// A reload that is on its way, if there is one.
#[derive(Debug)]
pub(super) struct Reloading {
    reader: Reader<Result<Prepared, ReloadError>>,
    /// Where the answer goes.
    wanted: Option<Wanted>,
}

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
    /// A file could not be read in time.
    #[error(
        "a file of the configuration, or one that it names, could not be read within {}: see whether the disk that \
         they are on answers",
        humantime::format_duration(files::LIMIT)
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
    pub(super) fn new(read: impl Fn() -> Result<Config, config::Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the configuration, and the files that it names. It blocks.
    fn prepare(&self, proxy: &Proxy) -> Result<Prepared, ReloadError> {
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
        let state = State::new(config, Some(&before))?;
        for netbox in proxy.netboxes() {
            netbox.read_files_again();
        }
        Ok(Prepared { certificates, state })
    }
}

impl Default for Reloading {
    fn default() -> Self {
        Self { reader: Reader::Idle, wanted: None }
    }
}

impl Reloading {
    /// Whether another reload may begin, or be refused at once because files hang.
    pub(super) fn takes_another(&self) -> bool {
        !self.reader.is_reading()
    }

    /// What was read; waits for ever if no reload is on its way.
    pub(super) async fn prepared(&mut self) -> Result<Prepared, ReloadError> {
        match self.reader.read().await {
            Read::Done(prepared) => prepared,
            Read::Overdue => Err(ReloadError::Overdue),
        }
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
    /// Begins to read the configuration again, on another thread.
    pub(super) fn begin_reload(&mut self, wanted: Wanted) {
        if !self.proxy.app.registry.is_draining() {
            supervisor::reloading();
        }
        self.reloading.wanted = Some(wanted);
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
    pub(super) async fn end_reload(&mut self, prepared: Result<Prepared, ReloadError>) {
        let reloaded = match prepared {
            Ok(prepared) => self.take_over(prepared).await,
            Err(error) => Err(error),
        };
        self.reloaded(reloaded);
    }

    fn reloaded(&mut self, reloaded: Result<(), ReloadError>) {
        telemetry::Reloaded { error: reloaded.as_ref().err().map(ToString::to_string) }.emit();
        // Whoever was told that the bridge is stopping need not be told more.
        if !self.proxy.app.registry.is_draining() {
            supervisor::ready(&self.status());
        }
        if let Some(wanted) = self.reloading.wanted.take() {
            // Nobody may wait for it any more.
            let _ = wanted.send(reloaded);
        }
    }

    async fn take_over(&mut self, prepared: Prepared) -> Result<(), ReloadError> {
        let Prepared { certificates, state } = prepared;
        let wanted = doors(&state.config);
        let mut bound = Vec::new();
        for (door, address) in &wanted {
            if !self.listeners.has(*door, *address) {
                bound.push((*door, *address, bind(*door, *address).await?));
            }
        }
        // From here on nothing can fail.
        self.proxy.replace(state);
        self.certificates.replace(certificates);
        self.listeners.keep(&wanted);
        for (door, address, listener) in bound {
            self.listeners.open(door, address, listener, self.certificates.of(door));
        }
        tell(&self.proxy.app.state().config);
        self.listeners.tell();
        self.recall();
        Ok(())
    }
}
