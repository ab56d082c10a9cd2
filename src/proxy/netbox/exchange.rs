//! One request of a backend to NetBox, and what the rules change in it and in its answer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, response};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::backend::{Backend, ConnectError, ForwardError, UploadError};
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
use crate::proxy::errors::{self, rejection_response};
use crate::proxy::headers;
use crate::proxy::request::Peer;
use crate::respond::{self, Body};
use crate::telemetry;

use super::target::BackendToken;
use super::{error_response, locked};

/// The largest body of a request that is read as a whole, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// One request of a backend to NetBox.
pub(super) struct NetboxRequest<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) shims: &'a ShimsConfig,
    pub(super) backend: &'a Backend,
    pub(super) peer: &'a Peer,
    pub(super) upstream: Arc<Backend>,
    /// Where the backend reaches NetBox, as it wrote it: `http://127.0.0.1:8801`.
    pub(super) origin: String,
    /// The backend's token in the request; `None` if the token is of something else.
    pub(super) token: Option<BackendToken>,
    /// The rules that have changed the request or its answer, each once.
    pub(super) applied: Mutex<Vec<(Shim, ShimAction)>>,
}

impl NetboxRequest<'_> {
    pub(super) async fn answer(&self, parts: Parts, body: Incoming) -> Response<Body> {
        let path = parts.uri.path().to_owned();
        let asks_for_endpoints = path == PROXMOX_ENDPOINTS && parts.method == Method::GET;
        if asks_for_endpoints && self.token.is_some() && self.applies(Shim::ProxmoxCredentials) {
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
            && parts.method == Method::GET
            && let Some(field) = wanted_field(&path, parts.uri.query().unwrap_or_default())
        {
            return self.created_field(&parts, &field).await;
        }
        if may_nest(&path) && self.applies(Shim::NestedObjects) {
            return self.flattened(parts, body).await;
        }
        self.forward(parts, body).await
    }

    fn applies(&self, shim: Shim) -> bool {
        self.shims.is_on(shim)
            && NetboxRule::for_shim(shim).is_some_and(|rule| rule.applies_to(self.backend.last_release()))
    }

    /// The headers as NetBox is sent them.
    pub(super) fn outbound(&self, Parts { headers, version, .. }: &mut Parts) {
        headers::hop_by_hop(headers, *version);
        let forwarded: Vec<HeaderName> = headers.keys().filter(|name| is_forwarded(name)).cloned().collect();
        for name in forwarded {
            headers.remove(name);
        }
        if let Ok(host) = HeaderValue::from_str(&self.upstream.url().authority()) {
            headers.insert(HOST, host);
        }
        if self.applies(Shim::NetboxLinks) {
            // The links in the answer are read.
            headers.insert(ACCEPT_ENCODING, IDENTITY);
        }
        if self.token == Some(BackendToken::Replaced)
            && headers.contains_key(AUTHORIZATION)
            && self.applies(Shim::CurrentToken)
            && let Some(current) = self.proxy.netbox.endpoints.current_token(self.backend)
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

    /// The rule of `shim` has changed the request, or its answer.
    fn note(&self, shim: Shim, action: ShimAction) {
        let mut applied = locked(&self.applied);
        if !applied.contains(&(shim, action)) {
            applied.push((shim, action));
        }
    }

    /// NetBox's answer to a request, with its links leading back to the listener.
    async fn forward<B>(&self, parts: Parts, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let mut request = Request::from_parts(parts, body);
        self.peer.informational.pass(&mut request);
        match self.upstream.forward(request).await {
            Ok(response) => self.inbound(response).await,
            Err(error) => self.upstream_error(&error),
        }
    }

    async fn inbound(&self, response: Response<Incoming>) -> Response<Body> {
        let mut response = response.map(respond::forwarded);
        headers::inbound(response.headers_mut());
        if !self.applies(Shim::NetboxLinks) {
            return response;
        }
        let authority = self.upstream.url().authority();
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        if let Some(location) = location.and_then(|location| self.rewritten_location(location, &authority)) {
            response.headers_mut().insert(LOCATION, location);
            response = self.relinked(response);
        }
        let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
        if !response.headers().get(CONTENT_TYPE).is_some_and(is_json) || response.body().is_end_stream() {
            return response;
        }
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        match relink(&body, &authority, &self.origin) {
            Some(relinked) => self.relinked(upstream::rebuild(head, Bytes::from(relinked))),
            None => upstream::rebuild(head, body),
        }
    }

    /// NetBox's answer as a whole.
    async fn whole(&self, response: Response<Body>) -> Result<(response::Parts, Bytes), Response<Body>> {
        let limit = self.upstream.limits().response_head;
        upstream::whole_of(Remote::Netbox, response, limit)
            .await
            .map_err(|(status, why)| self.unread(status, &why))
    }

    /// The answer to a request that NetBox did not answer, or not to the end.
    fn unread(&self, status: StatusCode, why: &str) -> Response<Body> {
        telemetry::NetboxUnreachable { backend: self.backend.url(), error: why }.emit();
        error_response(status, why)
    }

    /// `response`, in which links lead to the listener.
    fn relinked(&self, response: Response<Body>) -> Response<Body> {
        self.note(Shim::NetboxLinks, ShimAction::Translated);
        with_shim_header(response, Shim::NetboxLinks)
    }

    fn rewritten_location(&self, location: &str, authority: &str) -> Option<HeaderValue> {
        let (_, rest) = location.split_once("://")?;
        let path = rest.strip_prefix(authority).filter(|path| path.starts_with('/'))?;
        HeaderValue::from_str(&format!("{}{path}", self.origin)).ok()
    }

    fn upstream_error(&self, error: &ForwardError) -> Response<Body> {
        if let ForwardError::Upload(error) = error {
            return errors::upload_error_response(self.peer.address, *error);
        }
        let url = self.upstream.url();
        let (status, text) = match error {
            // It says itself what to do.
            ForwardError::Unreachable(error @ ConnectError::Tls { .. }) => {
                (StatusCode::BAD_GATEWAY, format!("NetBox cannot be reached: {error}."))
            }
            ForwardError::Unreachable(error) => {
                let source = self.source_of_url();
                let text = format!(
                    "NetBox cannot be reached: {error}. See whether NetBox runs and can be reached from the bridge; the \
                     address is that of {source}."
                );
                (StatusCode::BAD_GATEWAY, text)
            }
            ForwardError::TimedOut(_) => {
                let text = format!("NetBox did not answer at {url}. {error} Its log says what it does.");
                (StatusCode::GATEWAY_TIMEOUT, text)
            }
            _ => (
                StatusCode::BAD_GATEWAY,
                format!("NetBox did not answer at {url}. {error} Its log says why."),
            ),
        };
        self.unread(status, &text)
    }

    /// What says where NetBox is.
    fn source_of_url(&self) -> &'static str {
        let is_configured = self.backend.config().netbox.as_ref().is_some_and(|netbox| netbox.url.is_some());
        if is_configured {
            Remote::Netbox.url_key()
        } else {
            "the NetBox endpoint that the plugin has pushed"
        }
    }

    /// The list of Proxmox endpoints, with the secrets that the plugin has pushed.
    async fn proxmox_endpoints(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let proxmox = &self.backend.proxmox;
        // What is pushed while NetBox answers may not be in its answer.
        let pushed = proxmox.keys();
        if pushed.is_empty() {
            return self.forward(parts, body).await;
        }
        let lists_all = lists_all(parts.uri.query().unwrap_or_default());
        parts.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(parts, body).await;
        if response.status() != StatusCode::OK {
            return response;
        }
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        let Ok(mut page) = SecretJson::parse(&body) else {
            return upstream::rebuild(head, body);
        };
        // Another NetBox was pushed meanwhile, and maybe its Proxmox endpoints.
        let target = self.proxy.netbox.endpoints.target(self.backend.config());
        if target.as_ref() != Ok(self.upstream.config()) {
            return upstream::rebuild(head, body);
        }
        if lists_all && let Some(gone) = missing(&page, pushed) {
            proxmox.forget(&gone);
        }
        if fill_in(&mut page, &|id| proxmox.secrets(id)).is_none() {
            return upstream::rebuild(head, body);
        }
        self.note(Shim::ProxmoxCredentials, ShimAction::Completed);
        with_shim_header(upstream::rebuild(head, page.to_body()), Shim::ProxmoxCredentials)
    }

    /// The objects in which 0.0.3 records its syncs: NetBox's own if its plugin has them, or those in memory.
    async fn sync_processes(&self, parts: Parts, body: Incoming, rest: &str) -> Response<Body> {
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let response = self.forward(parts.clone(), Full::new(body.clone())).await;
        if response.status() != StatusCode::NOT_FOUND {
            return response;
        }
        // NetBox answers 404 whoever asks: whether the token is accepted is another question.
        let allowed = self.forward(lookup_request(&parts, STATUS), Full::new(Bytes::new())).await;
        if !allowed.status().is_success() {
            return allowed;
        }
        let written: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut processes = locked(&self.proxy.netbox.processes);
        let processes = processes.entry(self.backend.url().to_string()).or_default();
        let id = rest.trim_end_matches('/').parse::<u64>().ok();
        let (status, answer) = match (&parts.method, id) {
            (&Method::POST, None) => (StatusCode::CREATED, Some(processes.create(&written, &self.origin))),
            (&Method::GET, None) => (StatusCode::OK, Some(processes.page())),
            (&Method::GET, Some(id)) => (StatusCode::OK, processes.get(id)),
            (&(Method::PATCH | Method::PUT), Some(id)) => (StatusCode::OK, processes.update(id, &written)),
            _ => (StatusCode::NOT_FOUND, None),
        };
        let Some(answer) = answer else { return response };
        self.note(Shim::SyncProcesses, ShimAction::Emulated);
        with_shim_header(respond::json(status, Bytes::from(answer.to_string())), Shim::SyncProcesses)
    }

    /// A custom field is written: the one that some releases narrow keeps its types.
    async fn custom_field(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let Ok(mut written) = serde_json::from_slice::<Value>(&body) else {
            return self.forward(parts, Full::new(body)).await;
        };
        let is_new = parts.uri.path() == CUSTOM_FIELDS;
        let held = match written.get("object_types") {
            Some(_) if !is_new => match self.current_field(&parts).await {
                Ok(held) => Some(held),
                // Written without it, the field would lose types.
                Err(failed) => return failed,
            },
            _ => None,
        };
        if !widen(&mut written, held.as_ref()) {
            return self.forward(parts, Full::new(body)).await;
        }
        self.note(Shim::LastUpdated, ShimAction::Translated);
        parts.headers.remove(CONTENT_LENGTH);
        let response = self.forward(parts, Full::new(Bytes::from(written.to_string()))).await;
        with_shim_header(response, Shim::LastUpdated)
    }

    /// NetBox's answer with texts in place of the objects that old releases read as texts.
    async fn flattened(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let path = parts.uri.path().to_owned();
        parts.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(parts, body).await;
        if !response.status().is_success() {
            return response;
        }
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        let mut answer = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if !flatten(&path, &mut answer) {
            return upstream::rebuild(head, body);
        }
        self.note(Shim::NestedObjects, ShimAction::Translated);
        with_shim_header(upstream::rebuild(head, Bytes::from(answer.to_string())), Shim::NestedObjects)
    }

    /// NetBox's answer to `parts`, which looks for the custom field `field`: it is created if NetBox does not have it.
    async fn created_field(&self, parts: &Parts, field: &Value) -> Response<Body> {
        let target = parts.uri.path_and_query().map_or(CUSTOM_FIELDS, PathAndQuery::as_str);
        let (found, is_missing) = self.look_up_field(parts, target).await;
        if !is_missing {
            return found;
        }
        let mut create = lookup_request(parts, CUSTOM_FIELDS);
        create.method = Method::POST;
        create.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let created = self.forward(create, Full::new(Bytes::from(field.to_string()))).await;
        // Another process may have created it in between, which NetBox answers with 400.
        if !created.status().is_success() && created.status() != StatusCode::BAD_REQUEST {
            return created;
        }
        let (found, is_missing) = self.look_up_field(parts, target).await;
        if is_missing && !created.status().is_success() {
            return created;
        }
        self.note(Shim::CustomFields, ShimAction::Emulated);
        with_shim_header(found, Shim::CustomFields)
    }

    /// NetBox's answer to a GET of `target`, a search for custom fields, and whether it has found none.
    async fn look_up_field(&self, parts: &Parts, target: &str) -> (Response<Body>, bool) {
        let mut request = lookup_request(parts, target);
        request.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(request, Full::new(Bytes::new())).await;
        let (head, body) = match self.whole(response).await {
            Ok(whole) => whole,
            Err(broken) => return (broken, false),
        };
        let page: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_missing = head.status == StatusCode::OK && page["count"] == 0;
        (upstream::rebuild(head, body), is_missing)
    }

    /// The object of `parts` as NetBox has it.
    ///
    /// # Errors
    ///
    /// The answer to the backend where NetBox does not say it.
    async fn current_field(&self, parts: &Parts) -> Result<Value, Response<Body>> {
        let mut question = lookup_request(parts, parts.uri.path());
        question.headers.insert(ACCEPT_ENCODING, IDENTITY);
        let response = self.forward(question, Full::new(Bytes::new())).await;
        if response.status() != StatusCode::OK {
            return Err(response);
        }
        let (_, body) = self.whole(response).await?;
        serde_json::from_slice(&body).map_err(|_| {
            self.unread(StatusCode::BAD_GATEWAY, "NetBox answered what is no JSON about this custom field.")
        })
    }

    /// The body of a request as a whole.
    async fn read(&self, body: Incoming) -> Result<Bytes, Response<Body>> {
        let patience = self.backend.limits().client_body;
        let refused = |error| errors::upload_error_response(self.peer.address, error);
        match timeout(patience, Limited::new(body, MAX_BODY_BYTES).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let why = format!("A body for this path has {MAX_BODY_BYTES} bytes at most.");
                Err(rejection_response(&Rejection::body(RejectReason::BodyTooLarge, why), self.peer.address))
            }
            Ok(Err(_)) => Err(refused(UploadError::Aborted)),
            Err(_) => Err(refused(UploadError::Slow(patience))),
        }
    }
}

/// Whether NetBox would build its links from the header `name`, or find out from it whom a request is from. It is a WSGI
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
