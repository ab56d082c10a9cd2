//! Why a backend could not be reached.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::config::BackendUrl;
use crate::telemetry;

/// A backend that could not be reached. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was refused, reset or not routed, or the name is unknown.
    #[error("{url}: {source}")]
    Failed {
        /// Where it should be.
        url: BackendUrl,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Nobody answered in time.
    #[error("{url} did not answer within {} ({limit})", humantime::format_duration(*.after))]
    TimedOut {
        /// Where it should be.
        url: BackendUrl,
        /// How long it had.
        after: Duration,
        /// The limit that says so.
        limit: &'static str,
    },
    /// There is no TLS connection to it.
    #[error("{url}: {why}")]
    Tls {
        /// Where it should be.
        url: BackendUrl,
        /// Why not, and what to do.
        why: String,
    },
    /// It was not tried: it could not be reached a moment ago.
    #[error("{last}; it is tried again in {} (limits.breaker_open)", humantime::format_duration(*.again))]
    Down {
        /// Why it could not be reached then.
        last: Box<ConnectError>,
        /// In how long it is tried again.
        again: Duration,
    },
}

impl ConnectError {
    /// Whether the backend's machine answered that nothing listens there.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Failed { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::Down { last, .. } => last.is_refusal(),
            Self::TimedOut { .. } | Self::Tls { .. } => false,
        }
    }

    /// What came of an attempt that ended with it. One that was not made has the reason of the one before.
    pub(super) fn result(&self) -> telemetry::ConnectResult {
        match self {
            Self::Failed { .. } => telemetry::ConnectResult::Failed,
            Self::TimedOut { .. } => telemetry::ConnectResult::TimedOut,
            Self::Tls { .. } => telemetry::ConnectResult::Tls,
            Self::Down { last, .. } => last.result(),
        }
    }
}
