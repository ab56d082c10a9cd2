//! The closed sets that labels come from.

use super::family::{Label, labels};
use crate::core::compat::netbox::RULES;
use crate::core::compat::{Action, Shim};
use crate::core::domain::channel::Channel;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, Outcome};
use crate::core::http::guard::Reason;
use crate::core::http::limit::Limit;
use crate::core::wire::traffic::FrameType;
use crate::telemetry::backend::{Circuit, Connected};
use crate::telemetry::front::{Listener, Route, Status};
use crate::telemetry::stream::{Departure, Origin, Surface};

labels! {
    Cause as "cause",
    Circuit as "state",
    Connected as "result",
    Departure as "reason",
    FrameType as "type",
    Limit as "limit",
    Listener as "listener",
    Objects as "result",
    Origin as "from",
    Reason as "reason",
    Route as "route",
    Status as "status",
    Success as "result",
    Surface as "surface",
}

impl Label for Kind {
    const NAME: &'static str = "kind";

    fn all() -> Vec<Self> {
        Self::all().collect()
    }

    fn index(self) -> usize {
        self as usize
    }

    fn word(self) -> &'static str {
        self.as_str()
    }
}

/// How a job ended and, if it did not complete, why.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Ending(pub(in crate::telemetry) Option<Cause>);

impl Ending {
    /// The outcome, the cause, and whose doing it is.
    pub(super) fn words(self) -> [&'static str; 3] {
        match self.0 {
            None => [Outcome::Completed.as_str(), NONE, NONE],
            Some(cause) => [cause.outcome().as_str(), cause.as_str(), cause.source().as_str()],
        }
    }
}

impl Label for Ending {
    const NAME: &'static str = "cause";

    fn all() -> Vec<Self> {
        [None].into_iter().chain(Cause::ALL.map(Some)).map(Self).collect()
    }

    fn index(self) -> usize {
        self.0.map_or(0, |cause| 1 + cause.index())
    }

    fn word(self) -> &'static str {
        self.0.map_or(NONE, Cause::as_str)
    }
}

/// The channel that a job drives its backend by, if it has come to that.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Driven(pub(in crate::telemetry) Option<Channel>);

impl Label for Driven {
    const NAME: &'static str = "channel";

    fn all() -> Vec<Self> {
        [None, Some(Channel::Native), Some(Channel::Websocket), Some(Channel::Json)].map(Self).to_vec()
    }

    fn index(self) -> usize {
        self.0.map_or(0, |channel| 1 + channel as usize)
    }

    fn word(self) -> &'static str {
        self.0.map_or(NONE, Channel::as_str)
    }
}

/// A shim, and what it did.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Shimming {
    pub(in crate::telemetry) shim: Shim,
    pub(in crate::telemetry) action: Action,
}

impl Shimming {
    /// Both words.
    pub(super) fn words(self) -> [&'static str; 2] {
        [self.shim.as_str(), self.action.as_str()]
    }
}

impl Label for Shimming {
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

    fn word(self) -> &'static str {
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

    fn word(self) -> &'static str {
        self.0.map_or(NONE, Shim::as_str)
    }
}

const NONE: &str = "none";

/// What became of objects.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) enum Objects {
    Completed,
    Failed,
    Unconfirmed,
}

impl Objects {
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
pub(in crate::telemetry) enum Success {
    Success,
    Failure,
}

impl Success {
    const ALL: [Self; 2] = [Self::Success, Self::Failure];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}
