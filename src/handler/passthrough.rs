//! Everything that is not a sync stream: the backend's own answer, unchanged.

use http::header::{AUTHORIZATION, UPGRADE, VIA};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Bridge, key_of};
use crate::backend::{API_KEY, ForwardError};
use crate::core::headers::strip_hop_by_hop;
use crate::core::refusal::Refusal;
use crate::respond::{self, Body, BoxError};

const VIA_US: HeaderValue = HeaderValue::from_static("1.1 proxbox-bridge");

/// Passes a request on, and the answer back.
pub async fn answer(bridge: &Bridge, mut request: Request<Incoming>) -> Response<Body> {
    let wants_socket = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if wants_socket {
        return respond::said(
            StatusCode::NOT_IMPLEMENTED,
            "WebSockets are not passed on.",
            "Ask the backend itself for its WebSocket paths.",
        );
    }
    // A question that may be asked twice may also be asked later (R16).
    let is_safe = request.method().is_safe();
    let retry_after = bridge.config.limits.retry_after.as_secs();
    if let Some(value) = key_of(request.headers()).and_then(|key| HeaderValue::from_str(key.expose()).ok()) {
        // Plugins up to 0.0.10 send it in a form that no backend has ever read.
        if request.headers_mut().insert(API_KEY, value).is_none() {
            request.headers_mut().remove(AUTHORIZATION);
        }
    }
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().append(VIA, VIA_US);
    match bridge.backend.forward(request).await {
        Ok(mut response) => {
            strip_hop_by_hop(response.headers_mut());
            response.headers_mut().append(VIA, VIA_US);
            response.map(|body| body.map_err(|error| -> BoxError { error.into() }).boxed_unsync())
        }
        Err(ForwardError::Unreachable(error)) => {
            respond::refused(&Refusal::unreachable(&error.to_string(), retry_after))
        }
        Err(error) if is_safe => respond::refused(&Refusal::no_answer(&error.to_string(), retry_after)),
        Err(error @ ForwardError::Overdue(_)) => respond::said(
            StatusCode::GATEWAY_TIMEOUT,
            "The ProxBox backend did not answer.",
            &error.to_string(),
        ),
        Err(error) => respond::said(
            StatusCode::BAD_GATEWAY,
            "The ProxBox backend broke the connection.",
            &error.to_string(),
        ),
    }
}
