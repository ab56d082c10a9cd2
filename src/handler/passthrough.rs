//! Everything that is not the bridge's own: the backend's answer, unchanged.

use http::header::{AUTHORIZATION, TE, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::front::Visit;
use super::{Bridge, key_of, shield};
use crate::backend::{API_KEY, Backend, ForwardError, UploadError};
use crate::core::headers::strip_hop_by_hop;
use crate::core::refusal::Refusal;
use crate::respond::{self, Body};

const VIA_US: HeaderValue = HeaderValue::from_static("1.1 proxbox-bridge");

/// Passes a request on, and the answer back.
pub(super) async fn answer(bridge: &Bridge, visit: &Visit, parts: Parts, body: Incoming) -> Response<Body> {
    let backend = &visit.backend;
    if let Some(held_back) = shield::hold_back(bridge, visit, &parts) {
        return held_back;
    }
    if shield::is_cheap(&parts) && body.is_end_stream() {
        match shield::shared(bridge, visit, &parts).await {
            Ok(Some(response)) => return response,
            Ok(None) => {}
            Err(error) => return failed(backend, true, &error),
        }
    }
    let mut request = Request::from_parts(parts, body);
    // A question that may be asked twice may also be asked later (R16).
    let is_safe = request.method().is_safe();
    let most = backend.limits().body_bytes;
    if request.body().size_hint().exact().is_some_and(|bytes| bytes > most as u64) {
        return upload_failed(UploadError::TooLarge(most));
    }
    outbound(request.headers_mut());
    let key = key_of(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match backend.forward(request).await {
        Ok(mut response) => {
            inbound(response.headers_mut());
            shield::heed(bridge, visit, key.as_ref(), (&method, &path), response).await
        }
        Err(error) => failed(backend, is_safe, &error),
    }
}

/// What the backend is sent of the headers of a request.
pub(super) fn outbound(headers: &mut HeaderMap) {
    if let Some(value) = key_of(headers).and_then(|key| HeaderValue::from_str(key.expose()).ok()) {
        // Plugins up to 0.0.10 send it in a form that no backend has ever read.
        if headers.insert(API_KEY, value).is_none() {
            headers.remove(AUTHORIZATION);
        }
    }
    // Of all that `TE` may say, this alone is true of the bridge too.
    let trailers = headers.get_all(TE).iter().any(|te| {
        te.to_str().is_ok_and(|te| te.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    });
    strip_hop_by_hop(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.append(VIA, VIA_US);
}

/// What the client is sent of the headers of an answer.
pub(super) fn inbound(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.append(VIA, VIA_US);
}

/// The answer to a client whose request was not answered by `backend`.
pub(super) fn failed(backend: &Backend, is_safe: bool, error: &ForwardError) -> Response<Body> {
    let retry_after = backend.limits().retry_after.as_secs();
    match error {
        ForwardError::Unreachable(error) => {
            respond::refused(&Refusal::unreachable(&error.to_string(), retry_after))
        }
        ForwardError::Upload(error) => upload_failed(*error),
        error if is_safe => respond::refused(&Refusal::no_answer(&error.to_string(), retry_after)),
        ForwardError::Overdue(_) => respond::said(
            StatusCode::GATEWAY_TIMEOUT,
            "The ProxBox backend did not answer.",
            &error.to_string(),
        ),
        ForwardError::Broken(_) => respond::said(
            StatusCode::BAD_GATEWAY,
            "The ProxBox backend broke the connection.",
            &error.to_string(),
        ),
    }
}

fn upload_failed(error: UploadError) -> Response<Body> {
    let status = match error {
        UploadError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        UploadError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        UploadError::Aborted => StatusCode::BAD_REQUEST,
    };
    respond::said(status, "The body of the request was not taken.", &format!("Of the body: {error}."))
}
