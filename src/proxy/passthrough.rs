//! Forwards every request that the bridge does not handle itself, with the response unchanged.

use bytes::Bytes;
use futures::FutureExt;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;

use super::coalesce::{self, RequestInfo};
use super::credentials::BodyCapture;
use super::errors::{OrResponse, check_length, error_response};
use super::headers::{inbound, outbound};
use super::quota::{acquire_request, hold_until_sent};
use super::request::RequestContext;
use crate::respond::Body;

/// Forwards a request, and its response.
pub(super) async fn answer<B>(context: &RequestContext, parts: Parts, body: B) -> OrResponse<Response<Body>>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    let backend = &context.backend;
    let _trial = coalesce::admit(context, &parts).await?;
    if coalesce::is_shareable(&parts) && body.is_end_stream() {
        let coalesced = coalesce::coalesced(context, &parts).boxed().await;
        let failed = |error| error_response(context, &parts.method, parts.uri.path(), &error);
        if let Some(response) = coalesced.map_err(failed)? {
            return Ok(response);
        }
    }
    let slot = acquire_request(context)?;
    let request_info = RequestInfo::new(context, &parts);
    let pushed = BodyCapture::new(&parts.headers);
    let capture = pushed.clone();
    let body = body.inspect_frame(move |frame| {
        if let Some(capture) = &capture {
            capture.note(frame);
        }
    });
    let mut request = Request::from_parts(parts, body);
    // A safe request may be retried, so the response can ask for a later retry (R16).
    let method = request.method().clone();
    check_length(backend, request.body(), context.forwarded.client)?;
    let version = request.version();
    outbound(request.headers_mut(), version, &context.state.pseudonym);
    context.informational.pass(&mut request);
    let response = backend.forward(request).await;
    let mut response =
        response.map_err(|error| error_response(context, &method, &request_info.path, &error))?;
    if let Some(pushed) = pushed.filter(|_| response.status().is_success()) {
        context.proxy.app.registry.secrets.remember(pushed.secrets());
    }
    inbound(response.headers_mut());
    Ok(hold_until_sent(request_info.learn_from(context, response).await, slot))
}
