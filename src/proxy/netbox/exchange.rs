//! A request of a backend to NetBox, and the changes that the rules make to it and to its response.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, response};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::Value;

use crate::backend::{Backend, ConnectError, ForwardError, ResponseBody, UploadError};
use crate::config::ShimsConfig;
use crate::core::compat::netbox::{
    CUSTOM_FIELDS, NetboxRule, PROXMOX_ENDPOINTS, STATUS, SYNC_PROCESSES, as_bearer, fill_in, flatten,
    lists_all, may_nest, missing, relink, wanted_field, widen,
};
use crate::core::compat::{Shim, ShimAction};
use crate::core::http::guard::{RejectReason, Rejection};
use crate::core::remote::Remote;
use crate::core::secret::SecretJson;
use crate::deadline::timeout;
use crate::proxy::Proxy;
use crate::proxy::compat::{upstream, with_shim_header};
use crate::proxy::errors::{self, OrResponse, merge, rejection_response};
use crate::proxy::headers;
use crate::proxy::request::Peer;
use crate::respond::{self, Body};
use crate::telemetry;

use super::target::BackendToken;

/// The largest request body that is read as a whole, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// One request of a backend to NetBox.
pub(super) struct NetboxRequest<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) shims: &'a ShimsConfig,
    pub(super) backend: &'a Backend,
    pub(super) peer: &'a Peer,
    pub(super) upstream: Arc<Backend>,
    /// The origin of NetBox as the backend sees it: `http://127.0.0.1:8801`.
    pub(super) origin: String,
    /// The backend's token in the request; `None` if the request has another token.
    pub(super) token: Option<BackendToken>,
    /// The rules that have changed the request or its response, each once.
    pub(super) applied: Mutex<Vec<(Shim, ShimAction)>>,
}

impl NetboxRequest<'_> {
    pub(super) async fn answer(&self, parts: Parts, body: Incoming) -> Response<Body> {
        merge(self.apply_rules(parts, body).await)
    }

    async fn apply_rules(&self, parts: Parts, body: Incoming) -> OrResponse<Response<Body>> {
        let path = parts.uri.path().to_owned();
        let is_get = parts.method == Method::GET;
        let reads_endpoints = is_get && path == PROXMOX_ENDPOINTS && self.token.is_some();
        if reads_endpoints && self.applies(Shim::ProxmoxCredentials) {
            return self.proxmox_endpoints(parts, body).await;
        }
        if self.applies(Shim::SyncProcesses)
            && let Some(rest) = path.strip_prefix(SYNC_PROCESSES)
        {
            return self.sync_processes(parts, body, rest).await;
        }
        let writes = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
        if self.applies(Shim::LastUpdated) && writes && path.starts_with(CUSTOM_FIELDS) {
            return self.custom_field(parts, body).await;
        }
        if self.applies(Shim::CustomFields)
            && is_get
            && let Some(field) = wanted_field(&path, parts.uri.query().unwrap_or_default())
        {
            return Ok(self.create_missing_field(&parts, &field).await);
        }
        if may_nest(&path) && self.applies(Shim::NestedObjects) {
            return self.flatten(parts, body).await;
        }
        Ok(self.forward(parts, body).await)
    }

    fn applies(&self, shim: Shim) -> bool {
        self.shims.is_on(shim)
            && NetboxRule::for_shim(shim).is_some_and(|rule| rule.applies_to(self.backend.last_release()))
    }

    /// Rewrites the headers of the request for NetBox.
    pub(super) fn outbound(&self, Parts { headers, version, .. }: &mut Parts) {
        headers::hop_by_hop(headers, *version, &self.proxy.app.state().pseudonym);
        let forwarded: Vec<HeaderName> = headers.keys().filter(|name| is_forwarded(name)).cloned().collect();
        for name in forwarded {
            headers.remove(name);
        }
        if let Ok(host) = HeaderValue::from_str(&self.upstream.url().authority()) {
            headers.insert(HOST, host);
        }
        if self.applies(Shim::NetboxLinks) {
            // The links in the response must be readable.
            headers.insert(ACCEPT_ENCODING, IDENTITY);
        }
        if self.token == Some(BackendToken::Replaced)
            && headers.contains_key(AUTHORIZATION)
            && self.applies(Shim::CurrentToken)
            && let Some(current) = self.proxy.netbox.current_token(self.backend)
        {
            self.note(Shim::CurrentToken, ShimAction::Translated);
            headers.insert(AUTHORIZATION, current);
        }
        if self.applies(Shim::NetboxToken)
            && let Some(bearer) = headers.get(AUTHORIZATION).and_then(as_bearer)
        {
            self.note(Shim::NetboxToken, ShimAction::Translated);
            headers.insert(AUTHORIZATION, bearer);
        }
    }

    /// Records that the rule of `shim` has changed the request or its response.
    fn note(&self, shim: Shim, action: ShimAction) {
        let mut applied = self.applied.lock();
        if !applied.contains(&(shim, action)) {
            applied.push((shim, action));
        }
    }

    /// Records that the rule of `shim` has produced `response`, and marks the response.
    fn noted(&self, shim: Shim, action: ShimAction, response: Response<Body>) -> Response<Body> {
        self.note(shim, action);
        with_shim_header(response, shim)
    }

    /// NetBox's response to a request, in which links lead back to the listener.
    async fn forward<B>(&self, parts: Parts, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let mut request = Request::from_parts(parts, body);
        self.peer.informational.pass(&mut request);
        match self.upstream.forward(request).await {
            Ok(response) => merge(self.inbound(response).await),
            Err(error) => self.upstream_error(&error),
        }
    }

    /// Forwards a request, and reads the whole response of NetBox. A response with another status than `expected` is an
    /// error, unread.
    async fn read<B>(
        &self,
        mut parts: Parts,
        body: B,
        expected: fn(StatusCode) -> bool,
    ) -> OrResponse<(response::Parts, Bytes)>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        parts.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(parts, body).await;
        if !expected(response.status()) {
            return Err(response.into());
        }
        self.read_response(response).await
    }

    async fn inbound(&self, response: Response<ResponseBody>) -> OrResponse<Response<Body>> {
        let mut response = response.map(respond::forwarded);
        headers::inbound(response.headers_mut());
        if !self.applies(Shim::NetboxLinks) {
            return Ok(response);
        }
        let authority = self.upstream.url().authority();
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        if let Some(location) = location.and_then(|location| self.rewritten_location(location, &authority)) {
            response.headers_mut().insert(LOCATION, location);
            response = self.noted(Shim::NetboxLinks, ShimAction::Translated, response);
        }
        let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
        if !response.headers().get(CONTENT_TYPE).is_some_and(is_json) || response.body().is_end_stream() {
            return Ok(response);
        }
        let (head, body) = self.read_response(response).await?;
        Ok(match relink(&body, &authority, &self.origin) {
            Some(relinked) => {
                let response = upstream::rebuild(head, Bytes::from(relinked));
                self.noted(Shim::NetboxLinks, ShimAction::Translated, response)
            }
            None => upstream::rebuild(head, body),
        })
    }

    /// Reads the whole response of NetBox.
    async fn read_response(&self, response: Response<Body>) -> OrResponse<(response::Parts, Bytes)> {
        let limit = self.upstream.limits().response_head;
        let read = upstream::read_response(Remote::Netbox, response, limit).await;
        Ok(read.map_err(|(status, why)| self.no_response(status, &why))?)
    }

    /// The response to a request that NetBox did not answer completely.
    fn no_response(&self, status: StatusCode, why: &str) -> Response<Body> {
        telemetry::NetboxUnreachable { backend: self.backend.url(), error: why }.emit();
        respond::detail(status, why)
    }

    fn rewritten_location(&self, location: &str, authority: &str) -> Option<HeaderValue> {
        let (_, rest) = location.split_once("://")?;
        let path = rest.strip_prefix(authority).filter(|path| path.starts_with('/'))?;
        HeaderValue::from_str(&format!("{}{path}", self.origin)).ok()
    }

    fn upstream_error(&self, error: &ForwardError) -> Response<Body> {
        let url = self.upstream.url();
        let mut status = StatusCode::BAD_GATEWAY;
        let text = match error {
            ForwardError::Upload(error) => {
                return errors::upload_error_response(self.peer.address, *error);
            }
            // The error says what to do.
            ForwardError::Unreachable(error @ ConnectError::Tls { .. }) => {
                format!("NetBox cannot be reached: {error}.")
            }
            ForwardError::Unreachable(error) => format!(
                "NetBox cannot be reached: {error}. Check that NetBox is running and reachable from the bridge; its \
                 address comes from {}.",
                self.url_source()
            ),
            ForwardError::TimedOut(_) => {
                status = StatusCode::GATEWAY_TIMEOUT;
                format!("NetBox did not answer at {url}. {error} See its log.")
            }
            ForwardError::Broken { .. } => format!("NetBox did not answer at {url}. {error} See its log."),
        };
        self.no_response(status, &text)
    }

    /// Where the address of NetBox comes from.
    fn url_source(&self) -> &'static str {
        let is_configured = self.backend.config().netbox.as_ref().is_some_and(|netbox| netbox.url.is_some());
        if is_configured {
            Remote::Netbox.url_key()
        } else {
            "the NetBox endpoint that the plugin has pushed"
        }
    }

    /// The list of Proxmox endpoints, with the secrets that the plugin has pushed.
    async fn proxmox_endpoints(&self, parts: Parts, body: Incoming) -> OrResponse<Response<Body>> {
        let proxmox = &self.backend.proxmox;
        // Read first: an endpoint that is pushed while NetBox answers may be missing from the response.
        let pushed = proxmox.keys();
        if pushed.is_empty() {
            return Ok(self.forward(parts, body).await);
        }
        let lists_all = lists_all(parts.uri.query().unwrap_or_default());
        let (head, body) = self.read(parts, body, |status| status == StatusCode::OK).await?;
        let Ok(mut page) = SecretJson::parse(&body) else {
            return Ok(upstream::rebuild(head, body));
        };
        // Another NetBox may have been pushed in the meantime, and the secrets of its Proxmox endpoints.
        let target = self.proxy.netbox.endpoints.target(self.backend.config());
        if target.as_ref() != Ok(self.upstream.config()) {
            return Ok(upstream::rebuild(head, body));
        }
        if lists_all && let Some(gone) = missing(&page, pushed) {
            proxmox.forget(&gone);
        }
        if !fill_in(&mut page, &|id| proxmox.secrets(id)) {
            return Ok(upstream::rebuild(head, body));
        }
        let response = upstream::rebuild(head, page.to_body());
        Ok(self.noted(Shim::ProxmoxCredentials, ShimAction::Completed, response))
    }

    /// The objects in which 0.0.3 records its syncs: NetBox's own if its plugin has them, or those in memory.
    async fn sync_processes(&self, parts: Parts, body: Incoming, rest: &str) -> OrResponse<Response<Body>> {
        let body = self.read_request(body).await?;
        let response = self.forward(parts.clone(), Full::new(body.clone())).await;
        if response.status() != StatusCode::NOT_FOUND {
            return Ok(response);
        }
        // NetBox answers 404 without checking the token, so the token is checked with another request.
        let allowed = self.forward(lookup_request(&parts, STATUS), Empty::new()).await;
        if !allowed.status().is_success() {
            return Ok(allowed);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = rest.trim_end_matches('/').parse::<u64>().ok();
        let (status, object) =
            self.proxy.netbox.listener(self.backend, |listener| match (&parts.method, id) {
                (&Method::POST, None) => {
                    (StatusCode::CREATED, Some(listener.processes.create(&body, &self.origin)))
                }
                (&Method::GET, None) => (StatusCode::OK, Some(listener.processes.page())),
                (&Method::GET, Some(id)) => (StatusCode::OK, listener.processes.get(id)),
                (&(Method::PATCH | Method::PUT), Some(id)) => {
                    (StatusCode::OK, listener.processes.update(id, &body))
                }
                _ => (StatusCode::NOT_FOUND, None),
            });
        let Some(object) = object else { return Ok(response) };
        let response = respond::json(status, Bytes::from(object.to_string()));
        Ok(self.noted(Shim::SyncProcesses, ShimAction::Emulated, response))
    }

    /// Forwards a request that writes a custom field. The field that some releases narrow keeps its types.
    async fn custom_field(&self, mut parts: Parts, body: Incoming) -> OrResponse<Response<Body>> {
        let body = self.read_request(body).await?;
        let mut written: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_new = parts.uri.path() == CUSTOM_FIELDS;
        let current = match written.get("object_types") {
            // Without the current field, it would lose types.
            Some(_) if !is_new => Some(self.current_field(&parts).await?),
            _ => None,
        };
        if !widen(&mut written, current.as_ref()) {
            return Ok(self.forward(parts, Full::new(body)).await);
        }
        self.note(Shim::LastUpdated, ShimAction::Translated);
        parts.headers.remove(CONTENT_LENGTH);
        let response = self.forward(parts, Full::new(Bytes::from(written.to_string()))).await;
        Ok(with_shim_header(response, Shim::LastUpdated))
    }

    /// NetBox's response with strings in place of the objects that old releases read as strings.
    async fn flatten(&self, parts: Parts, body: Incoming) -> OrResponse<Response<Body>> {
        let path = parts.uri.path().to_owned();
        let (head, body) = self.read(parts, body, |status| status.is_success()).await?;
        let mut answer = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if !flatten(&path, &mut answer) {
            return Ok(upstream::rebuild(head, body));
        }
        let response = upstream::rebuild(head, Bytes::from(answer.to_string()));
        Ok(self.noted(Shim::NestedObjects, ShimAction::Translated, response))
    }

    /// NetBox's response to `parts`, a search for the custom field `field`, which is created if NetBox does not have it.
    async fn create_missing_field(&self, parts: &Parts, field: &Value) -> Response<Body> {
        let target = parts.uri.path_and_query().map_or(CUSTOM_FIELDS, PathAndQuery::as_str);
        let (found, is_missing) = self.look_up_field(parts, target).await;
        if !is_missing {
            return found;
        }
        let mut create = lookup_request(parts, CUSTOM_FIELDS);
        create.method = Method::POST;
        create.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let created = self.forward(create, Full::new(Bytes::from(field.to_string()))).await;
        // NetBox answers 400 if another process has created the field in the meantime.
        if !created.status().is_success() && created.status() != StatusCode::BAD_REQUEST {
            return created;
        }
        let (found, is_missing) = self.look_up_field(parts, target).await;
        if is_missing && !created.status().is_success() {
            return created;
        }
        self.noted(Shim::CustomFields, ShimAction::Emulated, found)
    }

    /// NetBox's response to a GET of `target`, a search for custom fields, and whether nothing was found.
    async fn look_up_field(&self, parts: &Parts, target: &str) -> (Response<Body>, bool) {
        let request = lookup_request(parts, target);
        let (head, body) = match self.read(request, Empty::new(), |_| true).await {
            Ok(read) => read,
            Err(unreadable) => return (*unreadable, false),
        };
        let page: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_missing = head.status == StatusCode::OK && page["count"] == 0;
        (upstream::rebuild(head, body), is_missing)
    }

    /// The current state of the custom field that `parts` is about, if NetBox returns the field.
    async fn current_field(&self, parts: &Parts) -> OrResponse<Value> {
        let request = lookup_request(parts, parts.uri.path());
        let (_, body) = self.read(request, Empty::new(), |status| status == StatusCode::OK).await?;
        let why = "NetBox did not answer with JSON for this custom field.";
        Ok(serde_json::from_slice(&body).map_err(|_| self.no_response(StatusCode::BAD_GATEWAY, why))?)
    }

    /// Reads the whole body of a request.
    async fn read_request(&self, body: Incoming) -> OrResponse<Bytes> {
        let limit = self.backend.limits().client_body;
        let refused = |error| Err(errors::upload_error_response(self.peer.address, error).into());
        match timeout(limit, Limited::new(body, MAX_BODY_BYTES).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let why = format!("A body for this path may have {MAX_BODY_BYTES} bytes at most.");
                let rejection = Rejection::new(RejectReason::BodyTooLarge, why);
                Err(rejection_response(&rejection, self.peer.address).into())
            }
            Ok(Err(_)) => refused(UploadError::Aborted),
            Err(_) => refused(UploadError::Slow(limit)),
        }
    }
}

/// Whether NetBox would build its links from the header `name`, or take the client's address from it. NetBox is a WSGI
/// application, for which `_` in a name is `-`.
fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    ["forwarded", "x-real-ip"].contains(&name.as_str()) || name.starts_with("x-forwarded-")
}

/// A GET of `path` with the headers of `parts`.
fn lookup_request(parts: &Parts, path: &str) -> Parts {
    let mut request = parts.clone();
    request.method = Method::GET;
    headers::without_body(&mut request.headers);
    request.headers.remove(CONTENT_TYPE);
    if let Ok(target) = path.parse::<PathAndQuery>() {
        request.uri = Uri::from(target);
    }
    request
}
