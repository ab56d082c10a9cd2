//! The sync streams.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};

use super::quota::{Slot, StreamKey, holding, stream_slot};
use super::request::Visit;
use super::request_id::{REQUEST_ID, TRACEPARENT};
use super::subscriber::{self, Attendance, View};
use crate::backend::{Backend, Identity};
use crate::core::domain::kind::{Endpoint, Kind};
use crate::core::domain::refusal::Refusal;
use crate::core::http::headers::{came_through_bridge, text};
use crate::core::http::query::{Parameters, Query};
use crate::core::run::normalizer::Normalizer;
use crate::core::text::redact::Redactor;
use crate::job::{self, Arrival, Denied, Entered, Watching};
use crate::ledger::JobId;
use crate::proxy::Proxy;
use crate::proxy::credentials::key_of;
use crate::respond::{self, Body};
use crate::telemetry::{self, Surface};

/// Whose name is in the backend's records.
const ACTOR: HeaderName = HeaderName::from_static("x-proxbox-actor");
/// Whose failed attempts the backend counts.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A client that sends it can take `id:` lines (R1).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The job that an answer is of.
const JOB: HeaderName = HeaderName::from_static("x-proxbox-bridge-job");

/// Answers a request for the stream of `endpoint`.
pub(crate) async fn answer(
    proxy: &Proxy,
    visit: &Visit,
    endpoint: Endpoint,
    request: &Parts,
) -> Response<Body> {
    // HEAD must never start a sync; it is how capabilities are learned.
    if request.method != Method::GET {
        return respond::only("GET");
    }
    if let Some(refused) = without_chunks(request.version) {
        return refused;
    }
    let query = match Query::parse(request.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(bad) => return unknown_parameter(&bad.to_string()),
    };
    if query.bridge.backend.is_some() {
        return unknown_parameter(
            "bridge.backend belongs to the admin listener: a stream is of the backend that its host or its \
             port stands for.",
        );
    }
    let slot = match stream_slot(proxy, visit, key_of(&request.headers).as_ref()) {
        Ok(slot) => slot,
        Err(limit) => return respond::over(limit),
    };
    let last_event = last_event(&request.headers, &query.bridge);
    let view = View {
        ids: query.bridge.ids || last_event.is_some(),
        all_events: query.bridge.all_events,
        payloads: wants_payloads(&query.bridge, &request.headers),
    };
    let arrival = Arrival { fresh: query.bridge.fresh, last_event };
    let wanted = wanted(&visit.backend, endpoint, query, &request.headers, visit.forwarded.client);
    let wanted = job::Request { to_stream: true, ..wanted };
    let (id, refusal) = match proxy.app.registry.enter(wanted, arrival).await {
        Ok(Entered::Watching(watching)) => match begun(watching, visit, view, slot).await {
            Ok(response) => return response,
            Err((id, refusal)) => (Some(id), refusal),
        },
        Ok(Entered::Replay { id, missed, frames, notice }) => {
            let span = telemetry::job_span(id, &visit.backend.config().name, endpoint);
            let body = subscriber::stored(endpoint.kind, id, notice.as_deref(), missed, frames, view, &span);
            return of_job(respond::stream(body), id);
        }
        Ok(Entered::Seen) => return respond::nothing(),
        Err(denied) => denied_answer(&visit.backend, &denied),
    };
    refused(request.uri.path(), &visit.backend, endpoint, id, &refusal)
}

/// The answer to a client that cannot be given a stream, if `version` is of one.
pub(crate) fn without_chunks(version: Version) -> Option<Response<Body>> {
    // HTTP/1.0 has no chunks, and a body that ends with its connection is held back by readers (R5).
    (version < Version::HTTP_11).then(|| {
        respond::said(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "Streams need HTTP/1.1.",
            "A proxy in front of the bridge speaks HTTP/1.0 to it. In nginx: proxy_http_version 1.1.",
        )
    })
}

/// The answer to a query that is not understood.
pub(crate) fn unknown_parameter(detail: &str) -> Response<Body> {
    respond::said(StatusCode::BAD_REQUEST, "Unknown parameter.", detail)
}

/// The answer to a client at `path` that got no stream, because of the job `id` if there is one.
pub(crate) fn refused(
    path: &str,
    backend: &Backend,
    endpoint: Endpoint,
    id: Option<JobId>,
    refusal: &Refusal,
) -> Response<Body> {
    let response = respond::refused(refusal);
    let refused = telemetry::Refused { path, refusal };
    match id {
        Some(id) => {
            telemetry::job_span(id, &backend.config().name, endpoint).in_scope(|| refused.emit());
            of_job(response, id)
        }
        None => {
            refused.emit();
            response
        }
    }
}

async fn begun(
    watching: Watching,
    visit: &Visit,
    view: View,
    slot: Slot<StreamKey>,
) -> Result<Response<Body>, (JobId, Refusal)> {
    let id = watching.job.id;
    watching.begun().await.map_err(|refusal| (id, refusal))?;
    let heartbeat = visit.state.config.limits.heartbeat;
    let attendance = Attendance::new(&watching.job, Surface::Stream, visit.stuck.clone());
    let body = subscriber::live(watching, attendance, view, heartbeat);
    Ok(of_job(holding(respond::stream(body), slot), id))
}

/// Whether the client is given all that is known of each object: another bridge counts by it.
fn wants_payloads(parameters: &Parameters, headers: &HeaderMap) -> bool {
    parameters.payloads || came_through_bridge(headers)
}

/// What the client has seen, if it says so. An empty text says that it has seen nothing, and can take ids.
pub(crate) fn last_event(headers: &HeaderMap, parameters: &Parameters) -> Option<String> {
    let header = || headers.get(LAST_EVENT_ID).map(text);
    header().or_else(|| parameters.last_event_id.clone())
}

/// The sync that a client asks for with `headers`, from `address`.
pub(crate) fn wanted(
    backend: &Arc<Backend>,
    endpoint: Endpoint,
    query: Query,
    headers: &HeaderMap,
    address: IpAddr,
) -> job::Request {
    let key = backend.config().api_key.clone().or_else(|| key_of(headers));
    let names = [ACTOR, FORWARDED_FOR, REQUEST_ID, TRACEPARENT];
    let passed_on = names
        .into_iter()
        .filter_map(|name| headers.get(&name).map(|value| (name.clone(), value.clone())))
        .collect();
    job::Request {
        backend: Arc::clone(backend),
        endpoint,
        query: query.backend,
        all_events: query.bridge.all_events,
        payloads: wants_payloads(&query.bridge, headers),
        over_socket: false,
        to_stream: false,
        identity: Identity { key, passed_on },
        address: Some(address.to_string()),
        actor: headers.get(ACTOR).map(text),
    }
}

/// The answer to a client that came to nothing, and the job that it is about.
pub(crate) fn denied_answer(backend: &Backend, denied: &Denied) -> (Option<JobId>, Refusal) {
    let retry_after = backend.limits().retry_after.as_secs();
    match denied {
        Denied::Running(id) => (Some(*id), Refusal::running(&id.to_string())),
        Denied::QueueFull { .. } => (None, Refusal::queue_full(&denied.to_string(), retry_after)),
        Denied::Draining => (None, Refusal::stopping(retry_after)),
        Denied::AwaitsRestart(why) => (None, Refusal::awaits_restart(why, retry_after)),
        Denied::LedgerUnavailable(_) => (None, Refusal::no_record(&denied.to_string(), retry_after)),
    }
}

/// What the log of a job says of `refusal`, for the client that it is the answer to.
pub(crate) fn refusal_frames(kind: Kind, refusal: &Refusal) -> Vec<Bytes> {
    Normalizer::refused(kind, refusal, &Redactor::default()).into_iter().map(|frame| frame.bytes).collect()
}

/// `response`, with the name of the job that it is of.
pub(crate) fn of_job(mut response: Response<Body>, id: JobId) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(JOB, id);
    }
    response
}
