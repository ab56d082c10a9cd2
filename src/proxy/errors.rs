//! Responses to rejected requests, and to requests that a backend does not answer.

use std::net::IpAddr;

use http::header::{CONNECTION, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::request::{Peer, REJECTED, RequestContext};
use crate::app::AppState;
use crate::backend::{Backend, ForwardError, UploadError};
use crate::core::domain::error_code::ErrorCode;
use crate::core::domain::refusal::{LOOP_DETECTED, Refusal};
use crate::core::http::csrf;
use crate::core::http::guard::{self, RejectReason, Rejection};
use crate::core::http::headers::text;
use crate::core::http::url::BackendUrl;
use crate::core::text::plain;
use crate::respond::{self, Body};
use crate::telemetry;

/// The maximum length of a repeated header value, in characters.
const MAX_NAMED: usize = 80;

/// The value, or the response that ends the request because of an error.
pub(super) type OrResponse<T> = Result<T, Box<Response<Body>>>;

/// The response to send.
pub(super) fn merge(result: OrResponse<Response<Body>>) -> Response<Body> {
    result.unwrap_or_else(|response| *response)
}

/// The response to a request for `path` that the bridge or the backend refuses.
pub(super) fn refusal_response(path: &str, refusal: &Refusal) -> Box<Response<Body>> {
    telemetry::RequestRefused { path, refusal }.emit();
    Box::new(respond::refusal(refusal))
}

/// The response to a request that the guard rejects.
pub(crate) fn rejection(state: &AppState, request: &Parts, peer: &Peer) -> Option<Response<Body>> {
    let raw = peer.stopped().filter(|_| request.method.as_str() == REJECTED);
    raw.map(|stopped| stopped.rejection)
        .or_else(|| guard::check(request, &state.config.limits.bounds()).err())
        .or_else(|| state.pseudonym.is_in(&request.headers).then(|| loop_rejection(state, peer)))
        .map(|rejection| rejection_response(&rejection, peer.address))
}

/// The rejection of a request that this instance has sent, to itself or through other proxies.
fn loop_rejection(state: &AppState, peer: &Peer) -> Rejection {
    let listener = peer.listen_address.map_or_else(String::new, |address| format!(", on {address}"));
    let url = match &*state.backends {
        [backend] => format!(" ({backend})"),
        _ => String::new(),
    };
    Rejection::new(
        RejectReason::Loop,
        format!(
            "Via shows that this request has come back to the bridge that sent it{listener}: set backend.url{url} to the \
             backend itself."
        ),
    )
}

/// Refuses a request for a sync that a page of another site may have sent, with the key of the bridge or against
/// `allowed_origins`.
pub(super) fn check_origin(context: &RequestContext, headers: &HeaderMap) -> OrResponse<()> {
    let (config, allowed) = (context.backend.config(), &*context.state.config.allowed_origins);
    if config.api_key.is_none() && allowed.is_empty() {
        return Ok(());
    }
    let refused = |why: &str| Err(Box::new(respond::cross_site(why)));
    let host = context.forwarded.host();
    if csrf::is_cross_site(headers, host, allowed) {
        // `null` cannot be allowed: every sandboxed page has it.
        let origin = headers.get(ORIGIN).map(text).filter(|origin| origin.parse::<BackendUrl>().is_ok());
        let origin = origin.unwrap_or_else(|| "its origin".to_owned());
        return refused(&format!(
            "Sec-Fetch-Site or Origin shows that a page of another site sent this request. If it is a page of NetBox, \
             add {origin} to allowed_origins."
        ));
    }
    // The plugin may know the bridge by any name.
    let host = host.filter(|_| csrf::may_be_browser(headers));
    let foreign = host.filter(|host| !csrf::is_own_host(host, &config.hosts, allowed));
    let Some(foreign) = foreign else { return Ok(()) };
    let (foreign, scheme) = (plain(foreign, MAX_NAMED), context.forwarded.scheme());
    refused(&format!(
        "{foreign} is not known as a name of this bridge, and a page of another site may use it to reach the bridge. If \
         it is one, add {scheme}://{foreign} to allowed_origins."
    ))
}

pub(crate) fn rejection_response(rejection: &Rejection, client: IpAddr) -> Response<Body> {
    telemetry::RequestRejected { reason: rejection.reason, detail: &rejection.detail, client }.emit();
    let status = StatusCode::from_u16(rejection.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            respond::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        }
        StatusCode::LOOP_DETECTED => {
            respond::error(status, ErrorCode::LoopDetected, LOOP_DETECTED, &rejection.detail)
        }
        status => {
            respond::error(status, ErrorCode::InvalidRequest, "This request is refused.", &rejection.detail)
        }
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The response to a client whose `method` request for `path` failed at the backend.
pub(super) fn error_response(
    context: &RequestContext,
    method: &Method,
    path: &str,
    error: &ForwardError,
) -> Response<Body> {
    let retry_after = context.backend.limits().retry_after.as_secs();
    let why = error.to_string();
    let refusal = match error {
        ForwardError::Upload(error) => return upload_error_response(context.forwarded.client, *error),
        ForwardError::Unreachable(_) => Refusal::unreachable(&why, retry_after),
        _ if method.is_safe() => Refusal::no_answer(&why, retry_after),
        ForwardError::TimedOut(_) => Refusal::timed_out(&why),
        ForwardError::Broken { .. } => Refusal::broken(&why),
    };
    *refusal_response(path, &refusal)
}

/// Checks the length of a request body of `client`, if it is known, against the limit of `backend`.
pub(super) fn check_length(backend: &Backend, body: &impl http_body::Body, client: IpAddr) -> OrResponse<()> {
    let most = backend.limits().body_bytes;
    match body.size_hint().exact() {
        Some(bytes) if bytes > most as u64 => {
            Err(upload_error_response(client, UploadError::TooLarge(most)).into())
        }
        _ => Ok(()),
    }
}

/// The response to `client` whose request body failed.
pub(super) fn upload_error_response(client: IpAddr, error: UploadError) -> Response<Body> {
    let reason = match error {
        UploadError::Slow(_) | UploadError::BelowRate(_) => RejectReason::SlowBody,
        UploadError::TooLarge(_) => RejectReason::BodyTooLarge,
        UploadError::Aborted => RejectReason::BodyBroken,
    };
    let rejection = Rejection::new(reason, format!("The request body could not be read: {error}."));
    rejection_response(&rejection, client)
}
