//! The labels of metrics and their closed sets of values.

use http::StatusCode;

use super::family::{Label, labels};
use crate::core::compat::netbox::RULES;
use crate::core::compat::{Shim, ShimAction};
use crate::core::domain::channel::Channel;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::http::guard::RejectReason;
use crate::core::http::limit::Limit;
use crate::core::text::string_enum::string_enum;
use crate::core::wire::traffic::FrameType;

labels! {
    Cause as "cause",
    Channel as "channel",
    Kind as "kind",
    Circuit as "state",
    ConnectResult as "result",
    WatcherDeparture as "reason",
    FrameType as "type",
    Limit as "limit",
    Listener as "listener",
    NotificationResult as "result",
    ObjectResult as "result",
    ResumeSource as "from",
    RejectReason as "reason",
    Route as "route",
    Status as "status",
    ReloadResult as "result",
    Surface as "surface",
}

string_enum! {
    /// The peers that a listener is for.
    pub enum Listener {
        /// Clients of backends.
        Clients = "clients",
        /// Operators.
        Admin = "admin",
        /// Backends that connect to NetBox through the bridge.
        Netbox = "netbox",
    }
}

string_enum! {
    /// The part of the bridge that answers a request.
    pub enum Route {
        /// A sync stream.
        Stream = "stream",
        /// The bridge's own `/ws`.
        Socket = "socket",
        /// A WebSocket of the backend.
        Tunnel = "tunnel",
        /// The backend.
        Passthrough = "passthrough",
        /// A path that an old backend lacks and the bridge answers.
        Shim = "shim",
        /// The admin listener.
        Admin = "admin",
        /// NetBox, for a backend.
        Netbox = "netbox",
        /// None: the request was refused before it was routed.
        Nowhere = "none",
    }
}

string_enum! {
    /// The class of a status code.
    pub(in crate::telemetry) enum Status {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }
}

impl Status {
    pub(in crate::telemetry) fn from_code(status: StatusCode) -> Self {
        match status.as_u16() {
            ..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

string_enum! {
    /// Where a client watches a job.
    pub enum Surface {
        /// A sync stream.
        Stream = "stream",
        /// The bridge's own `/ws`.
        Socket = "socket",
        /// The jobs API.
        Admin = "admin",
    }
}

string_enum! {
    /// Why a watcher ended before its stream.
    pub enum WatcherDeparture {
        /// It read nothing within `limits.client_write` and was dropped.
        Stalled = "stalled",
        /// It disconnected.
        Left = "left",
    }
}

string_enum! {
    /// The source of the remaining events for a client that resumes a stream.
    pub enum ResumeSource {
        /// The log of the job, in memory.
        Memory = "memory",
        /// The ledger.
        Ledger = "ledger",
        /// None: the client already has the whole stream.
        Seen = "seen",
        /// The event is unknown. The client gets a stream from its first event.
        Unknown = "unknown",
    }
}

string_enum! {
    /// The result of a connection attempt.
    pub enum ConnectResult {
        /// The connection is established.
        Connected = "connected",
        /// The connection was refused, reset or not routed, or the name does not resolve.
        Failed = "failed",
        /// There was no answer within the time limit.
        TimedOut = "timed_out",
        /// The TLS handshake failed.
        Tls = "tls",
    }
}

string_enum! {
    /// The state of a backend's circuit breaker.
    pub enum Circuit {
        /// Connections are attempted.
        Closed = "closed",
        /// No connection is attempted: the backend is down.
        Open = "open",
        /// One connection is attempted. The others wait for its result.
        HalfOpen = "half_open",
    }
}

/// A value that need not be known; `none` is the first.
impl<L: Label> Label for Option<L> {
    const NAME: &'static str = L::NAME;

    fn all() -> Vec<Self> {
        [None].into_iter().chain(L::all().into_iter().map(Some)).collect()
    }

    fn index(self) -> usize {
        self.map_or(0, |label| 1 + label.index())
    }

    fn value(self) -> &'static str {
        self.map_or(NONE, Label::value)
    }
}

/// A shim and its action.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct ShimLabel {
    pub(in crate::telemetry) shim: Shim,
    pub(in crate::telemetry) action: ShimAction,
}

impl Label for ShimLabel {
    const NAME: &'static str = "shim";

    fn all() -> Vec<Self> {
        let of = |shim: Shim| shim.actions().iter().map(move |action| Self { shim, action: *action });
        Shim::ALL.into_iter().flat_map(of).collect()
    }

    fn index(self) -> usize {
        let earlier: usize = Shim::ALL[..self.shim as usize].iter().map(|shim| shim.actions().len()).sum();
        let position = self.shim.actions().iter().position(|action| *action == self.action);
        earlier + position.unwrap_or_default()
    }

    fn value(self) -> &'static str {
        self.shim.as_str()
    }
}

/// The rule that changed a request of a backend to NetBox, or its answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct NetboxRule(pub(in crate::telemetry) Shim);

impl Label for NetboxRule {
    const NAME: &'static str = "rule";

    fn all() -> Vec<Self> {
        RULES.iter().map(|rule| Self(rule.shim)).collect()
    }

    fn index(self) -> usize {
        RULES.iter().position(|rule| rule.shim == self.0).unwrap_or_default()
    }

    fn value(self) -> &'static str {
        self.0.as_str()
    }
}

const NONE: &str = "none";

string_enum! {
    /// What happened to a notification.
    pub(in crate::telemetry) enum NotificationResult {
        /// Its target accepted it.
        Sent = "sent",
        /// An attempt failed. It will be sent again.
        Failed = "failed",
        /// It was given up.
        Dropped = "dropped",
    }
}

string_enum! {
    /// The result of the sync of an object.
    pub(in crate::telemetry) enum ObjectResult {
        Completed = "completed",
        Failed = "failed",
        Unconfirmed = "unconfirmed",
    }
}

string_enum! {
    /// The result of a reload.
    pub(in crate::telemetry) enum ReloadResult {
        Success = "success",
        Failure = "failure",
    }
}
