//! Everything that is not the bridge's own: the backend's answer, unchanged.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Body as _;

use super::coalesce::{self, Asked};
use super::credentials::Observed;
use super::quota::{holding, request_slot};
use super::request::Visit;
use super::router::rejected;
use crate::backend::{API_KEY, ForwardError, UploadError};
use crate::core::domain::refusal::Refusal;
use crate::core::http::guard::{Reason, Rejection};
use crate::core::http::headers::{VIA_HTTP_1, strip_hop_by_hop, takes_trailers};
use crate::proxy::Proxy;
use crate::proxy::credentials::key_of;
use crate::respond::{self, Body};
use crate::telemetry;

const VIA_HTTP_1_0: HeaderValue = HeaderValue::from_static("1.0 proxbox-bridge");
const VIA_HTTP_2: HeaderValue = HeaderValue::from_static("2.0 proxbox-bridge");

/// Passes a request on, and the answer back.
pub(super) async fn answer<B>(proxy: &Proxy, visit: &Visit, parts: Parts, body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let backend = &visit.backend;
    let _trial = match coalesce::admit(proxy, visit, &parts).await {
        Ok(trial) => trial,
        Err(held_back) => return *held_back,
    };
    if coalesce::is_cheap(&parts) && body.is_end_stream() {
        match coalesce::shared(proxy, visit, &parts).await {
            Ok(Some(response)) => return response,
            Ok(None) => {}
            Err(error) => return failed(visit, parts.uri.path(), true, &error),
        }
    }
    let slot = match request_slot(proxy, visit) {
        Ok(slot) => slot,
        Err(limit) => return respond::over(limit),
    };
    let asked = Asked::of(visit, &parts);
    let (body, pushed) = Observed::new(body, &parts.headers);
    let mut request = Request::from_parts(parts, body);
    // A question that may be asked twice may also be asked later (R16).
    let is_safe = request.method().is_safe();
    let most = backend.limits().body_bytes;
    if request.body().size_hint().exact().is_some_and(|bytes| bytes > most as u64) {
        return upload_failed(visit.forwarded.client, UploadError::TooLarge(most));
    }
    let version = request.version();
    outbound(request.headers_mut(), version);
    visit.interim.pass(&mut request);
    match backend.forward(request).await {
        Ok(mut response) => {
            if let Some(pushed) = pushed.filter(|_| response.status().is_success()) {
                proxy.app.registry.secrets.remember(pushed.secrets());
            }
            inbound(response.headers_mut());
            holding(asked.heed(proxy, visit, response).await, slot)
        }
        Err(error) => failed(visit, asked.path(), is_safe, &error),
    }
}

/// What the backend is sent of the headers of a request, which came in `version`.
pub(super) fn outbound(headers: &mut HeaderMap, version: Version) {
    if let Some(value) = key_of(headers).and_then(|key| HeaderValue::from_str(key.expose()).ok()) {
        // Plugins up to 0.0.10 send it in a form that no backend has ever read.
        if headers.insert(API_KEY, value).is_none() {
            headers.remove(AUTHORIZATION);
        }
    }
    hop_by_hop(headers, version);
}

/// Replaces what `headers`, which came in `version`, say of the connection to the client by what is true of the next one.
pub(super) fn hop_by_hop(headers: &mut HeaderMap, version: Version) {
    // Of all that `TE` may say, this alone is true of the bridge too.
    let takes_trailers = takes_trailers(headers, version);
    strip_hop_by_hop(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.append(
        VIA,
        match version {
            Version::HTTP_2 => VIA_HTTP_2,
            Version::HTTP_10 => VIA_HTTP_1_0,
            _ => VIA_HTTP_1,
        },
    );
}

/// Takes out of `headers` what announces a body, for a request that goes on without one: what is announced and
/// does not come is made up of the next request.
pub(super) fn without_body(headers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, TRAILER, EXPECT] {
        headers.remove(name);
    }
}

/// What the client is sent of the headers of an answer.
pub(super) fn inbound(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.append(VIA, VIA_HTTP_1);
}

/// The answer to a client whose request for `path` was not answered by its backend.
pub(super) fn failed(visit: &Visit, path: &str, is_safe: bool, error: &ForwardError) -> Response<Body> {
    let retry_after = visit.backend.limits().retry_after.as_secs();
    let why = error.to_string();
    let refusal = match error {
        ForwardError::Upload(error) => return upload_failed(visit.forwarded.client, *error),
        ForwardError::Unreachable(_) => Refusal::unreachable(&why, retry_after),
        _ if is_safe => Refusal::no_answer(&why, retry_after),
        ForwardError::Overdue(_) => Refusal::overdue(&why),
        ForwardError::Broken(_) => Refusal::broken(&why),
    };
    telemetry::Refused { path, refusal: &refusal }.emit();
    respond::refused(&refusal)
}

/// The answer to `client` whose body was not taken.
pub(super) fn upload_failed(client: IpAddr, error: UploadError) -> Response<Body> {
    let reason = match error {
        UploadError::Slow(_) | UploadError::Dripping(_) => Reason::SlowBody,
        UploadError::TooLarge(_) => Reason::BodyTooLarge,
        UploadError::Aborted => Reason::BodyBroken,
    };
    let rejection = Rejection::body(reason, format!("The body of the request was not taken: {error}."));
    rejected(&rejection, client)
}
