//! The backends: what is known of each, and what its jobs will use.

use futures::future::join_all;
use http::{Response, StatusCode};
use serde::Serialize;

use super::netbox_listener::NetboxListenerObject;
use crate::backend::{Backend, RequestIdentity};
use crate::config::ShimsConfig;
use crate::core::compat::plugin::{Forecast, forecast};
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::run::capabilities::Capabilities;
use crate::core::run::plan::plan;
use crate::job::{BackendLoad, CoolingDown};
use crate::proxy::Proxy;
use crate::respond::{self, Body};

#[derive(Serialize)]
struct BackendList {
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
        join_all(state.backends.iter().map(|backend| backend_object(proxy, &state.config.shims, backend)))
            .await;
    respond::object(StatusCode::OK, &BackendList { results })
}

async fn backend_object(proxy: &Proxy, shims: &ShimsConfig, backend: &Backend) -> BackendObject {
    let app = &proxy.app;
    let load = app.registry.load(backend);
    let (kinds, problem) = kinds(backend, load).await;
    let config = backend.config();
    let last_error = backend.last_error().map(|error| error.to_string());
    let capabilities = backend.cached_capabilities();
    BackendObject {
        name: config.name.clone(),
        url: config.url.to_string(),
        up: backend.last_attempt().map(|_| last_error.is_none()),
        problem: last_error.or(problem),
        circuit: backend.circuit().as_str(),
        version: capabilities.release.map(|release| release.to_string()),
        dialect: capabilities.dialect().map(crate::core::upstream::dialect::Dialect::as_str),
        channel: config.channel.as_str(),
        running: load.running,
        waiting: load.waiting,
        cooling_down: app.registry.cooling_down(backend).into_iter().map(CoolingDownObject::new).collect(),
        concurrency: config.concurrency,
        queue: config.queue,
        plugin_job: forecast(&capabilities, &shims.settings(config)),
        netbox_listener: NetboxListenerObject::of(proxy, backend).await,
        kinds,
    }
}

/// What each kind will use, and why that is not known, if so. A backend that is at work on a sync may answer
/// nothing until it is done, and one that wants a key is not asked without one: then only what is known
/// already counts.
async fn kinds(backend: &Backend, load: BackendLoad) -> (Vec<KindObject>, Option<String>) {
    let choice = backend.config().channel;
    let identity = RequestIdentity { key: backend.config().api_key.clone(), ..RequestIdentity::default() };
    let mut problem = None;
    let mut kinds = Vec::new();
    for kind in Kind::all() {
        let endpoint = SyncEndpoint::for_kind(kind);
        let mut capabilities = backend.cached_capabilities_for(endpoint);
        if capabilities.is_none() && problem.is_none() && load.running + load.cooling_down == 0 {
            match backend.capabilities(endpoint, choice, &identity, 1).await {
                Ok(learned) if learned.release.is_some() || identity.key.is_some() => {
                    capabilities = Some(learned)
                }
                Ok(_) => problem = Some(NO_KEY.to_owned()),
                Err(refusal) => problem = Some(refusal.text()),
            }
        }
        kinds.push(KindObject::new(endpoint, capabilities.as_ref(), backend));
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
    fn new(endpoint: SyncEndpoint, capabilities: Option<&Capabilities>, backend: &Backend) -> Self {
        let row = endpoint.kind.row();
        let planned =
            capabilities.and_then(|capabilities| plan(endpoint, capabilities, backend.config().channel).ok());
        let channel = planned.as_ref().and_then(|plan| plan.legs.first()).map(|leg| leg.channel.as_str());
        let without = planned.map(|plan| plan.skipped).unwrap_or_default();
        Self {
            kind: row.name,
            queue_path: row.plugin_path.map(|path| format!("/{path}")),
            known: capabilities.is_some(),
            channel,
            without: without.into_iter().map(Kind::as_str).collect(),
        }
    }
}
