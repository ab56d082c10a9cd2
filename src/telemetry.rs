//! One type for each operational event. Its `emit` writes the log line and updates the metrics, so that the two
//! cannot drift apart.

mod audit;
mod backend;
mod front;
mod job;
mod ledger;
pub mod log;
mod metrics;
mod netbox;
mod notification;
mod process;
mod stream;
mod throttle;

pub use audit::{AuditAction, Audited};
pub use backend::{
    BackendFilesRead, BackendMetrics, CapabilitiesLearned, CircuitChanged, ConnectAttempted, KeysThrottled,
    LoopChanged, ReportUnreadable, StreamRecognized, set_backends,
};
pub use front::{
    AcceptFailed, CERTIFICATE, CertificateRead, CertificateShown, CertificatesOverdue, ConnectionClosed,
    ConnectionOpened, ConnectionStalled, FilesOf, HandshakeFailed, ListenerOpened, NetboxAccessDenied,
    NetboxUnreachable, OverLimit, RequestAnswered, RequestReceived, RequestRejected, RequestShimmed,
    TunnelClosed, TunnelOpened, Validity, flush_throttled_lines,
};
pub use job::{
    CooldownEnded, CooldownStarted, FramesReceived, FramesWritten, JobAbandoned, JobCrashed, JobEnded,
    JobQueued, JobStarted, JobWaitEnded, JobWaiting, LedgerCleaned, MoreObjectsFailed, ObjectFailed,
    RecordOverdue, RecordingFailed, RequestRefused, job_span,
};
pub use ledger::{
    ClockTrustReason, LedgerCleaningHeld, LedgerClockJumped, LedgerClockTrusted, LedgerClosed,
    LedgerCommitFailed, LedgerCommitted, LedgerHealthChanged, LedgerLost, LedgerOpened, LedgerRowDamaged,
    LedgerShed,
};
pub use metrics::{
    Circuit, ConnectResult, GaugeGuard, GaugeReadings, Listener, ResumeSource, Route, Surface,
    WatcherDeparture, text as metrics_text,
};
pub use netbox::{NetboxRequestAnswered, RuleApplied};
pub use notification::{NotificationDropReason, NotificationFailed, NotificationSent, NotificationsDropped};
pub use process::{
    BackendConfigured, BridgeStopped, ConfigReloaded, DrainStarted, OpenFilesLimited, RestartAwaited,
    RestartSeen, StateNotWritten, SupervisorUnreachable,
};
pub use stream::{FramesMissed, HeartbeatSent, JobAttached, StreamResumed, WatcherClosed, WatcherOpened};

/// Is held by unit tests that set the backends: the series of all backends are in one registry.
#[cfg(test)]
pub(crate) static BACKENDS_IN_TEST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
