//! The admin listener.
//!
//! | path | answer | needs |
//! |---|---|---|
//! | `GET /` | the live page | reading |
//! | `GET /page/…` | its scripts and styles | reading; nothing for styles |
//! | `GET /livez` | 200 while the process can answer | nothing |
//! | `GET /readyz` | 200 if jobs can start, else 503 with the reasons; `?backend` checks the backends, `?fresh=KIND:AGE` the age of the last syncs, too | nothing |
//! | `GET /metrics` | the Prometheus metrics | reading; nothing with `admin_open_metrics` |
//! | `GET /openapi.json` | the OpenAPI document of this listener | reading |
//! | `GET /backends` | the backends, and the channel of each kind there | reading |
//! | `GET /events` | changes of the bridge and of jobs, as a stream | reading |
//! | `GET /jobs` | the jobs, newest first | reading |
//! | `GET /jobs/{id}` | one job, with its log | reading |
//! | `DELETE /jobs/{id}` | cancels the job | the token |
//! | `GET /jobs/{id}/events` | the stream of the job, from its first event | reading |
//! | `GET /jobs/{id}/failed` | the failed objects of the job, as JSON, NDJSON or CSV | reading |
//! | `GET /jobs/{id}/recording` | the recorded exchanges with the backend | reading |
//! | `DELETE /jobs/{id}/cooldown` | ends the cool-down of the job, which frees its place on the backend | the token |
//! | `GET /log` | the log filter | reading |
//! | `PUT /log` | sets the log filter | the token |
//! | `GET /session` | the sign-in page | nothing |
//! | `POST /session` | starts a session; the form has the token | nothing |
//! | `DELETE /session` | removes the session cookie from the browser | nothing |
//! | `POST /clean` | removes expired records, logs and recordings | the token |
//! | `POST /reload` | reloads the configuration | the token |
//! | `POST /sync/…` | starts a sync, or attaches to the running one | the token |
//!
//! HEAD is supported where GET is, except for streams. Reading needs a token, too, an operator's or a read-only one, unless `admin_open_reads` opens it
//! on a loopback address; see `auth`.

mod auth;
mod backends;
mod events;
mod health;
pub(crate) mod jobs;
mod log_filter;
mod netbox_listener;
mod page;
mod stored_jobs;
pub(crate) mod sync;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::Span;

use crate::app::App;
use crate::config::Config;
use crate::core::domain::error_code::ErrorCode;
use crate::core::domain::kind::SyncEndpoint;
use crate::core::http::csrf;
use crate::core::http::guard::{self, RejectReason, Rejection};
use crate::core::http::headers::host;
use crate::ledger::{Cleaning, CleaningResult};
use crate::proxy::forwarded::Forwarded;
use crate::proxy::request::Peer;
use crate::proxy::{Proxy, errors, headers, router, streams};
use crate::respond::{self, Body};
use crate::telemetry::{self, AuditAction, Route};
use auth::{AuthError, Caller, RequiredAccess};
use page::Asset;
pub use stored_jobs::StoredJobs;

/// The OpenAPI 3.1 document of this listener.
const DOCUMENT: &str = include_str!("admin/openapi.json");

/// The resource at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Page,
    Asset(&'static Asset),
    Session,
    Livez,
    Readyz,
    Metrics,
    Document,
    Backends,
    Feed,
    Jobs,
    Job,
    Events,
    Failed,
    Recording,
    Cooldown,
    Log,
    Clean,
    Reload,
    Sync(SyncEndpoint),
}

/// The placeholder for the id of a job in a path.
const ID: &str = "{id}";

const ROUTES: [(&str, Resource); 17] = [
    ("/", Resource::Page),
    ("/session", Resource::Session),
    ("/livez", Resource::Livez),
    ("/readyz", Resource::Readyz),
    ("/metrics", Resource::Metrics),
    ("/openapi.json", Resource::Document),
    ("/backends", Resource::Backends),
    ("/events", Resource::Feed),
    ("/jobs", Resource::Jobs),
    ("/jobs/{id}", Resource::Job),
    ("/jobs/{id}/events", Resource::Events),
    ("/jobs/{id}/failed", Resource::Failed),
    ("/jobs/{id}/recording", Resource::Recording),
    ("/jobs/{id}/cooldown", Resource::Cooldown),
    ("/log", Resource::Log),
    ("/clean", Resource::Clean),
    ("/reload", Resource::Reload),
];

impl Resource {
    /// The resource at `path`, with the id in the path.
    fn from_path(path: &str) -> Option<(Self, &str)> {
        let route = ROUTES.iter().find_map(|(route, resource)| Some((*resource, matched(route, path)?)));
        let part = || Some((Self::Asset(Asset::from_path(path)?), ""));
        route.or_else(part).or_else(|| Some((Self::Sync(SyncEndpoint::from_queue_path(path)?), "")))
    }

    /// The methods that it supports, as the value of `Allow`.
    const fn methods(self) -> &'static str {
        match self {
            Self::Job => "GET, HEAD, DELETE",
            Self::Session => "GET, HEAD, POST, DELETE",
            Self::Log => "GET, HEAD, PUT",
            Self::Events | Self::Feed => "GET",
            Self::Cooldown => "DELETE",
            Self::Clean | Self::Reload | Self::Sync(_) => "POST",
            _ => "GET, HEAD",
        }
    }

    /// The access that `method` requires.
    fn required_access(self, method: &Method, config: &Config) -> RequiredAccess {
        match self {
            // The sign-in page and its styles.
            Self::Session => RequiredAccess::None,
            Self::Asset(part) if part.is_style() => RequiredAccess::None,
            Self::Livez | Self::Readyz => RequiredAccess::None,
            Self::Metrics if config.admin_open_metrics => RequiredAccess::None,
            _ if method.is_safe() => RequiredAccess::Read,
            _ => RequiredAccess::Write,
        }
    }
}

/// The id in `path`, if `path` matches `route`; empty for a route without an id.
fn matched<'a>(route: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = route.split_once(ID) else { return (route == path).then_some("") };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// Every path of this listener, with its methods. `{id}` stands for the id of a job, `{vm}` for that of a virtual
/// machine.
pub fn paths() -> impl Iterator<Item = (String, &'static str)> {
    let queued = SyncEndpoint::queue_paths().map(|path| (path, "POST"));
    let parts = page::ASSETS.iter().map(|part| (part.path.to_owned(), Resource::Asset(part).methods()));
    let routes = ROUTES.iter().map(|(path, resource)| ((*path).to_owned(), resource.methods()));
    routes.chain(parts).chain(queued)
}

/// Answers a request to the admin listener.
pub async fn answer(proxy: &Arc<Proxy>, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
    let (parts, body) = request.into_parts();
    router::exchange(parts, peer, Route::Admin, |parts| async {
        let response = match errors::rejection(&proxy.app.state(), &parts, peer) {
            Some(rejected) => rejected,
            None => route(proxy, parts, body, peer).await,
        };
        (Route::Admin, response)
    })
    .await
}

/// The client of a request that changes something.
struct Requester {
    /// The user that it names, or the name of its token.
    user: Option<String>,
    /// Its address.
    address: IpAddr,
}

impl Requester {
    /// Writes `action` to the audit log.
    fn audit(&self, action: AuditAction<'_>) {
        telemetry::Audited { user: self.user.as_deref(), client: Some(self.address), action }.emit();
    }
}

async fn route(proxy: &Arc<Proxy>, mut request: Parts, body: Incoming, peer: &Peer) -> Response<Body> {
    let app = &proxy.app;
    let config = Arc::clone(&app.state().config);
    let path = request.uri.path().to_owned();
    // First the path as it is: the base path may be the name of a resource, and a proxy may have removed it.
    let resource = Resource::from_path(&path);
    if resource.is_none() && config.admin_base_path.lacks_slash(&path) {
        return page::redirect(StatusCode::PERMANENT_REDIRECT, respond::no_content(), &config);
    }
    let below = || Resource::from_path(config.admin_base_path.strip(&path));
    let Some((resource, id)) = resource.or_else(below) else {
        return respond::error(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "Not found.",
            "The admin listener has /, /livez, /readyz, /metrics, /backends, /events, /jobs, /jobs/{id}, \
             /jobs/{id}/events, /jobs/{id}/failed, /jobs/{id}/recording, /jobs/{id}/cooldown, /log, /session, POST /clean, POST /reload \
             and POST /sync/…; /openapi.json describes them.",
        );
    };
    // HTTP/2 requests get the headers of HTTP/1, `Host` in particular.
    headers::as_http_1(&mut request);
    let method = request.method.clone();
    if !resource.methods().split(", ").any(|allowed| allowed == method.as_str()) {
        return respond::method_not_allowed(resource.methods());
    }
    let host = host(&request.headers);
    // The GETs of this listener have no effects.
    if csrf::is_cross_site(&request.headers, host, &[]) && !csrf::is_link(&method, &request.headers) {
        return respond::cross_site(
            "Sec-Fetch-Site or Origin shows that a page of another site sent this request. Send it from a page of \
             this address, or without a browser.",
        );
    }
    let caller = Caller::from_request(&config, peer.listen_address, &request.headers);
    let trusted = &config.trusted_proxies;
    let forwarded = Forwarded::from_request(peer.address, &peer.scheme, host, &request.headers, trusted);
    let user = caller.user(streams::actor(&request.headers));
    let requester = Requester { user, address: forwarded.client };
    if let Some(name) = caller.name() {
        Span::current().record("token", name);
    }
    let authorized = caller.authorize(resource.required_access(&method, &config), &config);
    match authorized {
        Err(AuthError::ReadOnly) => requester.audit(AuditAction::Denied),
        Err(_) if request.headers.contains_key(AUTHORIZATION) => requester.audit(AuditAction::TokenRefused),
        _ => {}
    }
    match authorized {
        Ok(()) => {}
        Err(AuthError::NotConfigured) => return page::not_configured(),
        Err(AuthError::NoToken) if resource == Resource::Page => return page::sign_in_first(),
        Err(AuthError::NoToken) => return unauthorized(),
        Err(AuthError::ReadOnly) => {
            return respond::error(
                StatusCode::FORBIDDEN,
                ErrorCode::TokenReadOnly,
                "This token is read-only.",
                "It is one of admin_read_token_file. Use a token of admin_token_file.",
            );
        }
    }
    // The operator token must not be taken for the key of a backend.
    request.headers.remove(AUTHORIZATION);
    let query = request.uri.query().unwrap_or_default();
    match resource {
        Resource::Page => page::page(),
        Resource::Asset(part) => part.response(),
        Resource::Session if method == Method::POST => {
            page::start_session(&config, &request.headers, body, &requester).await
        }
        Resource::Session if method == Method::DELETE => page::end_session(&config),
        Resource::Session => page::sign_in(),
        Resource::Livez => health::live(),
        Resource::Readyz => health::ready(app, query, caller).await,
        Resource::Metrics => metrics(app),
        Resource::Document => respond::json(StatusCode::OK, Bytes::from_static(DOCUMENT.as_bytes())),
        Resource::Backends => backends::list(proxy).await,
        Resource::Feed => events::answer(app, caller, request.version, peer),
        Resource::Jobs => jobs::list(app, query).await,
        Resource::Job if method == Method::DELETE => jobs::cancel(app, id, &requester).await,
        Resource::Job => jobs::get(app, id).await,
        Resource::Events => jobs::events(app, id, &request, peer).await,
        Resource::Failed => jobs::failed(app, id, query, &request.headers).await,
        Resource::Recording => jobs::recording(app, id).await,
        Resource::Cooldown => jobs::end_cooldown(app, id, &requester).await,
        Resource::Log if method == Method::PUT => log_filter::set_filter(query, &requester),
        Resource::Log => log_filter::filter(),
        Resource::Clean => clean(app, &requester).await,
        Resource::Reload => reload(app, &requester).await,
        Resource::Sync(_) if !body.is_end_stream() || guard::announces_body(&request) => {
            let detail = "A sync takes no body: its parameters are in the query, as in ?proxmox_endpoint_ids=1. \
                          Nothing was started.";
            errors::rejection_response(&Rejection::new(RejectReason::Body, detail), peer.address)
        }
        Resource::Sync(endpoint) => sync::answer(app, endpoint, &request, requester).await,
    }
}

fn unauthorized() -> Response<Body> {
    let mut response = respond::error(
        StatusCode::UNAUTHORIZED,
        ErrorCode::TokenRequired,
        "Operator token required.",
        "Send the token as `Authorization: Bearer …`, or sign in at /session. The token is in the file that \
         admin_token_file names.",
    );
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn metrics(app: &App) -> Response<Body> {
    let mut response = Response::new(respond::full(app.metrics().into()));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Removes all expired data, by the current wall clock.
async fn clean(app: &App, requester: &Requester) -> Response<Body> {
    requester.audit(AuditAction::Clean);
    match app.registry.clean(Cleaning::Requested).await {
        Ok(CleaningResult { jobs, logs, left, .. }) => {
            let counts =
                format!("Jobs: {}; logs of jobs: {}; not removed yet: {left}.", jobs.len(), logs.len());
            respond::message(StatusCode::OK, "Expired records and logs were removed.", &counts)
        }
        Err(unavailable) => respond::error(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::CleanFailed,
            "Not all expired records and logs were removed.",
            &unavailable.to_string(),
        ),
    }
}

/// Reloads the configuration.
async fn reload(app: &App, requester: &Requester) -> Response<Body> {
    let reloaded = app.reload.reload().await;
    requester.audit(AuditAction::Reload { error: reloaded.as_ref().err().map(String::as_str) });
    match reloaded {
        Ok(changed) => respond::object(
            StatusCode::OK,
            &serde_json::json!({
                "message": "The configuration was reloaded.",
                "detail": format!("Backends: {}.", app.state().names()),
                "changed": changed,
            }),
        ),
        Err(why) => respond::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::ReloadFailed,
            "Reloading the configuration failed. The previous one stays in force.",
            &why,
        ),
    }
}
