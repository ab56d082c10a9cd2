//! Everything that is not the bridge's own: the backend's answer, unchanged.

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;

use super::coalesce::{self, Asked};
use super::credentials::Observed;
use super::errors::{failed, upload_failed};
use super::headers::{inbound, outbound};
use super::quota::{holding, request_slot};
use super::request::Visit;
use crate::backend::UploadError;
use crate::proxy::Proxy;
use crate::respond::{self, Body};

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
