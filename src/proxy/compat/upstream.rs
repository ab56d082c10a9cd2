//! Requests of the bridge to the backend on behalf of a client, with the client's headers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Response, StatusCode, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use zeroize::Zeroizing;

use crate::core::domain::refusal::compressed;
use crate::core::http::headers::content_encoding;
use crate::core::remote::Remote;
use crate::core::secret::append;
use crate::deadline::timeout;
use crate::proxy::coalesce::PERSONAL_HEADERS;
use crate::proxy::errors::merge;
use crate::proxy::request::RequestContext;
use crate::proxy::{headers, passthrough};
use crate::respond::{self, Body, BoxError};

/// The largest response that is read whole, in bytes: a list of some 50,000 guests.
pub(crate) const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// Sends a GET of `target`, a path with its query, to the backend. See [`send`].
pub(super) async fn get(context: &RequestContext, parts: &Parts, target: &str) -> Response<Body> {
    send(context, parts, Method::GET, target, None).await
}

/// Sends a request to the backend with the headers of the client of `parts`, and `body`, which is JSON. Returns the
/// response.
pub(super) async fn send(
    context: &RequestContext,
    parts: &Parts,
    method: Method,
    target: &str,
    body: Option<Bytes>,
) -> Response<Body> {
    let Ok(uri) = target.parse::<PathAndQuery>() else {
        let detail = format!("The path {target:?} is not valid.");
        return respond::message(StatusCode::BAD_REQUEST, "This request is refused.", &detail);
    };
    let mut parts = parts.clone();
    parts.method = method;
    parts.uri = Uri::from(uri);
    request_identity_encoding(&mut parts);
    headers::without_body(&mut parts.headers);
    if body.is_some() {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    merge(passthrough::answer(context, parts, Full::new(body.unwrap_or_default())).await)
}

/// The path and query of `parts`.
pub(super) fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// The backend's unchanged response to a GET. A compressed 404 is requested again without compression, so that it can
/// be read.
pub(super) async fn forward(context: &RequestContext, parts: &Parts, body: Incoming) -> Response<Body> {
    let response = merge(passthrough::answer(context, parts.clone(), body).await);
    let is_unreadable = content_encoding(response.headers()).is_some();
    if response.status() != StatusCode::NOT_FOUND || !is_unreadable {
        return response;
    }
    get(context, parts, target(parts)).await
}

/// Asks for an uncompressed response, which can be read and changed.
pub(super) fn request_identity_encoding(parts: &mut Parts) {
    for name in &PERSONAL_HEADERS {
        parts.headers.remove(name);
    }
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Reads `body`, if it has at most `limit` bytes. They are zeroed when they are dropped: pushed rows, and rows in
/// responses of old backends, contain secrets.
pub(super) async fn read<B>(mut body: B, limit: usize) -> Result<Bytes, BoxError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    BoxError: From<B::Error>,
{
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(format!("it has more than {limit} bytes").into());
        }
        append(&mut bytes, &data);
    }
    Ok(Bytes::from_owner(bytes))
}

/// Reads the whole response of the backend, or returns the response for the client if it cannot be read.
pub(crate) async fn collect(
    context: &RequestContext,
    response: Response<Body>,
) -> Result<(response::Parts, Bytes), Response<Body>> {
    let limit = context.backend.limits().response_head;
    read_response(Remote::Backend, response, limit).await.map_err(|(status, why)| {
        respond::message(status, "The answer of the backend could not be read.", &why)
    })
}

/// Reads the whole response of `remote`, within the time limit for a response head, `limit`. The error is the status
/// and the reason for the client if it cannot be read.
pub(crate) async fn read_response(
    remote: Remote,
    response: Response<Body>,
    limit: Duration,
) -> Result<(response::Parts, Bytes), (StatusCode, String)> {
    let (head, body) = response.into_parts();
    if let Some(encoding) = content_encoding(&head.headers) {
        return Err((StatusCode::BAD_GATEWAY, compressed(remote, encoding)));
    }
    match timeout(limit, read(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok((head, body)),
        Ok(Err(error)) => {
            Err((StatusCode::BAD_GATEWAY, format!("The answer of {remote} could not be read: {error}.")))
        }
        Err(_) => {
            let limit = humantime::format_duration(limit);
            let why = format!("The answer of {remote} did not end within {limit} (limits.response_head).");
            Err((StatusCode::GATEWAY_TIMEOUT, why))
        }
    }
}

/// Combines `head` with another `body`.
pub(crate) fn rebuild(mut head: response::Parts, body: Bytes) -> Response<Body> {
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, respond::full(body))
}
