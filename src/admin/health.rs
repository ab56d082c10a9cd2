//! Whether the bridge lives, and whether it can do its work.

use std::time::Duration;

use futures::future::join_all;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::app::App;
use crate::backend::Backend;
use crate::config::WithoutLedger;
use crate::ledger::Health;
use crate::respond::{self, Body};

/// What the bridge needs to do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    /// Whether jobs can begin.
    pub(super) ready: bool,
    /// Whether it is stopping.
    pub(super) draining: bool,
    ledger: ComponentHealth,
    listeners: ComponentHealth,
    /// The backends, if they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    backends: Option<Vec<BackendHealth>>,
    /// Everything that is wrong, also where jobs begin all the same.
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
    /// What can be said without asking anybody.
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
                .map(|why| format!("cleaning of the ledger is held back: {why}")),
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

    /// The same, and whether the backends can be reached.
    async fn with_backends(app: &App, may_read: bool) -> Self {
        let mut readiness = Self::new(app);
        let state = app.state();
        let reached = join_all(state.backends.iter().map(|backend| check_backend(backend, may_read))).await;
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

/// How long a backend may take to be reached, for somebody who wants to know soon.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `backend` can be reached, and why not, for whoever may know that.
async fn check_backend(backend: &Backend, may_read: bool) -> BackendHealth {
    let reason = match timeout(PROBE_TIMEOUT, backend.check_reachable()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if may_read => Some(error.to_string()),
        Ok(Err(_)) => Some("the bridge says why to whoever has its token".to_owned()),
        Err(_) => Some(format!("it did not answer within {}", humantime::format_duration(PROBE_TIMEOUT))),
    };
    BackendHealth { name: backend.config().name.clone(), part: ComponentHealth::from_reason(reason) }
}

/// The process can answer.
pub(super) fn live() -> Response<Body> {
    let body = json!({ "live": true, "version": env!("CARGO_PKG_VERSION") });
    respond::json(StatusCode::OK, body.to_string().into())
}

/// Whether it can do its work; with `backend` in the query, whether its backends can be reached, too.
pub(super) async fn ready(app: &App, query: &str, may_read: bool) -> Response<Body> {
    let readiness = match query {
        "" => Readiness::new(app),
        "backend" | "backend=" => Readiness::with_backends(app, may_read).await,
        _ => {
            return respond::message(
                StatusCode::BAD_REQUEST,
                "Unknown parameter.",
                "/readyz knows ?backend, which asks whether the backends can be reached, too.",
            );
        }
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::object(status, &readiness)
}
