//! The closed sets that labels come from.

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

/// Who is served on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// Clients of backends.
    Clients,
    /// Operators.
    Admin,
    /// Backends, in front of NetBox.
    Netbox,
}

impl Listener {
    pub(in crate::telemetry) const ALL: [Self; 3] = [Self::Clients, Self::Admin, Self::Netbox];

    /// The word for it in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
            Self::Netbox => "netbox",
        }
    }
}

/// Which part of the bridge a request was for.
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
    /// What an old backend lacks.
    Shim,
    /// The admin listener.
    Admin,
    /// NetBox, for a backend.
    Netbox,
    /// None: it was refused before that was known.
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

    /// The word for it in metrics and logs.
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

/// The class of a status.
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

    /// The word for it in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Socket => "socket",
            Self::Admin => "admin",
        }
    }
}

/// How a watcher was gone before the end of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherDeparture {
    /// It took nothing within `limits.client_write` and was dropped.
    Stalled,
    /// It left.
    Left,
}

impl WatcherDeparture {
    pub(in crate::telemetry) const ALL: [Self; 2] = [Self::Stalled, Self::Left];

    /// The word for it in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Left => "left",
        }
    }
}

/// Where the rest of a stream comes from for a client that has seen its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeSource {
    /// The log of the job, in memory.
    Memory,
    /// The ledger.
    Ledger,
    /// There is no rest: it has seen the end.
    Seen,
    /// The event is not known, and it is given another stream from its beginning.
    Unknown,
}

impl ResumeSource {
    pub(in crate::telemetry) const ALL: [Self; 4] = [Self::Memory, Self::Ledger, Self::Seen, Self::Unknown];

    /// The word for it in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Ledger => "ledger",
            Self::Seen => "seen",
            Self::Unknown => "unknown",
        }
    }
}

/// What came of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectResult {
    /// It stands.
    Connected,
    /// It was refused, reset or not routed, or the name is unknown.
    Failed,
    /// Nobody answered in time.
    TimedOut,
    /// There was no agreement about TLS.
    Tls,
}

impl ConnectResult {
    /// Everything that may come of it.
    pub(in crate::telemetry) const ALL: [Self; 4] =
        [Self::Connected, Self::Failed, Self::TimedOut, Self::Tls];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
        }
    }
}

/// Whether connections to a backend are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// They are.
    Closed,
    /// They are not: it is taken for down.
    Open,
    /// One is, and the others wait for what comes of it.
    HalfOpen,
}

impl Circuit {
    /// Every state.
    pub(in crate::telemetry) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it in metrics and in the API.
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

/// How a job ended and, if it did not complete, why.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct OutcomeLabel(pub(in crate::telemetry) Option<Cause>);

impl OutcomeLabel {
    /// The outcome, the cause, and whose doing it is.
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

/// The channel that a job drives its backend by, if it has come to that.
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

/// A shim, and what it did.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct ShimLabel {
    pub(in crate::telemetry) shim: Shim,
    pub(in crate::telemetry) action: ShimAction,
}

impl ShimLabel {
    /// Both words.
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

/// The rule by which a request of a backend to NetBox, or its answer, was changed; `None` if it was not.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct NetboxRule(pub(in crate::telemetry) Option<Shim>);

impl Label for NetboxRule {
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

/// What became of objects.
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

/// Whether something came about.
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
