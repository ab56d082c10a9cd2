//! The processing that every client request and every response passes through.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::Instrument;
use tracing::field::Empty;

use super::Proxy;
use super::cors::{self, Page};
use super::errors::{OrResponse, merge, rejection, rejection_response};
use super::forwarded::Forwarded;
use super::headers::{as_http_1, decoded_path};
use super::request::{Peer, RequestContext, StoppedConnection};
use super::request_id::RequestTrace;
use super::{compat, credentials, passthrough, streams, tunnel, websocket};
use crate::core::domain::kind::SyncEndpoint;
use crate::core::http::guard;
use crate::core::http::headers::{host, is_websocket, list};
use crate::respond::{self, Body};
use crate::telemetry::{self, AuditAction, Listener, Route};

impl Proxy {
    /// Answers a client request.
    pub async fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let (parts, body) = request.into_parts();
        exchange(parts, peer, Route::Nowhere, |mut parts| async {
            let context = match self.request_context(&mut parts, peer) {
                Ok(context) => context,
                Err(rejected) => return (Route::Nowhere, *rejected),
            };
            let mut page = Page::from_request(&context, &parts);
            let is_stream = parts.method == Method::GET && is_sync_stream(&parts.uri);
            if let Some(page) = page.as_mut().filter(|_| is_stream) {
                // Old backends answer nothing during a sync.
                page.fetch_headers().boxed().await;
            }
            let registration = key_registration(&context, &parts);
            let (route, mut response) = serve(context, parts, body).await;
            if let Some(registration) = registration {
                registration(response.status());
            }
            if let Some(page) = page {
                page.complete(&mut response).boxed().await;
            }
            (route, response)
        })
        .await
    }

    /// Checks a request, and determines its backend and its origin.
    fn request_context(self: &Arc<Self>, parts: &mut Parts, peer: &Peer) -> OrResponse<RequestContext> {
        let state = self.app.state();
        if let Some(rejected) = rejection(&state, parts, peer) {
            return Err(Box::new(rejected));
        }
        as_http_1(parts);
        let host = host(&parts.headers);
        let Some(backend) = state.backend(peer.listener, host).cloned() else {
            let detail =
                "Use one of the names in backend.hosts, or add this one to the backend that is meant.";
            let message = "No backend has this name.";
            return Err(respond::message(StatusCode::MISDIRECTED_REQUEST, message, detail).into());
        };
        let trusted = &state.config.trusted_proxies;
        let forwarded = Forwarded::from_request(peer.address, &peer.scheme, host, &parts.headers, trusted);
        forwarded.apply(&mut parts.headers);
        // HTTP/1.0 permits a missing `Host`, and the forwarded request is HTTP/1.1.
        if !parts.headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(&backend.url().authority())
        {
            parts.headers.insert(HOST, host);
        }
        Ok(RequestContext {
            proxy: Arc::clone(self),
            state,
            backend,
            forwarded,
            informational: peer.informational.clone(),
            stall: peer.stall.clone(),
        })
    }
}

async fn serve(context: RequestContext, mut parts: Parts, body: Incoming) -> (Route, Response<Body>) {
    if cors::is_preflight(&parts) {
        return (Route::Passthrough, merge(passthrough::answer(&context, parts, body).await));
    }
    let path = decoded_path(&parts.uri).into_owned();
    let has_body = !body.is_end_stream() || guard::announces_body(&parts);
    let no_body = || rejection_response(&guard::body_not_allowed(), context.forwarded.client);
    let aliased = || compat::alias_endpoint(&context, &path);
    if let Some(endpoint) = endpoint_at(&path).or_else(aliased) {
        let response = match has_body {
            true => no_body(),
            false => merge(streams::answer(&context, endpoint, &parts).boxed().await),
        };
        return (Route::Stream, response);
    }
    if wants_websocket(&parts) {
        // A body could not be distinguished from the first frames on the socket.
        let route = if path == websocket::PATH { Route::Socket } else { Route::Tunnel };
        let response = match route {
            _ if has_body => no_body(),
            Route::Socket => merge(websocket::answer(context, parts).boxed().await),
            _ => merge(tunnel(&context, Request::from_parts(parts, body), &path).boxed().await),
        };
        return (route, response);
    }
    if let Err(refused) = compat::scope(&context, &mut parts, &path).await {
        return (Route::Shim, *refused);
    }
    match compat::answer(&context, parts, &path, body).await {
        Ok(response) => (Route::Shim, response),
        Err((parts, body)) => (Route::Passthrough, merge(passthrough::answer(&context, parts, body).await)),
    }
}

/// Answers a request for a tunnel, which may start a sync.
async fn tunnel(
    context: &RequestContext,
    request: Request<Incoming>,
    path: &str,
) -> OrResponse<Response<Body>> {
    compat::check_restart(context, path).await?;
    let (mut parts, body) = request.into_parts();
    compat::scope(context, &mut parts, path).await?;
    tunnel::answer(context, Request::from_parts(parts, body)).await
}

/// If the request registers an API key on its backend: writes the line of the audit log for the status of the answer.
fn key_registration(context: &RequestContext, parts: &Parts) -> Option<impl FnOnce(StatusCode) + use<>> {
    let is_registration = parts.method == Method::POST && decoded_path(&parts.uri) == credentials::REGISTER;
    let (backend, client) = (Arc::clone(&context.backend), context.forwarded.client);
    let user = streams::actor(&parts.headers);
    is_registration.then_some(move |status: StatusCode| {
        let action = AuditAction::RegisterKey { backend: &backend.config().name, status: status.as_u16() };
        telemetry::Audited { user: user.as_deref(), client: Some(client), action }.emit();
    })
}

/// Answers the request of `parts` with `serve`, in a span with its ids. The ids are forwarded with it and set in its
/// response. The request is logged without the secrets in its head, and counted in the metrics: under `refused` if
/// its body is not valid HTTP.
pub(crate) async fn exchange<F>(
    mut parts: Parts,
    peer: &Peer,
    refused: Route,
    serve: impl FnOnce(Parts) -> F,
) -> Response<Body>
where
    F: Future<Output = (Route, Response<Body>)>,
{
    let began = Instant::now();
    let listener = match refused {
        Route::Admin => Listener::Admin,
        Route::Netbox => Listener::Netbox,
        _ => Listener::Clients,
    };
    let _in_flight = telemetry::RequestReceived { listener }.emit();
    let trace = RequestTrace::from_headers(&mut parts.headers);
    let span = tracing::info_span!("request", request = trace.request, trace = trace.trace, token = Empty);
    telemetry::log::redact_span(&span, &credentials::redactor(&parts));
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    async {
        let (mut route, mut response) = serve(parts).await;
        if let Some(StoppedConnection { rejection, in_body: Some(request) }) = peer.stopped()
            && request == peer.request
        {
            (route, response) = (refused, rejection_response(&rejection, peer.address));
        }
        trace.apply(route, response.headers_mut());
        telemetry::RequestAnswered {
            route,
            method: method.as_str(),
            path: &path,
            status: response.status(),
            client: peer.address,
            job: streams::job_header(&response).filter(|_| matches!(route, Route::Stream | Route::Admin)),
            duration: began.elapsed(),
        }
        .emit();
        response
    }
    .instrument(span)
    .await
}

/// The stream at `path`. Backends redirect a path with a trailing slash to the one without, and a stream is never
/// redirected (R12).
fn endpoint_at(path: &str) -> Option<SyncEndpoint> {
    SyncEndpoint::from_path(path).or_else(|| SyncEndpoint::from_path(path.strip_suffix('/')?))
}

/// Returns whether a GET of `uri` is answered with a sync stream, which no `Upgrade` changes.
pub fn is_sync_stream(uri: &Uri) -> bool {
    let path = decoded_path(uri);
    endpoint_at(&path).is_some() || compat::is_alias(&path)
}

/// Returns whether the request is for a WebSocket, which only a GET can (RFC 6455, section 4.1). An `Upgrade` that
/// `Connection` does not name is ignored (RFC 9110, section 7.8), and a proxy in front does not expect one.
fn wants_websocket(request: &Parts) -> bool {
    let mut options = list(&request.headers, &CONNECTION);
    request.method == Method::GET
        && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && is_websocket(&request.headers)
}
