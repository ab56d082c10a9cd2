//! The answers to requests that are not WebSocket upgrades.

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::ReplayOptions;
use super::Shared;
use super::answer::{RecordedResponse, ResponseHead};
use super::body::{Body, replayed, whole};
use super::keys::{KeyRefusal, LOCK_OUT_SECONDS};
use super::line::{ConnectionDropped, ConnectionHandle};
use super::misbehaviour::FaultCounter;
use crate::recording::{RecordedKey, Recording};

/// The header that carries the API key.
const KEY_HEADER: &str = "x-proxbox-api-key";

/// The paths that need no key, besides everything under `/static/`.
const EXEMPT: [&str; 8] = [
    "/", "/auth/bootstrap-status", "/auth/register-key", "/docs", "/health", "/meta", "/openapi.json",
    "/redoc",
];

/// The paths that a client probes before a sync. Faults are not injected here, because the client would not start a
/// sync then.
const SELF_DESCRIBING: [&str; 4] = ["/", "/execution-policy", "/health", "/version"];

/// Answers a request. The key is checked before the path.
///
/// # Errors
/// The connection is to be dropped without an answer, as in the recording.
pub(super) async fn respond(
    shared: &Shared,
    line: &ConnectionHandle,
    request: &Request<Incoming>,
) -> Result<Response<Body>, ConnectionDropped> {
    let library = &shared.library;
    let (method, path) = (request.method(), request.uri().path());
    let key = request.headers().get(KEY_HEADER).and_then(|value| value.to_str().ok());
    let recorded = if key.is_some_and(|key| !key.is_empty()) { RecordedKey::Sent } else { RecordedKey::None };

    let is_exempt = EXEMPT.contains(&path) || path.starts_with("/static/");
    if library.demands_keys()
        && !is_exempt
        && let Err(refusal) = shared.keys.check(key)
    {
        return match library.refusal(method, path, recorded) {
            Some(recording) if !refusal.locked_out => replay(shared, line, recording).await,
            _ => Ok(refused(&refusal)),
        };
    }
    let target = request.uri().path_and_query().map_or(path, |target| target.as_str());
    if let Some(recording) = library.exchange(method, target, recorded) {
        return replay(shared, line, recording).await;
    }
    if library.has_path(path) {
        let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Ok(response);
    }
    Ok(detail(StatusCode::NOT_FOUND, "Not Found"))
}

/// Answers as recorded.
///
/// # Errors
/// The connection was dropped without an answer in the recording.
pub(super) async fn replay(
    shared: &Shared,
    line: &ConnectionHandle,
    recording: &Recording,
) -> Result<Response<Body>, ConnectionDropped> {
    let (start, speed) = (Instant::now(), shared.options.speed);
    let answer = RecordedResponse::from_recording(recording);
    if let Some(after) = answer.dropped_at() {
        speed.wait(start, after).await;
        return Err(ConnectionDropped);
    }
    let Some(ResponseHead { after, status, headers, .. }) = answer.head.clone() else {
        // The recorder disconnected before the backend answered.
        return std::future::pending().await;
    };
    speed.wait(start, after).await;

    let about_itself = recording.request().is_some_and(|(_, target)| SELF_DESCRIBING.contains(&target));
    let count = if about_itself {
        FaultCounter::new(&ReplayOptions::default())
    } else {
        FaultCounter::new(&shared.options)
    };
    // With a declared length, the client would have the whole body before the fault.
    let length = answer.length().filter(|_| !answer.is_sse() && !count.is_armed());
    let mut response = Response::new(replayed(answer, start, speed, count, line.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// A response in the format of the backend's framework, FastAPI.
pub(super) fn detail(status: StatusCode, detail: &str) -> Response<Body> {
    let body = serde_json::json!({ "detail": detail }).to_string();
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refused(refusal: &KeyRefusal) -> Response<Body> {
    if !refusal.locked_out {
        return detail(StatusCode::UNAUTHORIZED, &refusal.detail);
    }
    let mut response = detail(StatusCode::TOO_MANY_REQUESTS, &refusal.detail);
    response.headers_mut().insert(header::RETRY_AFTER, LOCK_OUT_SECONDS.into());
    response
}
