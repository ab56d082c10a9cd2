//! Coalesces identical requests, and holds back requests that the backend would refuse.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use sha2::{Digest, Sha256};

use super::errors::{OrResponse, refusal_response};
use super::headers::{decoded_path, inbound, outbound, without_body};
use super::quota::acquire_request;
use super::request::RequestContext;
use super::tunnel::OnFirstFrame;
use crate::backend::{
    API_KEY, AuthFailure, CacheKey, CachedResponse, ForwardError, KEY_STATUS, KeyAttempt, UNSEEN_KEY,
};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::refusal::Refusal;
use crate::core::http::limit::Limit;
use crate::core::remote::Remote;
use crate::proxy::credentials::{KEYS, REGISTER, request_key};
use crate::respond::{self, Body, BoxError};

/// The paths of cheap requests that many clients repeat.
const SHARED_PATHS: [&str; 3] = ["/", "/version", "/health"];
/// The largest response that is shared, in bytes.
pub(super) const MAX_SHARED_BYTES: usize = 256 * 1024;
/// The paths that backends serve without a key, so that a wrong key is not counted there.
const PUBLIC_PATHS: [&str; 7] = ["/", "/docs", "/redoc", "/openapi.json", "/health", REGISTER, KEY_STATUS];
const PUBLIC_PREFIX: &str = "/static/";
/// The WebSockets of backends that take the key in the first frame.
const KEY_IN_FRAME_PATHS: [&str; 2] = ["/", "/ws/virtual-machines"];
/// The largest refusal that is read, in bytes.
const MAX_REFUSAL_BYTES: u64 = 64 * 1024;

/// Request headers with which a response is not shareable.
pub(super) const PERSONAL_HEADERS: [HeaderName; 7] = [
    header::COOKIE,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];
/// Other request headers that a response may depend on.
const KEY_HEADERS: [HeaderName; 7] = [
    API_KEY,
    header::AUTHORIZATION,
    header::HOST,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ORIGIN,
];

/// Returns whether the response to this request can be shared.
pub(super) fn is_shareable(parts: &Parts) -> bool {
    parts.method == Method::GET
        && SHARED_PATHS.contains(&&*decoded_path(&parts.uri))
        && !PERSONAL_HEADERS.iter().any(|name| parts.headers.contains_key(name))
}

/// Returns whether a response with these headers is for its client only.
fn is_personal(headers: &HeaderMap) -> bool {
    let is_private = |control: &HeaderValue| {
        control.to_str().is_ok_and(|control| control.contains("private") || control.contains("no-store"))
    };
    headers.contains_key(header::SET_COOKIE) || headers.get_all(header::CACHE_CONTROL).iter().any(is_private)
}

/// Admits a request to the backend, unless it is held back. The attempt is held until the backend has answered its key.
pub(super) async fn admit(context: &RequestContext, parts: &Parts) -> OrResponse<Option<KeyAttempt>> {
    if is_public(&decoded_path(&parts.uri)) {
        return Ok(None);
    }
    admit_hash(context, parts, request_key(&parts.headers).map(|key| context.key_hash(&key))).await
}

/// Returns whether the WebSocket at `uri` takes the key in the client's first frame, where the bridge does not see
/// it.
pub(super) fn has_key_in_frame(uri: &Uri) -> bool {
    KEY_IN_FRAME_PATHS.contains(&&*decoded_path(uri))
}

/// Like [`admit`], for a WebSocket that takes the key in the first frame.
pub(super) async fn admit_unseen(context: &RequestContext, parts: &Parts) -> OrResponse<Option<KeyAttempt>> {
    admit_hash(context, parts, UNSEEN_KEY).await
}

async fn admit_hash(
    context: &RequestContext,
    parts: &Parts,
    hash: Option<[u8; 32]>,
) -> OrResponse<Option<KeyAttempt>> {
    let admitted = context.backend.admit(context.forwarded.client, hash).await;
    admitted.map_err(|refusal| refusal_response(parts.uri.path(), &refusal))
}

/// Checks in the backend's first frame on such a WebSocket whether the key was refused. The attempt lasts until then.
pub(super) fn check_first_frame(context: &RequestContext, key_attempt: Option<KeyAttempt>) -> OnFirstFrame {
    let (backend, client) = (Arc::clone(&context.backend), context.forwarded.client);
    Box::new(move |close| {
        let refusal = close.map(|(code, reason)| Refusal::from_close(code, &reason));
        if let Some(refusal) = refusal.filter(|refusal| refusal.status == 401) {
            backend.note_unseen_key_refusal(client, &refusal.text());
        }
        drop(key_attempt);
    })
}

/// Returns the backend's response to a shareable request, possibly from another client's request. It counts as a
/// request in flight while it is pending. `None` if the response cannot be shared: the client needs a request of its
/// own.
pub(super) async fn coalesced(
    context: &RequestContext,
    parts: &Parts,
) -> Result<Option<Response<Body>>, ForwardError> {
    let generation = context.backend.gate.generation();
    let fetch = || fetch(context, parts);
    let answer = match cached_or_fetched(context, cache_key(parts), fetch).await {
        Ok(answer) => answer?,
        Err(limit) => return Ok(Some(respond::limit_exceeded(limit))),
    };
    Ok(answer.map(|answer| {
        let (head, body) = answer.into_parts();
        if !is_public(&decoded_path(&parts.uri)) {
            let hash = request_key(&parts.headers).map(|key| context.key_hash(&key));
            note_answer(context, hash, generation, (head.status, &head.headers, &body));
        }
        let has_length = head.headers.contains_key(header::CONTENT_LENGTH);
        Response::from_parts(head, if has_length { respond::full(body) } else { respond::chunked(body) })
    }))
}

/// The response for `key` from the cache, or by `fetch`, which counts as a request in flight.
pub(super) async fn cached_or_fetched<F>(
    context: &RequestContext,
    key: CacheKey,
    fetch: impl FnOnce() -> F,
) -> Result<Result<Option<CachedResponse>, ForwardError>, Limit>
where
    F: Future<Output = Result<Option<CachedResponse>, ForwardError>> + Send + 'static,
{
    let (responses, keep) = (&context.backend.gate.responses, context.backend.limits().coalesce);
    if let Some(cached) = responses.get(&key, keep) {
        return Ok(Ok(cached));
    }
    let _slot = acquire_request(context)?;
    Ok(responses.get_or_fetch(key, keep, fetch()).await)
}

/// The cache key: the request, and all headers that the response may depend on.
fn cache_key(parts: &Parts) -> CacheKey {
    let mut hash = Sha256::new();
    hash.update(parts.uri.path_and_query().map_or("/", |target| target.as_str()));
    for name in KEY_HEADERS {
        hash.update(b"\n\n");
        for value in parts.headers.get_all(name) {
            hash.update(value.as_bytes());
            hash.update(b"\n");
        }
    }
    hash.finalize().into()
}

/// Fetches the response for `parts` from the backend. `None` if it cannot be shared.
fn fetch(
    context: &RequestContext,
    parts: &Parts,
) -> impl Future<Output = Result<Option<CachedResponse>, ForwardError>> + Send + use<> {
    let mut request = http::Request::new(Empty::new());
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    outbound(request.headers_mut(), parts.version, &context.state.pseudonym);
    without_body(request.headers_mut());
    let backend = Arc::clone(&context.backend);
    async move {
        let (mut head, body) = backend.forward(request).await?.into_parts();
        if is_personal(&head.headers) {
            return Ok(None);
        }
        inbound(&mut head.headers);
        match Limited::new(body, MAX_SHARED_BYTES).collect().await {
            Ok(body) => Ok(Some(Response::from_parts(head, body.to_bytes()))),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(None),
            Err(error) => Err(ForwardError::Broken { remote: Remote::Backend, why: error.to_string() }),
        }
    }
}

/// The parts of a forwarded request that the evaluation of its response needs.
#[derive(Debug)]
pub(super) struct RequestInfo {
    key: Option<ApiKey>,
    method: Method,
    pub(super) path: String,
    generation: u64,
}

impl RequestInfo {
    pub(super) fn new(context: &RequestContext, request: &Parts) -> Self {
        Self {
            key: request_key(&request.headers),
            method: request.method.clone(),
            path: decoded_path(&request.uri).into_owned(),
            generation: context.backend.gate.generation(),
        }
    }

    /// Updates the gate of the backend from its response.
    pub(super) async fn learn_from<B>(self, context: &RequestContext, response: Response<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self { key, method, path, generation } = self;
        let status = response.status();
        if status.is_success() && !method.is_safe() && (path == REGISTER || path.starts_with(KEYS)) {
            context.backend.gate.keys_changed();
        }
        // A backend answers OPTIONS for CORS before it reads the key.
        if status.is_success() && method != Method::OPTIONS && !is_public(&path) {
            context.backend.gate.accept(key.as_ref().map(|key| context.key_hash(key)));
        }
        let is_lesson = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS);
        let is_short = response.body().size_hint().upper().is_some_and(|size| size <= MAX_REFUSAL_BYTES);
        if !is_lesson || !is_short || is_public(&path) {
            return response.map(respond::forwarded);
        }
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else {
            let detail = "Its reason could not be read.";
            return respond::message(status, "The backend refused the request.", detail);
        };
        let body = body.to_bytes();
        let hash = key.map(|key| context.key_hash(&key));
        note_answer(context, hash, generation, (status, &head.headers, &body));
        Response::from_parts(head, respond::full(body))
    }
}

/// Updates the gate from the backend's response to the key with `hash`, whose request began in `generation`. A key is
/// valid if its request succeeded.
pub(super) fn note_answer(
    context: &RequestContext,
    hash: Option<[u8; 32]>,
    generation: u64,
    (status, headers, body): (StatusCode, &HeaderMap, &[u8]),
) {
    let gate = &context.backend.gate;
    if status.is_success() {
        gate.accept(hash);
        return;
    }
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok());
    let text = String::from_utf8_lossy(body);
    let failure = AuthFailure { status: status.as_u16(), retry_after, text: &text, generation };
    context.backend.note_auth_failure(failure, Some(context.forwarded.client), hash);
}

fn is_public(path: &str) -> bool {
    PUBLIC_PATHS.contains(&path) || path.starts_with(PUBLIC_PREFIX)
}
