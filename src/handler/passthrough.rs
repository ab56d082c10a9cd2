//! Everything that is not a sync stream: the backend's own answer, unchanged.

use http::header::VIA;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Bridge;
use crate::backend::ForwardError;
use crate::core::headers::strip_hop_by_hop;
use crate::core::refusal::Refusal;
use crate::respond::{self, Body, BoxError};

const VIA_US: HeaderValue = HeaderValue::from_static("1.1 proxbox-bridge");

/// Passes a request on, and the answer back.
pub async fn answer(bridge: &Bridge, mut request: Request<Incoming>) -> Response<Body> {
    if request.headers().contains_key(header::UPGRADE) {
        return respond::said(
            StatusCode::NOT_IMPLEMENTED,
            "Upgrades are not passed on.",
            "Ask the backend itself for WebSocket paths.",
        );
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
            let retry_after = bridge.config.limits.retry_after.as_secs();
            respond::refused(&Refusal::unreachable(&error.to_string(), retry_after))
        }
        Err(ForwardError::Broken(error)) => respond::said(
            StatusCode::BAD_GATEWAY,
            "The ProxBox backend broke the connection.",
            &format!("The connection broke before the backend answered ({error})."),
        ),
        Err(ForwardError::Overdue(limit)) => respond::said(
            StatusCode::GATEWAY_TIMEOUT,
            "The ProxBox backend did not answer.",
            &format!("It did not begin to answer within {limit} (limits.response_head)."),
        ),
    }
}
