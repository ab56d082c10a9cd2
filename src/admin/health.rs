//! `GET /livez` and `GET /readyz`.

use std::time::Duration;

use futures::future::join_all;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::auth::Caller;
use crate::app::App;
use crate::backend::Backend;
use crate::config::WithoutLedger;
use crate::ledger::Health;
use crate::proxy::streams::{bad_parameter, unknown_parameter};
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
        let ready = !draining && listeners.is_none() && (ledger.is_none() || !must_record);
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
            reasons: reasons.into_iter().flatten().collect(),
        }
    }

    /// The readiness with a connection attempt to each backend.
    async fn with_backends(app: &App, caller: Caller) -> Self {
        let mut readiness = Self::new(app);
        let state = app.state();
        let reached = join_all(state.backends.iter().map(|backend| check_backend(backend, caller))).await;
        for BackendHealth { name, part } in &reached {
            if let Some(reason) = &part.reason {
                readiness.ready = false;
                readiness.reasons.push(format!("the backend {name} cannot be reached: {reason}"));
            }
        }
        readiness.backends = Some(reached);
        readiness
    }
}

/// The time limit for the connection attempt to a backend.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `backend` can be reached. The reason is given to callers that may read.
async fn check_backend(backend: &Backend, caller: Caller) -> BackendHealth {
    let reason = match timeout(PROBE_TIMEOUT, backend.check_reachable()).await {
        Ok(Ok(())) => None,
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

/// Answers `GET /readyz`. With `backend` in the query, the backends are checked, too.
pub(super) async fn ready(app: &App, query: &str, caller: Caller) -> Response<Body> {
    let readiness = match query {
        "" => Readiness::new(app),
        "backend" | "backend=" => Readiness::with_backends(app, caller).await,
        _ => {
            let detail =
                "/readyz has one parameter: ?backend also checks whether the backends can be reached.";
            let is_value = query.starts_with("backend=");
            return if is_value { bad_parameter(detail) } else { unknown_parameter(detail) };
        }
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::object(status, &readiness)
}
