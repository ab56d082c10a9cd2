//! The labels of metrics and their closed sets of values.

use http::StatusCode;

use super::family::{Label, labels};
use crate::core::compat::netbox::RULES;
use crate::core::compat::{Shim, ShimAction};
use crate::core::domain::channel::Channel;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, Outcome};
use crate::core::http::guard::RejectReason;
use crate::core::http::limit::Limit;
use crate::core::wire::traffic::FrameType;

labels! {
    Cause as "cause",
    Circuit as "state",
    ConnectResult as "result",
    WatcherDeparture as "reason",
    FrameType as "type",
    Limit as "limit",
    Listener as "listener",
    ObjectResult as "result",
    ResumeSource as "from",
    RejectReason as "reason",
    Route as "route",
    Status as "status",
    ReloadResult as "result",
    Surface as "surface",
}

/// The peers that a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// Clients of backends.
    Clients,
    /// Operators.
    Admin,
    /// Backends that connect to NetBox through the bridge.
    Netbox,
}

impl Listener {
    pub(in crate::telemetry) const ALL: [Self; 3] = [Self::Clients, Self::Admin, Self::Netbox];

    /// The value in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
            Self::Netbox => "netbox",
        }
    }
}

/// The part of the bridge that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A sync stream.
    Stream,
    /// The bridge's own `/ws`.
    Socket,
    /// A WebSocket of the backend.
    Tunnel,
    /// The backend.
    Passthrough,
    /// A path that an old backend lacks and the bridge answers.
    Shim,
    /// The admin listener.
    Admin,
    /// NetBox, for a backend.
    Netbox,
    /// None: the request was refused before it was routed.
    Nowhere,
}

impl Route {
    pub(in crate::telemetry) const ALL: [Self; 8] = [
        Self::Stream,
        Self::Socket,
        Self::Tunnel,
        Self::Passthrough,
        Self::Shim,
        Self::Admin,
        Self::Netbox,
        Self::Nowhere,
    ];

    /// The value in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Socket => "socket",
            Self::Tunnel => "tunnel",
            Self::Passthrough => "passthrough",
            Self::Shim => "shim",
            Self::Admin => "admin",
            Self::Netbox => "netbox",
            Self::Nowhere => "none",
        }
    }
}

/// The class of a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Status {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
}

impl Status {
    pub(in crate::telemetry) const ALL: [Self; 5] =
        [Self::Informational, Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    pub(in crate::telemetry) const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }

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

/// Where a client watches a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// A sync stream.
    Stream,
    /// The bridge's own `/ws`.
    Socket,
    /// The jobs API.
    Admin,
}

impl Surface {
    pub(in crate::telemetry) const ALL: [Self; 3] = [Self::Stream, Self::Socket, Self::Admin];

    /// The value in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Socket => "socket",
            Self::Admin => "admin",
        }
    }
}

/// Why a watcher ended before its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherDeparture {
    /// It read nothing within `limits.client_write` and was dropped.
    Stalled,
    /// It disconnected.
    Left,
}

impl WatcherDeparture {
    pub(in crate::telemetry) const ALL: [Self; 2] = [Self::Stalled, Self::Left];

    /// The value in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Left => "left",
        }
    }
}

/// The source of the remaining events for a client that resumes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeSource {
    /// The log of the job, in memory.
    Memory,
    /// The ledger.
    Ledger,
    /// None: the client already has the whole stream.
    Seen,
    /// The event is unknown. The client gets a stream from its first event.
    Unknown,
}

impl ResumeSource {
    pub(in crate::telemetry) const ALL: [Self; 4] = [Self::Memory, Self::Ledger, Self::Seen, Self::Unknown];

    /// The value in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Ledger => "ledger",
            Self::Seen => "seen",
            Self::Unknown => "unknown",
        }
    }
}

/// The result of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectResult {
    /// The connection is established.
    Connected,
    /// The connection was refused, reset or not routed, or the name does not resolve.
    Failed,
    /// There was no answer within the time limit.
    TimedOut,
    /// The TLS handshake failed.
    Tls,
}

impl ConnectResult {
    /// Every result.
    pub(in crate::telemetry) const ALL: [Self; 4] =
        [Self::Connected, Self::Failed, Self::TimedOut, Self::Tls];

    /// The value in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
        }
    }
}

/// The state of a backend's circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Connections are attempted.
    Closed,
    /// No connection is attempted: the backend is down.
    Open,
    /// One connection is attempted. The others wait for its result.
    HalfOpen,
}

impl Circuit {
    /// Every state.
    pub(in crate::telemetry) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The value in metrics and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Label for Kind {
    const NAME: &'static str = "kind";

    fn all() -> Vec<Self> {
        Self::all().collect()
    }

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        self.as_str()
    }
}

/// The outcome of a job and, if it did not complete, the cause.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct OutcomeLabel(pub(in crate::telemetry) Option<Cause>);

impl OutcomeLabel {
    /// The outcome, the cause and its source.
    pub(super) fn values(self) -> [&'static str; 3] {
        match self.0 {
            None => [Outcome::Completed.as_str(), NONE, NONE],
            Some(cause) => [cause.outcome().as_str(), cause.as_str(), cause.source().as_str()],
        }
    }
}

impl Label for OutcomeLabel {
    const NAME: &'static str = "cause";

    fn all() -> Vec<Self> {
        [None].into_iter().chain(Cause::ALL.map(Some)).map(Self).collect()
    }

    fn index(self) -> usize {
        self.0.map_or(0, |cause| 1 + cause.index())
    }

    fn value(self) -> &'static str {
        self.0.map_or(NONE, Cause::as_str)
    }
}

/// The channel of a job, if its backend is driven.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct ChannelLabel(pub(in crate::telemetry) Option<Channel>);

impl Label for ChannelLabel {
    const NAME: &'static str = "channel";

    fn all() -> Vec<Self> {
        [None, Some(Channel::Native), Some(Channel::Websocket), Some(Channel::Json)].map(Self).to_vec()
    }

    fn index(self) -> usize {
        self.0.map_or(0, |channel| 1 + channel as usize)
    }

    fn value(self) -> &'static str {
        self.0.map_or(NONE, Channel::as_str)
    }
}

/// A shim and its action.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct ShimLabel {
    pub(in crate::telemetry) shim: Shim,
    pub(in crate::telemetry) action: ShimAction,
}

impl ShimLabel {
    /// The two values.
    pub(super) fn values(self) -> [&'static str; 2] {
        [self.shim.as_str(), self.action.as_str()]
    }
}

impl Label for ShimLabel {
    const NAME: &'static str = "shim";

    fn all() -> Vec<Self> {
        let of = |shim: Shim| shim.actions().iter().map(move |action| Self { shim, action: *action });
        Shim::ALL.into_iter().flat_map(of).collect()
    }

    fn index(self) -> usize {
        let earlier: usize = Shim::ALL[..self.shim as usize].iter().map(|shim| shim.actions().len()).sum();
        let place = self.shim.actions().iter().position(|action| *action == self.action);
        earlier + place.unwrap_or_default()
    }

    fn value(self) -> &'static str {
        self.shim.as_str()
    }
}

/// The rule that changed a request of a backend to NetBox, or its answer; `None` if no rule did.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct NetboxRuleLabel(pub(in crate::telemetry) Option<Shim>);

impl Label for NetboxRuleLabel {
    const NAME: &'static str = "rule";

    fn all() -> Vec<Self> {
        std::iter::once(None).chain(RULES.iter().map(|rule| Some(rule.shim))).map(Self).collect()
    }

    fn index(self) -> usize {
        self.0.map_or(0, |shim| RULES.iter().position(|rule| rule.shim == shim).map_or(0, |place| 1 + place))
    }

    fn value(self) -> &'static str {
        self.0.map_or(NONE, Shim::as_str)
    }
}

const NONE: &str = "none";

/// The result of the sync of an object.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) enum ObjectResult {
    Completed,
    Failed,
    Unconfirmed,
}

impl ObjectResult {
    const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::Unconfirmed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The result of a reload.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) enum ReloadResult {
    Success,
    Failure,
}

impl ReloadResult {
    const ALL: [Self; 2] = [Self::Success, Self::Failure];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}
