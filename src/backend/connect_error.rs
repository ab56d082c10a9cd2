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
    #[error("{0}: {1}")]
    Failed(BackendUrl, #[source] Arc<io::Error>),
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
    /// The TLS handshake failed. The text names the cause and the remedy.
    #[error("{0}: {1}")]
    Tls(BackendUrl, String),
    /// No attempt was made: the circuit is open for this time, after the error of the last attempt.
    #[error("{}; it is tried again in {} (limits.breaker_open)", .0, humantime::format_duration(*.1))]
    Down(Box<ConnectError>, Duration),
}

impl ConnectError {
    /// Returns whether the host reported that nothing listens on the port.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Failed(_, source) => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::Down(last, _) => last.is_refusal(),
            Self::TimedOut { .. } | Self::Tls(..) => false,
        }
    }

    /// The result of the attempt for metrics. If none was made, it is that of the last attempt.
    pub(super) fn result(&self) -> telemetry::ConnectResult {
        match self {
            Self::Failed(..) => telemetry::ConnectResult::Failed,
            Self::TimedOut { .. } => telemetry::ConnectResult::TimedOut,
            Self::Tls(..) => telemetry::ConnectResult::Tls,
            Self::Down(last, _) => last.result(),
        }
    }
}
