//! Errors of connections to a backend.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::core::http::url::BackendUrl;
use crate::telemetry;

/// A backend could not be reached. No request was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was refused, reset or not routed, or the host is unknown.
    #[error("{url}: {source}")]
    Failed {
        /// The URL of the backend.
        url: BackendUrl,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// The connection attempt timed out.
    #[error("{url} did not answer within {} ({limit})", humantime::format_duration(*.after))]
    TimedOut {
        /// The URL of the backend.
        url: BackendUrl,
        /// The time limit.
        after: Duration,
        /// The key of the limit.
        limit: &'static str,
    },
    /// The TLS handshake failed.
    #[error("{url}: {why}")]
    Tls {
        /// The URL of the backend.
        url: BackendUrl,
        /// The cause and the remedy.
        why: String,
    },
    /// No attempt was made: the circuit is open.
    #[error("{last}; it is tried again in {} (limits.breaker_open)", humantime::format_duration(*.again))]
    Down {
        /// The error of the last attempt.
        last: Box<ConnectError>,
        /// The time until the next attempt.
        again: Duration,
    },
}

impl ConnectError {
    /// Returns whether the host reported that nothing listens on the port.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Failed { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::Down { last, .. } => last.is_refusal(),
            Self::TimedOut { .. } | Self::Tls { .. } => false,
        }
    }

    /// The result of the attempt for metrics. If none was made, it is that of the last attempt.
    pub(super) fn result(&self) -> telemetry::ConnectResult {
        match self {
            Self::Failed { .. } => telemetry::ConnectResult::Failed,
            Self::TimedOut { .. } => telemetry::ConnectResult::TimedOut,
            Self::Tls { .. } => telemetry::ConnectResult::Tls,
            Self::Down { last, .. } => last.result(),
        }
    }
}
