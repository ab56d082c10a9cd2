//! Reloads of the configuration while the bridge serves.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::certificate::Certificates;
use super::files::{self, FileReader};
use super::{Server, StartError, bind, listener_roles, log_startup, supervisor};
use crate::app::{AppState, NO_RELOAD, ReloadReply};
use crate::config::{self, Config, SettingChange};
use crate::proxy::Proxy;
use crate::telemetry;
use crate::tls::TlsError;

/// The source that the configuration is read from again.
#[derive(Clone)]
pub(super) struct ConfigSource(Arc<dyn Fn() -> Result<Config, config::ConfigError> + Send + Sync>);

/// A configuration that was read, with the files that it names.
type PreparedReload = (Certificates, AppState);

/// The reload in progress, if there is one.
#[derive(Debug, Default)]
pub(super) struct PendingReload {
    reader: FileReader<Result<PreparedReload, ReloadError>>,
    /// The channel for its result.
    reply: Option<ReloadReply>,
}

/// Why a reload failed. The previous configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The new configuration is invalid.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A new listener could not be bound.
    #[error("{}{}", .0, .0.source().map(|source| format!(": {source}")).unwrap_or_default())]
    Start(#[from] StartError),
    /// The change requires a restart.
    #[error("{key} cannot change from {before} to {after} while the bridge runs: restart it")]
    Restart { key: &'static str, before: String, after: String },
    /// A file could not be read in time.
    #[error(
        "a file of the configuration, or one that it names, could not be read within {}: see whether the disk that \
         they are on answers",
        humantime::format_duration(files::READ_TIMEOUT)
    )]
    Overdue,
}

impl ConfigSource {
    pub(super) fn new(
        read: impl Fn() -> Result<Config, config::ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the configuration and the files that it names. It blocks.
    fn prepare(&self, proxy: &Proxy) -> Result<PreparedReload, ReloadError> {
        let Self(read) = self;
        let before = proxy.app.state();
        let config = read()?;
        if let Some((key, before, after)) = before.config.restart_needed(&config) {
            return Err(ReloadError::Restart { key, before: before.to_owned(), after: after.to_owned() });
        }
        let certificates = Certificates::load(&config)?;
        let state = AppState::new(config, Some(&before))?;
        for netbox in proxy.netboxes() {
            netbox.reload_files();
        }
        Ok((certificates, state))
    }
}

impl PendingReload {
    /// Returns whether another reload may start, or can be refused at once because the files hang.
    pub(super) fn is_free(&self) -> bool {
        !self.reader.is_reading()
    }

    /// Waits for the configuration that was read; pends forever if no reload is in progress.
    pub(super) async fn prepared(&mut self) -> Result<PreparedReload, ReloadError> {
        self.reader.read().await.unwrap_or(Err(ReloadError::Overdue))
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigSource")
    }
}

impl Server {
    /// Starts a reload on another thread.
    pub(super) fn begin_reload(&mut self, reply: ReloadReply) {
        if !self.proxy.app.registry.is_draining() {
            supervisor::reloading();
        }
        self.reloading.reply = Some(reply);
        match self.source.clone() {
            None => self.reloaded(Err(NO_RELOAD.to_owned())),
            // The files still hang since the last reload: another thread would hang with them.
            Some(_) if !self.reloading.reader.is_idle() => {
                self.reloaded(Err(ReloadError::Overdue.to_string()))
            }
            Some(source) => {
                let proxy = Arc::clone(&self.proxy);
                self.reloading.reader.begin(move || source.prepare(&proxy));
            }
        }
    }

    /// Completes the reload. Either all of it applies to new requests and connections, or none of it.
    pub(super) async fn end_reload(&mut self, prepared: Result<PreparedReload, ReloadError>) {
        let reloaded = self.take_over(prepared).await;
        self.reloaded(reloaded.map_err(|error| error.to_string()));
    }

    fn reloaded(&mut self, reloaded: Result<Vec<SettingChange>, String>) {
        telemetry::ConfigReloaded { error: reloaded.as_ref().err().cloned() }.emit();
        // While the bridge stops, the supervisor keeps that status.
        if !self.proxy.app.registry.is_draining() {
            supervisor::ready(&self.status());
        }
        if let Some(wanted) = self.reloading.reply.take() {
            // The caller may have gone.
            let _ = wanted.send(reloaded);
        }
    }

    async fn take_over(
        &mut self,
        prepared: Result<PreparedReload, ReloadError>,
    ) -> Result<Vec<SettingChange>, ReloadError> {
        let (certificates, state) = prepared?;
        let wanted = listener_roles(&state.config);
        let mut bound = Vec::new();
        for (role, address) in &wanted {
            if !self.listeners.has(*role, *address) {
                bound.push((*role, *address, bind(*role, *address).await?));
            }
        }
        let changes = self.proxy.app.state().config.changes(&state.config);
        // Nothing can fail from here on.
        self.proxy.replace(state);
        self.certificates.replace(certificates);
        self.listeners.retain(&wanted);
        for (role, address, listener) in bound {
            self.listeners.open(role, address, listener, self.certificates.config_for(role));
        }
        log_startup(&self.proxy.app.state().config);
        self.listeners.log_addresses();
        self.prune_netbox_endpoints();
        Ok(changes)
    }
}
