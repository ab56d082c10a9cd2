//! `GET /livez` and `GET /readyz`.
//!
//! `/readyz?fresh=KIND:AGE` also requires that the last sync of KIND on each backend is not older than AGE.

use std::str::FromStr;
use std::time::Duration;

use futures::future::join_all;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::auth::Caller;
use super::jobs::invalid_query;
use super::jobs::query::{QueryError, join_or, parameters};
use crate::app::App;
use crate::backend::Backend;
use crate::config::WithoutLedger;
use crate::core::domain::kind::Kind;
use crate::ledger::{Health, Timestamp};
use crate::respond::{self, Body};

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    /// Whether jobs can start.
    pub(super) ready: bool,
    /// Whether the bridge is draining.
    pub(super) draining: bool,
    ledger: ComponentHealth,
    listeners: ComponentHealth,
    /// The backends, if they were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    backends: Option<Vec<BackendHealth>>,
    /// The last successes, if a limit for their age was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    freshness: Vec<Freshness>,
    /// All problems, including those that do not prevent jobs from starting.
    pub(super) reasons: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ComponentHealth {
    available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BackendHealth {
    name: String,
    #[serde(flatten)]
    part: ComponentHealth,
}

/// The age of the last success of a kind on a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Freshness {
    backend: String,
    kind: Kind,
    fresh: bool,
    /// When the last sync that completed ended.
    last_success: Option<String>,
    age_seconds: Option<u64>,
    limit_seconds: u64,
}

impl ComponentHealth {
    fn from_reason(reason: Option<String>) -> Self {
        Self { available: reason.is_none(), reason }
    }
}

impl Readiness {
    /// The readiness without a check of the backends.
    pub(super) fn new(app: &App) -> Self {
        let ledger = match &*app.registry.ledger().health().borrow() {
            Health::Available => None,
            Health::Unavailable(why) => Some(why.clone()),
        };
        let lost = app.registry.ledger().lost().borrow().clone();
        let must_record = app.state().config.jobs.without_ledger == Some(WithoutLedger::Refuse);
        let draining = app.registry.is_draining();
        let listeners = app.listeners.problem();
        let state = app.state();
        let loops: Vec<String> = state.backends.iter().filter_map(|backend| backend.loop_problem()).collect();
        let all_loop = !loops.is_empty() && loops.len() == state.backends.len();
        let ready = !draining && listeners.is_none() && (ledger.is_none() || !must_record) && !all_loop;
        let reasons = [
            draining.then(|| "the bridge is stopping".to_owned()),
            ledger.as_ref().map(|why| format!("the ledger cannot be written: {why}")),
            listeners.clone(),
            app.registry
                .ledger()
                .cleaning_held()
                .map(|why| format!("cleaning of the ledger is suspended: {why}")),
            lost.as_ref().map(|lost| format!("since {}: {}", lost.at, lost.problem)),
        ];
        Self {
            ready,
            draining,
            ledger: ComponentHealth::from_reason(ledger),
            listeners: ComponentHealth::from_reason(listeners),
            backends: None,
            freshness: Vec::new(),
            reasons: reasons.into_iter().flatten().chain(loops).collect(),
        }
    }

    /// Adds a connection attempt to each backend.
    async fn check_backends(&mut self, app: &App, caller: Caller) {
        let state = app.state();
        let reached = join_all(state.backends.iter().map(|backend| check_backend(backend, &caller))).await;
        for BackendHealth { name, part } in &reached {
            if let Some(reason) = &part.reason {
                self.ready = false;
                self.reasons.push(format!("the backend {name} cannot be reached: {reason}"));
            }
        }
        self.backends = Some(reached);
    }

    /// Adds the age of the last success that `query` limits.
    fn check_freshness(&mut self, app: &App, query: &ReadyQuery) {
        let (state, now) = (app.state(), Timestamp::now());
        let backends = state.backends.iter().map(|backend| backend.config());
        for backend in
            backends.filter(|backend| query.backend.as_ref().is_none_or(|name| *name == backend.name))
        {
            for FreshnessLimit { kind, limit } in &query.fresh {
                let success = app.registry.history.last_success(&backend.url, *kind);
                // A clock that was ahead would keep it fresh until then.
                let is_ahead = success.is_some_and(|success| success.at > now.after(CLOCK_TOLERANCE));
                let age = success.filter(|_| !is_ahead).map(|success| now.since(success.at));
                let fresh = age.is_some_and(|age| age <= *limit);
                if !fresh {
                    let since = match (success, age) {
                        (Some(success), Some(age)) => {
                            let [age, limit] =
                                [age, *limit].map(|time| humantime::format_duration(whole_seconds(time)));
                            format!("since {}, {age} ago (limit: {limit})", success.at)
                        }
                        (Some(success), None) => {
                            format!("since {}, which is in the future: check the clock", success.at)
                        }
                        _ => "yet".to_owned(),
                    };
                    self.ready = false;
                    self.reasons.push(format!("{}: no {kind} sync has completed {since}", backend.name));
                }
                self.freshness.push(Freshness {
                    backend: backend.name.clone(),
                    kind: *kind,
                    fresh,
                    last_success: success.map(|success| success.at.to_string()),
                    age_seconds: age.map(|age| age.as_secs()),
                    limit_seconds: limit.as_secs(),
                });
            }
        }
    }
}

/// How far the end of a sync may be in the future, because the clock was set back a little.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// The time limit for the connection attempt to a backend.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `backend` can be reached. The reason is given to callers that may read.
async fn check_backend(backend: &Backend, caller: &Caller) -> BackendHealth {
    let reason = match timeout(PROBE_TIMEOUT, backend.check_reachable()).await {
        Ok(Ok(())) => backend.loop_problem(),
        Ok(Err(error)) if caller.may_read() => Some(error.to_string()),
        Ok(Err(_)) => Some("the reason is shown with the operator token".to_owned()),
        Err(_) => Some(format!("it did not answer within {}", humantime::format_duration(PROBE_TIMEOUT))),
    };
    BackendHealth { name: backend.config().name.clone(), part: ComponentHealth::from_reason(reason) }
}

/// Answers `GET /livez`.
pub(super) fn live() -> Response<Body> {
    let body = json!({ "live": true, "version": env!("CARGO_PKG_VERSION") });
    respond::json(StatusCode::OK, body.to_string().into())
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

/// The query of `/readyz`.
#[derive(Debug, Default)]
struct ReadyQuery {
    /// Whether the backends are checked, too.
    with_backends: bool,
    /// The only backend whose syncs must be fresh.
    backend: Option<String>,
    fresh: Vec<FreshnessLimit>,
}

/// The highest age of the last success of a kind.
#[derive(Clone, Copy, Debug)]
struct FreshnessLimit {
    kind: Kind,
    limit: Duration,
}

impl FromStr for FreshnessLimit {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, limit) = text.split_once(':').ok_or(())?;
        let limit = humantime::parse_duration(limit).map_err(drop)?;
        Ok(Self { kind: Kind::from_name(kind).ok_or(())?, limit })
    }
}

impl ReadyQuery {
    /// Parses `query`. `names` are those of the backends.
    fn parse(query: &str, names: &[&str]) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        let bad = |name, raw: &str, allowed| QueryError::Value { name, value: raw.to_owned(), allowed };
        for (name, raw, value) in parameters(query, &["fresh"])? {
            match (name, value.as_deref()) {
                ("fresh", value) => {
                    let allowed = || {
                        let kinds = join_or(Kind::all().map(Kind::as_str));
                        format!("KIND:AGE, such as full-update:26h, with {kinds} as KIND")
                    };
                    let limit = value.and_then(|value| value.parse().ok());
                    parsed.fresh.push(limit.ok_or_else(|| bad("fresh", raw, allowed()))?);
                }
                ("backend", None) if raw.is_empty() => parsed.with_backends = true,
                ("backend", value) => {
                    let allowed = || {
                        let names = join_or(names.iter().copied());
                        format!("no value, which checks the backends, or, with fresh, {names}")
                    };
                    let value = value.filter(|value| names.contains(value));
                    parsed.backend = Some(value.ok_or_else(|| bad("backend", raw, allowed()))?.to_owned());
                }
                _ => {
                    return Err(QueryError::Unknown {
                        name: name.to_owned(),
                        path: "/readyz",
                        allowed: "backend and fresh",
                    });
                }
            }
        }
        if parsed.backend.is_some() && parsed.fresh.is_empty() {
            let allowed = "no value, which checks the backends; a name narrows fresh, which is missing";
            let value = parsed.backend.unwrap_or_default();
            return Err(bad("backend", &value, allowed.to_owned()));
        }
        Ok(parsed)
    }
}

/// Answers `GET /readyz`. The query may add checks of the backends, and of the age of their last syncs.
pub(super) async fn ready(app: &App, query: &str, caller: Caller) -> Response<Body> {
    let state = app.state();
    let names: Vec<&str> = state.backends.iter().map(|backend| backend.config().name.as_str()).collect();
    let query = match ReadyQuery::parse(query, &names) {
        Ok(query) => query,
        Err(invalid) => return invalid_query(&invalid),
    };
    let mut readiness = Readiness::new(app);
    if query.with_backends {
        readiness.check_backends(app, caller).await;
    }
    readiness.check_freshness(app, &query);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::object(status, &readiness)
}
