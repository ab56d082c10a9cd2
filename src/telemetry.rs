//! One type for each thing that happens, which writes its log line and moves its metrics, so that the
//! two cannot drift apart.

mod backend;
mod front;
mod job;
mod ledger;
pub mod log;
mod metrics;
mod netbox;
mod process;
mod stream;
mod throttle;

pub use backend::{
    BackendFilesRead, CircuitChanged, ConnectTried, KeysHeldBack, Learned, OfBackend, ReportUnreadable,
    StreamRecognized, backends_are,
};
pub use front::{
    AcceptFailed, Answered, CERTIFICATE, CertificateRead, CertificateShown, CertificatesOverdue,
    ConnectionClosed, ConnectionOpened, ConnectionStuck, FilesOf, HandshakeFailed, Listening, NetboxStranger,
    NetboxUnreachable, OverLimit, Rejected, Shimmed, TunnelClosed, TunnelOpened, Validity,
    write_held_back_lines,
};
pub use job::{
    Cleaned, CooldownBegan, CooldownOver, Deserted, FramesReceived, FramesWritten, JobBroke, JobEnded,
    JobPlaced, JobQueued, JobStarted, JobWaits, RecordOverdue, RecordingFailed, Refused, job_span,
    last_success,
};
pub use ledger::{
    ClockBelieved, LedgerCleaningHeld, LedgerClockBelieved, LedgerClockJumped, LedgerClosed,
    LedgerCommitFailed, LedgerCommitted, LedgerHealth, LedgerLost, LedgerOpened, LedgerRowDamaged,
    LedgerShed,
};
pub use metrics::{
    Circuit, Connected, Departure, Listener, Origin, Reading, Route, Surface, text as metrics_text,
};
pub use netbox::{NetboxRequest, RuleApplied};
pub use process::{
    Draining, LogFilterChanged, OpenFilesLimited, Reloaded, RestartAwaited, RestartSeen, Standing,
    StateNotWritten, Stopped, SupervisorDeaf,
};
pub use stream::{Attached, Gap, Heartbeat, Resumed, WatcherCame, WatcherWent};
