//! The admin listener.
//!
//! | path | answer |
//! |---|---|
//! | `GET /livez` | 200 `ok` as long as the process can answer |
//! | `GET /readyz` | 200 when jobs can begin, 503 with the reasons when not |
//! | `GET /metrics` | the numbers that Prometheus asks for |
//! | `GET /openapi.json` | what this table says, for programs |
//! | `GET /jobs` | the jobs, newest first |
//! | `GET /jobs/{id}` | one job, with its log |
//! | `DELETE /jobs/{id}` | cancels it |
//! | `GET /jobs/{id}/events` | its stream, from its first event on, and live |
//! | `GET /jobs/{id}/recording` | what the backend said in it, word for word |
//! | `POST /reload` | reads the configuration again |
//! | `POST /sync/…` | starts a sync, or finds the one that runs |
//!
//! HEAD is known where GET is, but for streams.

mod site;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::front::{self, Peer};
use super::{Bridge, jobs, sync};
use crate::config::WithoutLedger;
use crate::core::kind::{Endpoint, Kind};
use crate::ledger::Health;
use crate::respond::{self, Body};
use crate::telemetry;

/// What every path of this listener is described in, as OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Livez,
    Readyz,
    Metrics,
    Document,
    Jobs,
    Job,
    Events,
    Recording,
    Reload,
    Sync(Endpoint),
}

/// The part of a path that is the id of a job.
const ID: &str = "{id}";

const ROUTES: [(&str, Resource); 9] = [
    ("/livez", Resource::Livez),
    ("/readyz", Resource::Readyz),
    ("/metrics", Resource::Metrics),
    ("/openapi.json", Resource::Document),
    ("/jobs", Resource::Jobs),
    ("/jobs/{id}", Resource::Job),
    ("/jobs/{id}/events", Resource::Events),
    ("/jobs/{id}/recording", Resource::Recording),
    ("/reload", Resource::Reload),
];

impl Resource {
    /// What is at `path`, with the id that stands in it.
    fn at(path: &str) -> Option<(Self, &str)> {
        let route = ROUTES.iter().find_map(|(route, resource)| Some((*resource, matched(route, path)?)));
        route.or_else(|| Some((Self::Sync(Endpoint::queued_at(path)?), "")))
    }

    /// The methods that it knows, as `Allow` has them.
    const fn methods(self) -> &'static str {
        match self {
            Self::Job => "GET, HEAD, DELETE",
            Self::Events => "GET",
            Self::Reload | Self::Sync(_) => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Whether `path` is one of those that `route` describes; if it is, the id in it.
fn matched<'a>(route: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = route.split_once(ID) else { return (route == path).then_some("") };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// Every path that this listener serves, with the methods that it knows. `{id}` stands for the id of a job.
pub fn paths() -> impl Iterator<Item = (String, &'static str)> {
    let queued = Kind::all().filter_map(|kind| {
        let path = kind.row().plugin_path?;
        Some((format!("/{path}"), Resource::Sync(Endpoint::of(kind)).methods()))
    });
    ROUTES.iter().map(|(path, resource)| ((*path).to_owned(), resource.methods())).chain(queued)
}

/// Answers a request to the admin listener.
pub async fn answer(bridge: &Bridge, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
    // No path has a use for a body.
    let (request, _) = request.into_parts();
    if let Some(rejected) = front::rejection(bridge, &request, peer) {
        return rejected;
    }
    let Some((resource, id)) = Resource::at(request.uri.path()) else {
        return respond::said(
            StatusCode::NOT_FOUND,
            "Not found.",
            "The admin listener has /livez, /readyz, /metrics, /jobs, /jobs/{id}, /jobs/{id}/events, \
             /jobs/{id}/recording, POST /reload and POST /sync/…; /openapi.json describes them.",
        );
    };
    let method = &request.method;
    if !resource.methods().split(", ").any(|known| known == method.as_str()) {
        return respond::only(resource.methods());
    }
    if site::is_foreign(method, &request.headers) {
        return respond::said(
            StatusCode::FORBIDDEN,
            "Refused for a page of another site.",
            "Sec-Fetch-Site or Origin says that a page of another site asks for this. Ask from a page of \
             this address, or without a browser.",
        );
    }
    match resource {
        Resource::Livez => text("text/plain; charset=utf-8", Bytes::from_static(b"ok\n")),
        Resource::Readyz => ready(bridge),
        Resource::Metrics => {
            text("text/plain; version=0.0.4; charset=utf-8", telemetry::metrics_text().into())
        }
        Resource::Document => respond::json(StatusCode::OK, Bytes::from_static(DOCUMENT.as_bytes())),
        Resource::Jobs => jobs::list(bridge, request.uri.query().unwrap_or_default()).await,
        Resource::Job if method == Method::DELETE => jobs::cancel(bridge, id).await,
        Resource::Job => jobs::one(bridge, id).await,
        Resource::Events => jobs::events(bridge, id, &request).await,
        Resource::Recording => jobs::recording(bridge, id).await,
        Resource::Reload => reload(bridge).await,
        Resource::Sync(endpoint) => sync::answer(bridge, endpoint, &request, peer.address),
    }
}

/// Whether jobs can begin, and why not. A ledger that does not work is told of also where jobs go on
/// without it.
fn ready(bridge: &Bridge) -> Response<Body> {
    let ledger = bridge.registry.ledger().health().borrow().clone();
    let must_record = bridge.state().config.jobs.without_ledger == WithoutLedger::Refuse;
    let draining = bridge.registry.is_draining();
    let is_ready = !draining && (ledger == Health::Available || !must_record);
    let ledger = match ledger {
        Health::Available => json!({ "available": true }),
        Health::Unavailable(reason) => json!({ "available": false, "reason": reason }),
    };
    let body = json!({ "ready": is_ready, "draining": draining, "ledger": ledger });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::json(status, body.to_string().into())
}

/// Reads the configuration again.
async fn reload(bridge: &Bridge) -> Response<Body> {
    match bridge.reload.reload().await {
        Ok(()) => {
            let names = bridge.state().names();
            respond::said(StatusCode::OK, "The configuration was read again.", &format!("Backends: {names}."))
        }
        Err(why) => respond::said(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The configuration was not read again; the one before is in force.",
            &why,
        ),
    }
}

fn text(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(respond::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
