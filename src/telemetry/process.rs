//! What happens to the bridge as a whole.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::metrics::{METRICS, ReloadResult};
use crate::core::domain::channel::ChannelChoice;

/// The configuration was read.
#[derive(Debug)]
pub struct ConfigReloaded {
    /// Why nothing has changed, if that is so.
    pub error: Option<String>,
}

impl ConfigReloaded {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let success = if self.error.is_some() { ReloadResult::Failure } else { ReloadResult::Success };
        METRICS.process.reloads.get(success).inc();
        match self.error {
            None => {
                Self::in_force_now();
                tracing::info!("Configuration read again.");
            }
            Some(error) => {
                tracing::error!(
                    error,
                    "The configuration could not be read again; the one before is in force."
                );
            }
        }
    }

    /// Notes that the configuration that is in force was read just now.
    pub fn in_force_now() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        METRICS.process.reloaded.set(now.as_secs_f64());
    }
}

/// The log has another filter.
#[derive(Debug)]
pub struct LogFilterChanged<'a> {
    /// The one before.
    pub before: &'a str,
    /// The new one.
    pub filter: &'a str,
}

impl LogFilterChanged<'_> {
    /// Writes the log line: as loudly as it takes to be seen with either filter.
    pub fn emit(self) {
        tracing::error!(before = self.before, filter = self.filter, "The filter of the log was changed.");
    }
}

/// The bridge is stopping.
#[derive(Debug)]
pub struct DrainStarted {
    /// How long the jobs that run may go on.
    pub limit: Duration,
}

impl DrainStarted {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.process.draining.set(1);
        tracing::info!(drain_seconds = self.limit.as_secs_f64(), "Stopping: no job begins any more.");
    }
}

/// How the bridge has stopped.
#[derive(Debug)]
pub enum BridgeStopped {
    /// Whole.
    Whole,
    /// Clients had not taken their last bytes.
    WithoutClients,
    /// The ledger was not closed.
    WithoutLedger,
}

impl BridgeStopped {
    /// Writes the log line.
    pub fn emit(self) {
        match self {
            Self::Whole => tracing::info!("Stopped."),
            Self::WithoutClients => tracing::warn!("Clients did not take their last bytes and were dropped."),
            Self::WithoutLedger => tracing::error!(
                "The ledger could not be closed in time (limits.ledger); what it had yet to write is lost."
            ),
        }
    }
}

/// The bridge stands in front of a backend.
#[derive(Debug)]
pub struct BackendConfigured<'a, U> {
    /// What it is called.
    pub backend: &'a str,
    /// Where it is.
    pub url: U,
    /// How it is driven.
    pub channel: ChannelChoice,
    /// Whether its certificate is taken whatever it is.
    pub is_insecure: bool,
}

impl<U: Display> BackendConfigured<'_, U> {
    /// Writes the log lines.
    pub fn emit(self) {
        let Self { backend, url, channel, is_insecure } = self;
        tracing::info!(backend, %url, %channel, "Standing in front of a backend.");
        if is_insecure {
            tracing::warn!(
                backend,
                "The certificate of this backend is not checked (backend.insecure): whoever is between it and \
                 the bridge can read and change everything."
            );
        }
    }
}

/// The process may not have as many open files as the system would give it.
#[derive(Debug)]
pub struct OpenFilesLimited<'a> {
    /// Why.
    pub error: &'a std::io::Error,
}

impl OpenFilesLimited<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(error = %self.error, "The limit on open files stays as it is.");
    }
}

/// No sync runs on a backend until it has been restarted.
#[derive(Debug)]
pub struct RestartAwaited<'a> {
    /// Its URL.
    pub backend: &'a str,
}

impl RestartAwaited<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(
            backend = self.backend,
            "NetBox has changed. Restart this backend: until then no sync runs on it, because it would write to the \
             NetBox before."
        );
    }
}

/// It was down, so that it is another process now.
#[derive(Debug)]
pub struct RestartSeen<'a> {
    /// Its URL.
    pub backend: &'a str,
}

impl RestartSeen<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(backend = self.backend, "The backend was restarted; syncs run on it again.");
    }
}

/// State that is to outlive the bridge is in memory alone, or was refused.
#[derive(Debug)]
pub struct StateNotWritten<'a> {
    /// The file in `data_dir`.
    pub file: &'a str,
    /// Why it could not be written.
    pub error: &'a std::io::Error,
}

impl StateNotWritten<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::error!(file = self.file, error = %self.error, "A file in data_dir could not be written.");
    }
}

/// A supervisor is there, and could not be told something.
#[derive(Debug)]
pub struct SupervisorUnreachable<'a> {
    /// Why.
    pub error: &'a std::io::Error,
}

impl SupervisorUnreachable<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(error = %self.error, "The supervisor could not be told.");
    }
}
