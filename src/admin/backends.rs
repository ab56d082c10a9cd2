//! The backends: what is known of each, and what its jobs will use.

use futures::future::join_all;
use http::{Response, StatusCode};
use serde::Serialize;

use super::netbox_listener::NetboxListenerObject;
use crate::backend::{Backend, Identity};
use crate::config::Shims;
use crate::core::compat::plugin::{Forecast, forecast};
use crate::core::domain::kind::{Endpoint, Kind};
use crate::core::run::capabilities::Capabilities;
use crate::core::run::plan::plan;
use crate::job::{CoolingDown, Load};
use crate::proxy::Proxy;
use crate::respond::{self, Body};

#[derive(Serialize)]
struct List {
    results: Vec<BackendObject>,
}

/// A backend. What is not known is `null`.
#[derive(Serialize)]
struct BackendObject {
    name: String,
    url: String,
    /// Whether it could be reached when that was last tried.
    up: Option<bool>,
    /// What is wrong with it.
    problem: Option<String>,
    circuit: &'static str,
    version: Option<String>,
    dialect: Option<&'static str>,
    channel: &'static str,
    running: usize,
    waiting: usize,
    /// The jobs whose cool-down takes a place.
    cooling_down: Vec<CoolingDownObject>,
    concurrency: usize,
    queue: usize,
    kinds: Vec<KindObject>,
    /// What jobs of the NetBox plugin come to.
    plugin_job: Option<Forecast>,
    /// The listener on which the bridge stands between it and NetBox.
    netbox_listener: Option<NetboxListenerObject>,
}

/// A job that has ended, and that the backend may still be at work on.
#[derive(Serialize)]
struct CoolingDownObject {
    job: String,
    until: String,
}

/// What a sync of a kind will use.
#[derive(Serialize)]
struct KindObject {
    kind: &'static str,
    queue_path: Option<String>,
    known: bool,
    /// Nothing, if the backend cannot do it.
    channel: Option<&'static str>,
    /// The stages that it is done without.
    without: Vec<&'static str>,
}

/// The backends, in the order of the configuration.
pub(super) async fn list(proxy: &Proxy) -> Response<Body> {
    let state = proxy.app.state();
    let results =
        join_all(state.backends.iter().map(|backend| described(proxy, &state.config.shims, backend))).await;
    respond::object(StatusCode::OK, &List { results })
}

async fn described(proxy: &Proxy, shims: &Shims, backend: &Backend) -> BackendObject {
    let app = &proxy.app;
    let load = app.registry.load(backend);
    let (kinds, problem) = kinds(backend, load).await;
    let config = backend.config();
    let trouble = backend.trouble().map(|error| error.to_string());
    let known = backend.known();
    BackendObject {
        name: config.name.clone(),
        url: config.url.to_string(),
        up: backend.last_tried().map(|_| trouble.is_none()),
        problem: trouble.or(problem),
        circuit: backend.circuit().as_str(),
        version: known.release.map(|release| release.to_string()),
        dialect: known.dialect().map(crate::core::upstream::dialect::Dialect::as_str),
        channel: config.channel.as_str(),
        running: load.running,
        waiting: load.waiting,
        cooling_down: app.registry.cooling_down(backend).into_iter().map(CoolingDownObject::new).collect(),
        concurrency: config.concurrency,
        queue: config.queue,
        plugin_job: forecast(&known, &shims.settings(config)),
        netbox_listener: NetboxListenerObject::of(proxy, backend).await,
        kinds,
    }
}

/// What each kind will use, and why that is not known, if so. A backend that is at work on a sync may answer
/// nothing until it is done, and one that wants a key is not asked without one: then only what is known
/// already counts.
async fn kinds(backend: &Backend, load: Load) -> (Vec<KindObject>, Option<String>) {
    let choice = backend.config().channel;
    let identity = Identity { key: backend.config().api_key.clone(), ..Identity::default() };
    let mut problem = None;
    let mut kinds = Vec::new();
    for kind in Kind::all() {
        let endpoint = Endpoint::of(kind);
        let mut known = backend.known_for(endpoint);
        if known.is_none() && problem.is_none() && load.running + load.cooling_down == 0 {
            match backend.capabilities(endpoint, choice, &identity, 1).await {
                Ok(learned) if learned.release.is_some() || identity.key.is_some() => known = Some(learned),
                Ok(_) => problem = Some(NO_KEY.to_owned()),
                Err(refusal) => problem = Some(refusal.text()),
            }
        }
        kinds.push(KindObject::of(endpoint, known.as_ref(), backend));
    }
    (kinds, problem)
}

const NO_KEY: &str = "It may want a key, and the bridge has none of its own (backend.api_key_file). What it can do \
                      is learned with the key of the first client.";

impl CoolingDownObject {
    fn new(CoolingDown { job, until }: CoolingDown) -> Self {
        Self { job: job.to_string(), until: until.to_string() }
    }
}

impl KindObject {
    fn of(endpoint: Endpoint, known: Option<&Capabilities>, backend: &Backend) -> Self {
        let row = endpoint.kind.row();
        let planned = known.and_then(|known| plan(endpoint, known, backend.config().channel).ok());
        let channel = planned.as_ref().and_then(|plan| plan.legs.first()).map(|leg| leg.channel.as_str());
        let without = planned.map(|plan| plan.skipped).unwrap_or_default();
        Self {
            kind: row.name,
            queue_path: row.plugin_path.map(|path| format!("/{path}")),
            known: known.is_some(),
            channel,
            without: without.into_iter().map(Kind::as_str).collect(),
        }
    }
}
