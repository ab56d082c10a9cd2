//! What happens to the bridge as a whole.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::metrics::{METRICS, Success};

/// The configuration was read.
#[derive(Debug)]
pub struct Reloaded {
    /// Why nothing has changed, if that is so.
    pub error: Option<String>,
}

impl Reloaded {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let success = if self.error.is_some() { Success::Failure } else { Success::Success };
        METRICS.process.reloads.of(success).inc();
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
pub struct Draining {
    /// How long the jobs that run may go on.
    pub limit: Duration,
}

impl Draining {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        METRICS.process.draining.set(1);
        tracing::info!(drain_seconds = self.limit.as_secs_f64(), "Stopping: no job begins any more.");
    }
}

/// How the bridge has stopped.
#[derive(Debug)]
pub enum Stopped {
    /// Whole.
    Whole,
    /// Clients had not taken their last bytes.
    WithoutClients,
    /// The ledger was not closed.
    WithoutLedger,
}

impl Stopped {
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
