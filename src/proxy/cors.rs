//! Cross-origin resource sharing (CORS) of the responses that the bridge makes itself.
//!
//! A browser lets a page of another origin read a response only if its `Access-Control-*` headers allow it. Forwarded
//! responses, those to preflights included, have the headers of the backend. A stream of the bridge has no such
//! response: its job may be driven over `/ws`, and is shared by pages of several origins. The bridge therefore sends
//! the backend a `GET /` with the origin of the page, and copies the headers of the answer: frameworks add them to
//! every response, and backends answer that path without a key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::coalesce::{MAX_SHARED_BYTES, cached_or_fetched};
use super::headers::hop_by_hop;
use super::request::RequestContext;
use crate::backend::{CacheKey, ForwardError};
use crate::core::http::headers::list;
use crate::core::remote::Remote;
use crate::deadline::timeout;
use crate::respond::Body;

/// How long the headers of a backend are used before it is asked again.
const TTL: Duration = Duration::from_secs(60);
/// The maximum number of origins whose headers are kept.
const MAX_ORIGINS: usize = 1024;
/// The maximum length of an origin, in bytes. The name of a host has at most 253.
const MAX_ORIGIN: usize = 300;
/// How long a client waits for the headers of the backend.
const MAX_WAIT: Duration = Duration::from_secs(2);
const PREFIX: &str = "access-control-";

/// The headers of a request on which the decision of a backend may depend.
const VARYING: [HeaderName; 3] = [HOST, ORIGIN, COOKIE];

/// The CORS headers of backends, by page origin, and the time of their answer.
#[derive(Debug, Default)]
pub(super) struct CorsCache(Mutex<HashMap<CacheKey, (Instant, HeaderMap)>>);

impl CorsCache {
    fn insert(&self, key: CacheKey, headers: HeaderMap) {
        let mut cache = self.0.lock();
        if cache.len() >= MAX_ORIGINS && !cache.contains_key(&key) {
            let oldest = cache.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                cache.remove(&oldest);
            }
        }
        cache.insert(key, (Instant::now(), headers));
    }
}

/// Whether a request asks, for a page of another origin, whether it may send another request.
pub(super) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The page that sent a request with an `Origin`.
#[derive(Debug)]
pub(super) struct Page {
    context: RequestContext,
    /// Its [`VARYING`] headers.
    request_headers: HeaderMap,
    /// The backend's CORS headers, once they were fetched.
    cors_headers: Option<HeaderMap>,
}

impl Page {
    /// The page that sent the request `parts`. `None` without an `Origin`, or with one that is too long.
    pub(super) fn from_request(context: &RequestContext, parts: &Parts) -> Option<Self> {
        parts.headers.get(ORIGIN).filter(|origin| origin.len() <= MAX_ORIGIN)?;
        let mut request_headers = HeaderMap::new();
        for name in VARYING {
            if let Some(value) = parts.headers.get(&name) {
                request_headers.insert(name, value.clone());
            }
        }
        Some(Self { context: context.clone(), request_headers, cors_headers: None })
    }

    /// Adds the backend's CORS headers to `response`, unless the response is the backend's own or opens a WebSocket,
    /// to which CORS does not apply.
    pub(super) async fn complete(mut self, response: &mut Response<Body>) {
        let is_forwarded = response.headers().contains_key(http::header::VIA);
        if is_forwarded || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        self.fetch_headers().await;
        for (name, value) in self.cors_headers.iter().flatten() {
            response.headers_mut().append(name, value.clone());
        }
    }

    /// Fetches the backend's CORS headers, unless they are known. If it does not answer, its previous answer applies.
    pub(super) async fn fetch_headers(&mut self) {
        if self.cors_headers.is_some() {
            return;
        }
        let cache_key = self.cache_key();
        let known = self.context.proxy.cors.0.lock().get(&cache_key).cloned();
        let headers = match known {
            Some((at, headers)) if at.elapsed() < TTL => headers,
            known => {
                let headers = self.ask_backend(cache_key).await.or(known.map(|(_, headers)| headers));
                if let Some(headers) = &headers {
                    self.context.proxy.cors.insert(cache_key, headers.clone());
                }
                headers.unwrap_or_default()
            }
        };
        self.cors_headers = Some(headers);
    }

    async fn ask_backend(&self, cache_key: CacheKey) -> Option<HeaderMap> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.headers_mut() = self.request_headers.clone();
        hop_by_hop(request.headers_mut(), http::Version::HTTP_11, &self.context.state.pseudonym);
        self.context.forwarded.apply(request.headers_mut());
        let backend = Arc::clone(&self.context.backend);
        let wait = backend.limits().probe.min(MAX_WAIT);
        let fetch = || async move {
            let (head, body) = backend.forward(request).await?.into_parts();
            // The connection can be used again once the body was read.
            let body = Limited::new(body, MAX_SHARED_BYTES).collect().await;
            body.map_err(|error| ForwardError::Broken { remote: Remote::Backend, why: error.to_string() })?;
            Ok(Some(Response::from_parts(head, Bytes::new())))
        };
        let answer = timeout(wait, cached_or_fetched(&self.context, cache_key, fetch)).await;
        let (head, _) = answer.ok()?.ok()?.ok()??.into_parts();
        // Errors of a server, or of a proxy before it, often lack the headers.
        (!head.status.is_server_error()).then(|| cors_headers(&head.headers))
    }

    /// The key of the backend and of everything on which its decision may depend.
    fn cache_key(&self) -> CacheKey {
        let mut hash = Sha256::new_with_prefix("cors\n");
        hash.update(self.context.backend.to_string());
        for name in VARYING {
            hash.update(b"\n");
            hash.update(self.request_headers.get(name).map_or(&b""[..], HeaderValue::as_bytes));
        }
        hash.finalize().into()
    }
}

/// The headers of a response that concern CORS.
fn cors_headers(response: &HeaderMap) -> HeaderMap {
    let mut headers: HeaderMap = response
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(PREFIX))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if list(response, &VARY).any(|name| name.eq_ignore_ascii_case(b"origin")) {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    headers
}
