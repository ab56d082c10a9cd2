//! The sync streams.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};

use super::errors::{OrResponse, check_origin};
use super::quota::{QuotaGuard, QuotaKey, acquire_stream, hold_until_sent};
use super::request::RequestContext;
use super::request_id::{REQUEST_ID, TRACEPARENT};
use super::subscriber::{self, SubscriberOptions, WatcherGuard};
use crate::backend::{Backend, RequestIdentity};
use crate::core::domain::error_code::ErrorCode;
use crate::core::domain::kind::SyncEndpoint;
use crate::core::domain::refusal::Refusal;
use crate::core::http::headers::{came_through_bridge, text};
use crate::core::http::query::{BridgeParameters, InvalidParameter, Query};
use crate::job::{self, AdmitError, AttachOptions, Attached, EventSelection, Watcher};
use crate::ledger::JobId;
use crate::proxy::credentials::request_key;
use crate::respond::{self, Body};
use crate::telemetry::{self, Surface};

/// The actor that the backend records.
const ACTOR: HeaderName = HeaderName::from_static("x-proxbox-actor");
/// The client address that the backend counts failed attempts by.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A client that sends it supports `id:` lines (R1).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The job of a response.
const JOB: HeaderName = HeaderName::from_static("x-proxbox-bridge-job");

/// Answers a request for the stream of `endpoint`.
pub(crate) async fn answer(
    context: &RequestContext,
    endpoint: SyncEndpoint,
    request: &Parts,
) -> OrResponse<Response<Body>> {
    check_origin(context, &request.headers)?;
    // HEAD must never start a sync: clients use it to detect endpoints.
    if request.method != Method::GET {
        return Err(respond::method_not_allowed("GET").into());
    }
    if let Some(refused) = without_chunks(request.version) {
        return Err(refused.into());
    }
    let query = Query::parse_stream(request.uri.query().unwrap_or_default());
    let query = query.map_err(|invalid| invalid_query(&invalid))?;
    if query.parameters.backend.is_some() {
        let detail = "bridge.backend is only valid on the admin listener: here, the host or the port selects the backend.";
        return Err(unknown_parameter(detail).into());
    }
    let slot = acquire_stream(context, request_key(&request.headers).as_ref())?;
    let last_event = last_event(&request.headers, &query.parameters);
    let view = SubscriberOptions {
        ids: query.parameters.ids || last_event.is_some(),
        selection: selection(&query.parameters, &request.headers),
    };
    let options = AttachOptions { fresh: query.parameters.fresh, last_event };
    let sync_request =
        job_request(&context.backend, endpoint, query, &request.headers, context.forwarded.client);
    let sync_request = job::SyncRequest { to_stream: true, ..sync_request };
    let (id, refusal) = match context.proxy.app.registry.attach(sync_request, options).await {
        Ok(Attached::Watching(watching)) => match respond(watching, context, view, slot).await {
            Ok(response) => return Ok(response),
            Err((id, refusal)) => (Some(id), refusal),
        },
        Ok(Attached::Replay(replay)) => {
            let id = replay.id;
            let span = telemetry::job_span(id, &context.backend.config().name, endpoint);
            let body = subscriber::stored(endpoint.kind, replay, view, &span);
            return Ok(with_job_header(respond::stream(body), id));
        }
        Ok(Attached::Seen) => return Ok(respond::no_content()),
        Err(error) => refusal_for(&context.backend, &error),
    };
    Err(refused(request.uri.path(), &context.backend, endpoint, (id, &refusal), respond::refusal).into())
}

/// The response to a client whose `version` of HTTP does not support streams.
pub(crate) fn without_chunks(version: Version) -> Option<Response<Body>> {
    // HTTP/1.0 has no chunks, and readers buffer a body that ends with its connection (R5).
    (version < Version::HTTP_11).then(|| {
        respond::error(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            ErrorCode::HttpVersion,
            "Streams need HTTP/1.1.",
            "A proxy in front of the bridge speaks HTTP/1.0 to it. In nginx: proxy_http_version 1.1.",
        )
    })
}

/// The response to a query with a parameter that has an invalid value, or is unknown.
pub(crate) fn invalid_query(invalid: &InvalidParameter) -> Response<Body> {
    let detail = invalid.to_string();
    if invalid.is_known { bad_parameter(&detail) } else { unknown_parameter(&detail) }
}

/// The response to a query in which the value of a parameter is invalid or missing.
pub(crate) fn bad_parameter(detail: &str) -> Response<Body> {
    respond::error(StatusCode::BAD_REQUEST, ErrorCode::BadParameter, "Bad parameter.", detail)
}

/// The response to a query with a parameter that this request does not have.
pub(crate) fn unknown_parameter(detail: &str) -> Response<Body> {
    respond::error(StatusCode::BAD_REQUEST, ErrorCode::UnknownParameter, "Unknown parameter.", detail)
}

/// The response to a client at `path` that gets no stream, with the job `id` if the refusal is due to one.
pub(crate) fn refused(
    path: &str,
    backend: &Backend,
    endpoint: SyncEndpoint,
    (id, refusal): (Option<JobId>, &Refusal),
    respond: fn(&Refusal) -> Response<Body>,
) -> Response<Body> {
    let response = respond(refusal);
    let refused = telemetry::RequestRefused { path, refusal };
    match id {
        Some(id) => {
            telemetry::job_span(id, &backend.config().name, endpoint).in_scope(|| refused.emit());
            with_job_header(response, id)
        }
        None => {
            refused.emit();
            response
        }
    }
}

async fn respond(
    watching: Watcher,
    context: &RequestContext,
    view: SubscriberOptions,
    slot: QuotaGuard<QuotaKey>,
) -> Result<Response<Body>, (JobId, Refusal)> {
    let id = watching.job.id;
    watching.started().await.map_err(|refusal| (id, refusal))?;
    let heartbeat = context.state.config.limits.heartbeat;
    let watcher = WatcherGuard::new(&watching.job, Surface::Stream, context.stall.clone());
    let body = subscriber::live(watching, watcher, view, heartbeat);
    Ok(with_job_header(hold_until_sent(respond::stream(body), slot), id))
}

/// The optional events that the client gets. Another bridge gets all payloads: it counts objects by them.
fn selection(parameters: &BridgeParameters, headers: &HeaderMap) -> EventSelection {
    let payloads = parameters.payloads || came_through_bridge(headers);
    EventSelection { all_events: parameters.all_events, payloads }
}

/// The last event that the client has seen, if it sends one. An empty value means that it has seen none and supports
/// ids.
pub(crate) fn last_event(headers: &HeaderMap, parameters: &BridgeParameters) -> Option<String> {
    let header = || headers.get(LAST_EVENT_ID).map(text);
    header().or_else(|| parameters.last_event_id.clone())
}

/// The sync request of a client with `headers`, from `address`.
pub(crate) fn job_request(
    backend: &Arc<Backend>,
    endpoint: SyncEndpoint,
    query: Query,
    headers: &HeaderMap,
    address: IpAddr,
) -> job::SyncRequest {
    let key = backend.config().api_key.clone().or_else(|| request_key(headers));
    let names = [ACTOR, FORWARDED_FOR, REQUEST_ID, TRACEPARENT];
    let mut identity = RequestIdentity::keyless(headers);
    let passed_on =
        names.into_iter().filter_map(|name| headers.get(&name).map(|value| (name, value.clone())));
    identity.forwarded_headers.extend(passed_on);
    job::SyncRequest {
        backend: Arc::clone(backend),
        endpoint,
        query: query.backend_query,
        selection: selection(&query.parameters, headers),
        over_socket: false,
        to_stream: false,
        identity: RequestIdentity { key, ..identity },
        address: Some(address.to_string()),
        actor: actor(headers),
    }
}

/// The user that the client names.
pub(crate) fn actor(headers: &HeaderMap) -> Option<String> {
    headers.get(ACTOR).map(text)
}

/// The refusal for a client that was not admitted, and the job that caused it.
pub(crate) fn refusal_for(backend: &Backend, error: &AdmitError) -> (Option<JobId>, Refusal) {
    let retry_after = backend.limits().retry_after.as_secs();
    match error {
        AdmitError::Running(id) => (Some(*id), Refusal::already_running(&id.to_string())),
        AdmitError::QueueFull { .. } => (None, Refusal::queue_full(&error.to_string(), retry_after)),
        AdmitError::Draining => (None, Refusal::stopping(retry_after)),
        AdmitError::AwaitsRestart(why) => (None, Refusal::awaits_restart(why, retry_after)),
        AdmitError::LedgerUnavailable(_) => (None, Refusal::no_record(&error.to_string(), retry_after)),
    }
}

/// The job of `response`.
pub(super) fn job_header(response: &Response<Body>) -> Option<&str> {
    response.headers().get(JOB)?.to_str().ok()
}

/// Sets the id of the job in `response`.
pub(crate) fn with_job_header(mut response: Response<Body>, id: JobId) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(JOB, id);
    }
    response
}
