//! Events of the process: configuration, log, shutdown.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::metrics::{METRICS, ReloadResult};
use crate::core::domain::channel::ChannelChoice;

/// The configuration was reloaded, or reloading it failed.
#[derive(Debug)]
pub struct ConfigReloaded {
    /// Why the reload failed. The configuration before stays in force.
    pub error: Option<String>,
}

impl ConfigReloaded {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let success = if self.error.is_some() { ReloadResult::Failure } else { ReloadResult::Success };
        METRICS.process.reloads.get(success).inc();
        match self.error {
            None => {
                Self::in_force_now();
                tracing::info!("Configuration reloaded.");
            }
            Some(error) => {
                tracing::error!(
                    error,
                    "Reloading the configuration failed. The previous one stays in force."
                );
            }
        }
    }

    /// Sets the time of the last successful reload to now.
    pub fn in_force_now() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        METRICS.process.reloaded.set(now.as_secs_f64());
    }
}

/// The bridge began to drain.
#[derive(Debug)]
pub struct DrainStarted {
    /// The time limit for running jobs.
    pub limit: Duration,
}

impl DrainStarted {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        METRICS.process.draining.set(1);
        tracing::info!(drain_seconds = self.limit.as_secs_f64(), "Draining: no new job starts.");
    }
}

/// The bridge stopped.
#[derive(Debug)]
pub enum BridgeStopped {
    /// Cleanly.
    Whole,
    /// Connections were dropped: clients did not read their last bytes.
    WithoutClients,
    /// The ledger was not closed in time.
    WithoutLedger,
}

impl BridgeStopped {
    /// Writes the log line.
    pub fn emit(self) {
        match self {
            Self::Whole => tracing::info!("Stopped."),
            Self::WithoutClients => {
                tracing::warn!("Connections dropped: clients did not read their last bytes.")
            }
            Self::WithoutLedger => tracing::error!(
                "The ledger was not closed in time (limits.ledger). Its pending writes are lost."
            ),
        }
    }
}

/// A backend is configured.
#[derive(Debug)]
pub struct BackendConfigured<'a, U> {
    /// Its name.
    pub backend: &'a str,
    /// Its URL.
    pub url: U,
    /// The channels that are allowed.
    pub channel: ChannelChoice,
    /// Whether its certificate is not verified.
    pub is_insecure: bool,
}

impl<U: Display> BackendConfigured<'_, U> {
    /// Writes the log lines.
    pub fn emit(self) {
        let Self { backend, url, channel, is_insecure } = self;
        tracing::info!(backend, %url, %channel, "Backend configured.");
        if is_insecure {
            tracing::warn!(
                backend,
                "The certificate of this backend is not verified (backend.insecure): an attacker on the network can \
                 read and change all traffic."
            );
        }
    }
}

/// The limit on open files could not be raised.
#[derive(Debug)]
pub struct OpenFilesLimited<'a> {
    /// The error of the system.
    pub error: &'a std::io::Error,
}

impl OpenFilesLimited<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(error = %self.error, "Cannot raise the limit on open files.");
    }
}

/// Syncs on a backend are held until it has been restarted.
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
            "NetBox has changed. Restart this backend: no sync runs on it until then, because it would write to the \
             previous NetBox."
        );
    }
}

/// A backend was restarted: it was down in the meantime.
#[derive(Debug)]
pub struct RestartSeen<'a> {
    /// Its URL.
    pub backend: &'a str,
}

impl RestartSeen<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(backend = self.backend, "Backend restarted. Syncs run on it again.");
    }
}

/// Persistent state could not be written. It is in memory only, or was refused.
#[derive(Debug)]
pub struct StateNotWritten<'a> {
    /// The file in `data_dir`.
    pub file: &'a str,
    /// The error of the system.
    pub error: &'a std::io::Error,
}

impl StateNotWritten<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::error!(file = self.file, error = %self.error, "Cannot write a file in data_dir.");
    }
}

/// A notification to the supervisor (`NOTIFY_SOCKET`) failed.
#[derive(Debug)]
pub struct SupervisorUnreachable<'a> {
    /// The error of the system.
    pub error: &'a std::io::Error,
}

impl SupervisorUnreachable<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::debug!(error = %self.error, "Cannot notify the supervisor.");
    }
}
