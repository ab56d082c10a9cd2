//! `GET /backends`: the state of each backend, and the channels that its jobs use.

use futures::future::join_all;
use http::{Response, StatusCode};
use serde::Serialize;

use super::netbox_listener::NetboxListenerObject;
use crate::app::{BACKEND_LISTEN, LISTEN};
use crate::backend::{Backend, RequestIdentity};
use crate::config::Config;
use crate::core::compat::plugin::{Forecast, forecast};
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::run::capabilities::Capabilities;
use crate::core::run::plan::{needed_streams, plan};
use crate::job::{BackendLoad, CoolingDown};
use crate::ledger::{LastSuccess, Timestamp};
use crate::proxy::Proxy;
use crate::respond::{self, Body};

#[derive(Serialize)]
struct BackendList {
    results: Vec<BackendObject>,
}

/// A backend. Unknown values are `null`.
#[derive(Serialize)]
struct BackendObject {
    name: String,
    url: String,
    /// The address that serves its clients.
    listen: String,
    /// Whether clients connect to it over TLS.
    tls: bool,
    /// The host names by which clients reach it there.
    hosts: Vec<String>,
    /// Whether the last connection attempt succeeded.
    up: Option<bool>,
    /// The last connection error, or why its capabilities are unknown.
    problem: Option<String>,
    circuit: &'static str,
    version: Option<String>,
    dialect: Option<&'static str>,
    /// When the version and the channels were last detected.
    detected: Option<String>,
    channel: &'static str,
    running: usize,
    waiting: usize,
    /// The ended jobs that cool down. Each holds a concurrency permit.
    cooling_down: Vec<CoolingDownObject>,
    concurrency: usize,
    queue: usize,
    kinds: Vec<KindObject>,
    /// The forecast for jobs of the NetBox plugin.
    plugin_job: Option<Forecast>,
    /// The listener through which the backend connects to NetBox.
    netbox_listener: Option<NetboxListenerObject>,
}

/// An ended job on which the backend may still be working.
#[derive(Serialize)]
struct CoolingDownObject {
    job: String,
    until: String,
}

/// The channel for syncs of a kind.
#[derive(Serialize)]
struct KindObject {
    kind: &'static str,
    queue_path: String,
    known: bool,
    /// `None` if the backend does not support the kind.
    channel: Option<&'static str>,
    /// The stages that are skipped.
    without: Vec<&'static str>,
    last_success: Option<LastSuccessObject>,
}

/// The last sync of a kind that completed.
#[derive(Serialize)]
struct LastSuccessObject {
    job: String,
    time: String,
    age_seconds: u64,
    failed: u64,
    unconfirmed: u64,
}

/// The backends, in the order of the configuration.
pub(super) async fn list(proxy: &Proxy) -> Response<Body> {
    let state = proxy.app.state();
    let results =
        join_all(state.backends.iter().map(|backend| backend_object(proxy, &state.config, backend))).await;
    respond::object(StatusCode::OK, &BackendList { results })
}

async fn backend_object(proxy: &Proxy, bridge: &Config, backend: &Backend) -> BackendObject {
    let app = &proxy.app;
    let load = app.registry.load(backend);
    let (cached, problem) = probe_kinds(backend, load).await;
    app.registry.history.note_capabilities(backend);
    let detected = app.registry.history.capabilities(backend.url());
    let config = backend.config();
    let last_error = backend.last_error().map(|error| error.to_string());
    let mut capabilities = backend.cached_capabilities();
    let detected_at = detected.as_ref().map(|detected| detected.at.to_string());
    if let (None, Some(detected)) = (capabilities.release, &detected) {
        capabilities = detected.capabilities.clone();
    }
    let kind_object = |(endpoint, cached): (SyncEndpoint, Option<Capabilities>)| {
        let is_enough = |known: &Capabilities| needed_streams(endpoint, known, config.channel).is_empty();
        let known = cached
            .or_else(|| Some(&detected.as_ref()?.capabilities).filter(|known| is_enough(known)).cloned());
        let last_success = app.registry.history.last_success(backend.url(), endpoint.kind);
        KindObject::new(endpoint, known.as_ref(), backend, last_success)
    };
    let kinds = cached.into_iter().map(kind_object).collect();
    BackendObject {
        name: config.name.clone(),
        url: config.url.to_string(),
        listen: match config.listen {
            Some(own) => app.listeners.address(BACKEND_LISTEN, own),
            None => app.listeners.address(LISTEN, bridge.listen),
        }
        .to_string(),
        tls: bridge.tls.is_some(),
        hosts: config.hosts.clone(),
        up: backend.last_attempt().map(|_| last_error.is_none()),
        problem: last_error.or_else(|| backend.loop_problem()).or(problem),
        circuit: backend.circuit().as_str(),
        version: capabilities.release.map(|release| release.to_string()),
        dialect: capabilities.dialect().map(crate::core::upstream::dialect::Dialect::as_str),
        detected: detected_at,
        channel: config.channel.as_str(),
        running: load.running,
        waiting: load.waiting,
        cooling_down: app.registry.cooling_down(backend).into_iter().map(CoolingDownObject::new).collect(),
        concurrency: config.concurrency,
        queue: config.queue,
        plugin_job: forecast(&capabilities, &bridge.shims.settings(config)),
        netbox_listener: NetboxListenerObject::from_backend(proxy, backend).await,
        kinds,
    }
}

/// The current capabilities for each kind, or why they are unknown. A backend is not probed while a sync runs on it,
/// because it may not answer until the sync has ended, nor without a key if it requires one. Only cached capabilities
/// count then.
async fn probe_kinds(
    backend: &Backend,
    load: BackendLoad,
) -> (Vec<(SyncEndpoint, Option<Capabilities>)>, Option<String>) {
    let choice = backend.config().channel;
    let identity = RequestIdentity { key: backend.config().api_key.clone(), ..RequestIdentity::default() };
    let mut problem = None;
    let mut kinds = Vec::new();
    for kind in Kind::all() {
        let endpoint = SyncEndpoint::for_kind(kind);
        let mut capabilities = backend.cached_capabilities_for(endpoint);
        if capabilities.is_none() && problem.is_none() && load.running + load.cooling_down == 0 {
            match backend.capabilities(endpoint, choice, &identity).await {
                Ok(learned) if learned.release.is_some() || identity.key.is_some() => {
                    capabilities = Some(learned)
                }
                Ok(_) => problem = Some(NO_KEY.to_owned()),
                Err(refusal) => problem = Some(refusal.text()),
            }
        }
        kinds.push((endpoint, capabilities));
    }
    (kinds, problem)
}

const NO_KEY: &str = "The backend may require an API key, and none is configured (backend.api_key_file). Its \
                      capabilities are probed with the key of the first client.";

impl CoolingDownObject {
    fn new(CoolingDown { job, until }: CoolingDown) -> Self {
        Self { job: job.to_string(), until: until.to_string() }
    }
}

impl LastSuccessObject {
    fn new(LastSuccess { job, at, failed, unconfirmed }: LastSuccess) -> Self {
        let age_seconds = Timestamp::now().since(at).as_secs();
        Self { job: job.to_string(), time: at.to_string(), age_seconds, failed, unconfirmed }
    }
}

impl KindObject {
    fn new(
        endpoint: SyncEndpoint,
        capabilities: Option<&Capabilities>,
        backend: &Backend,
        last_success: Option<LastSuccess>,
    ) -> Self {
        let planned =
            capabilities.and_then(|capabilities| plan(endpoint, capabilities, backend.config().channel).ok());
        let channel = planned.as_ref().and_then(|plan| plan.legs.first()).map(|leg| leg.channel.as_str());
        let without = planned.map(|plan| plan.skipped).unwrap_or_default();
        Self {
            kind: endpoint.kind.as_str(),
            queue_path: endpoint.kind.queue_path(),
            known: capabilities.is_some(),
            channel,
            without: without.into_iter().map(Kind::as_str).collect(),
            last_success: last_success.map(LastSuccessObject::new),
        }
    }
}
