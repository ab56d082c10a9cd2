//! Forwards every request that the bridge does not handle itself, with the response unchanged.

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;

use super::coalesce::{self, RequestInfo};
use super::credentials::ObservedBody;
use super::errors::{error_response, upload_error_response};
use super::headers::{inbound, outbound};
use super::quota::{acquire_request, hold_until_sent};
use super::request::RequestContext;
use crate::backend::UploadError;
use crate::proxy::Proxy;
use crate::respond::{self, Body};

/// Forwards a request, and its response.
pub(super) async fn answer<B>(
    proxy: &Proxy,
    context: &RequestContext,
    parts: Parts,
    body: B,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let backend = &context.backend;
    let _trial = match coalesce::admit(proxy, context, &parts).await {
        Ok(key_attempt) => key_attempt,
        Err(held_back) => return *held_back,
    };
    if coalesce::is_shareable(&parts) && body.is_end_stream() {
        match coalesce::coalesced(proxy, context, &parts).await {
            Ok(Some(response)) => return response,
            Ok(None) => {}
            Err(error) => return error_response(context, &parts.method, parts.uri.path(), &error),
        }
    }
    let slot = match acquire_request(proxy, context) {
        Ok(slot) => slot,
        Err(limit) => return respond::limit_exceeded(limit),
    };
    let request_info = RequestInfo::new(context, &parts);
    let (body, pushed) = ObservedBody::new(body, &parts.headers);
    let mut request = Request::from_parts(parts, body);
    // A safe request may be retried, so the response can ask for a later retry (R16).
    let method = request.method().clone();
    let most = backend.limits().body_bytes;
    if request.body().size_hint().exact().is_some_and(|bytes| bytes > most as u64) {
        return upload_error_response(context.forwarded.client, UploadError::TooLarge(most));
    }
    let version = request.version();
    outbound(request.headers_mut(), version);
    context.informational.pass(&mut request);
    match backend.forward(request).await {
        Ok(mut response) => {
            if let Some(pushed) = pushed.filter(|_| response.status().is_success()) {
                proxy.app.registry.secrets.remember(pushed.secrets());
            }
            inbound(response.headers_mut());
            hold_until_sent(request_info.learn_from(proxy, context, response).await, slot)
        }
        Err(error) => error_response(context, &method, request_info.path(), &error),
    }
}
