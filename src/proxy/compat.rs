//! Compatibility shims: endpoints of the plugin beyond the streams that old backends lack or implement wrongly.
//!
//! A shim is active only where the backend itself falls short. Emulated responses have the shapes that the checks of
//! plugin 0.0.25 and later accept, which are stricter than the responses of backends. [`crate::core::compat`] lists
//! what a response must never contain.

mod config;
mod inventory;
mod keyring;
mod restart;
mod rows;
mod templates;
pub(super) mod upstream;

use std::borrow::Cow;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{ALLOW, RETRY_AFTER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::coalesce;
use super::errors::{OrResponse, merge, refusal_response};
use super::quota::acquire_request;
use super::request::RequestContext;
use crate::backend::{AuthFailure, KEY_STATUS, RequestIdentity, ScopedQuery};
use crate::core::compat::scope::{ENDPOINT_IDS, harms_others, parameters};
use crate::core::compat::{Shim, ShimAction, options};
use crate::core::domain::credential::ApiKey;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::outcome::Cause;
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::http::headers::came_through_bridge;
use crate::deadline::timeout;
use crate::proxy::credentials::{KEYS, REGISTER, request_key};
use crate::respond::{self, Body, detail};
use crate::telemetry;
use keyring::RegisteredKey;

pub(super) use keyring::Keyring;
pub(super) use restart::PendingRestarts;

const HEALTH: &str = "/health";
const VERSION: &str = "/version";
/// The shim that took part in a response.
const SHIM: HeaderName = HeaderName::from_static("x-proxbox-bridge-shim");
/// The text of a backend for an unknown path.
const NOT_FOUND: &str = "Not Found";
/// The largest response that is searched for this text, in bytes.
const MAX_404_BYTES: usize = 64 * 1024;
/// The largest registration of a key that is read, in bytes.
const MAX_REGISTRATION_BYTES: usize = 16 * 1024;
/// The shortest key that backends register, in characters.
const MIN_KEY: usize = 32;

/// The paths that plugin 0.0.10 requests and no backend has, with the syncs that they stand for.
const ALIASES: [(&str, Kind); 2] =
    [("/cluster/replication/stream", Kind::Replications), ("/cluster/backup/stream", Kind::BackupRoutines)];

/// Returns whether `path` is an alias of a stream.
pub(super) fn is_alias(path: &str) -> bool {
    ALIASES.iter().any(|(alias, _)| *alias == path)
}

/// The stream that the alias `path` stands for.
pub(super) fn alias_endpoint(context: &RequestContext, path: &str) -> Option<SyncEndpoint> {
    let (_, kind) = ALIASES.iter().find(|(alias, _)| *alias == path)?;
    context.state.config.shims.is_on(Shim::Aliases).then(|| {
        count_shim(Shim::Aliases, ShimAction::Translated, path);
        SyncEndpoint::for_kind(*kind)
    })
}

/// Answers a request in place of a backend that cannot. Returns the request as an error if the backend must answer it.
pub(super) async fn answer(
    context: &RequestContext,
    parts: Parts,
    path: &str,
    body: Incoming,
) -> Result<Response<Body>, (Parts, Incoming)> {
    let shims = &context.state.config.shims;
    let is_get = parts.method == Method::GET;
    // The futures below are boxed: they are large, and few requests need them.
    // A request with a body or another method is left to the backend.
    if shims.is_on(Shim::Health) && path == HEALTH && is_get && body.is_end_stream() {
        return health(context, &parts).boxed().await.ok_or((parts, body));
    }
    if let Err(refused) = check_restart(context, path).await {
        return Ok(*refused);
    }
    if shims.is_on(Shim::Version) && path == VERSION && is_get && body.is_end_stream() {
        return Ok(version(context, parts, body).boxed().await);
    }
    if let Some(inventory) = inventory::match_path(&parts.method, path) {
        return Ok(inventory::answer(context, parts, body, inventory).boxed().await);
    }
    if templates::matches(&parts.method, path, parts.uri.query().unwrap_or_default()) {
        let response = match release(context, &parts).boxed().await {
            Ok(release) => templates::answer(context, &parts, release).boxed().await,
            Err(refused) => Some(*refused),
        };
        return response.ok_or((parts, body));
    }
    let guest = config::match_path(&parts.method, path);
    if guest.is_some() || rows::matches(path) {
        let release = match release(context, &parts).boxed().await {
            Ok(Some(release)) => release,
            Ok(None) => return Err((parts, body)),
            Err(refused) => return Ok(*refused),
        };
        let request = Request::from_parts(parts, body);
        return Ok(match guest {
            Some(guest) => config::answer(context, request, guest, release).boxed().await,
            None => merge(rows::answer(context, request, path, release).boxed().await),
        });
    }
    let lacks = || async { context.backend.lacks(KEY_STATUS, &parts.headers).boxed().await == Ok(true) };
    // A bridge in front of this one must see what the backend has. It has the same shim.
    let is_emulated = shims.is_on(Shim::Auth) && !came_through_bridge(&parts.headers);
    if !is_emulated || ![KEY_STATUS, REGISTER, KEYS].contains(&path) || !lacks().await {
        return Err((parts, body));
    }
    count_shim(Shim::Auth, ShimAction::Emulated, path);
    let registered = match &context.state.config.shims.api_key {
        Some(key) => Some(RegisteredKey::from_config(key)),
        None => context.proxy.keyring.get(context.backend.url()),
    };
    Ok(match (path, &parts.method) {
        (KEY_STATUS, &Method::GET) => {
            let (is_open, has_key) = (registered.is_none(), registered.is_some());
            respond::object(StatusCode::OK, &json!({ "needs_bootstrap": is_open, "has_db_keys": has_key }))
        }
        (KEYS, &Method::GET) => keys(registered.as_ref(), &parts),
        (REGISTER, &Method::POST) => merge(register(context, registered.as_ref(), body).boxed().await),
        (REGISTER, _) => not_allowed("POST"),
        _ => not_allowed("GET"),
    })
}

/// The paths that stay available while the backend waits for a restart: none of them writes to NetBox.
const ALLOWED_BEFORE_RESTART: [&str; 4] = ["/netbox/", "/proxmox/", "/auth/", "/docs"];

/// Refuses a request that may write to NetBox while the backend would write to the wrong NetBox.
pub(super) async fn check_restart(context: &RequestContext, path: &str) -> OrResponse<()> {
    let is_harmless = ["/", VERSION, "/openapi.json"].contains(&path)
        || ALLOWED_BEFORE_RESTART.iter().any(|harmless| path.starts_with(harmless));
    if is_harmless {
        return Ok(());
    }
    let Some(why) = context.proxy.app.registry.resolve_blocked(&context.backend).await else { return Ok(()) };
    let retry_after = context.backend.limits().retry_after.as_secs();
    Err(refusal_response(path, &Refusal::awaits_restart(&why, retry_after)))
}

/// Translates the Proxmox endpoints in a request for `path` to the vocabulary of the backend's release. Refuses a request
/// that would affect other endpoints, or write to another branch of NetBox.
pub(super) async fn scope(context: &RequestContext, parts: &mut Parts, path: &str) -> OrResponse<()> {
    let shims = &context.state.config.shims;
    let query = parts.uri.query().unwrap_or_default();
    let names = |(name, value): (Cow<'_, str>, Cow<'_, str>)| name == ENDPOINT_IDS && !value.is_empty();
    let is_scoped = shims.is_on(Shim::Scope) && parameters(query).any(names);
    let has_branch = shims.is_on(Shim::Options) && options::has_branch(query);
    if !is_scoped && !has_branch {
        return Ok(());
    }
    let release = release(context, parts).boxed().await?;
    let refused = |shim, refusal: &Refusal| {
        count_shim(shim, ShimAction::Refused, path);
        refusal_response(path, refusal)
    };
    if has_branch && let Some(why) = options::loses_branch_at(path, query, release) {
        return Err(refused(Shim::Options, &Refusal::loses_branch(&why)));
    }
    if !is_scoped {
        return Ok(());
    }
    let kind = Kind::all().find(|kind| SyncEndpoint::for_kind(*kind).json_path() == path);
    let harm = kind.and_then(|kind| harms_others(kind, release));
    let identity = identity(context, parts);
    let scoped = match context.backend.scope_query(query, release, &identity, harm).boxed().await {
        Ok(ScopedQuery::Unchanged) => return Ok(()),
        Ok(ScopedQuery::Rewritten(scoped)) => scoped,
        Ok(ScopedQuery::Harmful(why)) => return Err(refused(Shim::Scope, &Refusal::harms_others(&why))),
        Err(refusal) if refusal.cause == Cause::Unsupported => return Err(refused(Shim::Scope, &refusal)),
        Err(refusal) => return Err(refusal_response(path, &refusal)),
    };
    let Ok(target) = format!("{}?{scoped}", parts.uri.path()).parse::<PathAndQuery>() else {
        let refusal = Refusal::not_scoped("The request is too long to name the endpoints in it.");
        return Err(refusal_response(path, &refusal));
    };
    count_shim(Shim::Scope, ShimAction::Translated, path);
    parts.uri = Uri::from(target);
    Ok(())
}

/// The release of the backend, if the client of `parts` may query it. A refused key is not tried again for that.
async fn release(context: &RequestContext, parts: &Parts) -> OrResponse<Option<Release>> {
    let _trial = coalesce::admit(context, parts).await?;
    let identity = identity(context, parts);
    let generation = context.backend.gate.generation();
    let release = context.backend.release(&identity).await;
    release.map_err(|refusal| {
        let hash = identity.key.as_ref().map(|key| context.key_hash(key));
        let (text, retry_after) = (refusal.text(), refusal.retry_after.as_deref());
        let failure = AuthFailure { status: refusal.status, retry_after, text: &text, generation };
        let (backend, client) = (&context.backend, context.forwarded.client);
        backend.note_auth_failure(failure, Some(client), hash);
        refusal_response(parts.uri.path(), &refusal)
    })
}

fn identity(context: &RequestContext, parts: &Parts) -> RequestIdentity {
    let key = request_key(&parts.headers).or_else(|| context.backend.config().api_key.clone());
    let mut identity = RequestIdentity::keyless(&parts.headers);
    context.forwarded.apply(&mut identity.forwarded_headers);
    RequestIdentity { key, ..identity }
}

/// The backend's version, or the one derived from its streams if it has no `/version`.
async fn version(context: &RequestContext, parts: Parts, body: Incoming) -> Response<Body> {
    let response = upstream::forward(context, &parts, body).await;
    if response.status() != StatusCode::NOT_FOUND {
        return response;
    }
    let (response, is_missing) = is_bare_404(context, response).await;
    match release(context, &parts).boxed().await {
        Ok(Some(release)) if is_missing => {
            let bridge = json!({
                "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "detected_by": "streams",
            });
            emulated(Shim::Version, VERSION, &json!({ "version": release.to_string(), "bridge": bridge }))
        }
        _ => response,
    }
}

/// Returns whether `response`, a 404, means that the backend does not know the path. A missing object has another
/// text.
async fn is_bare_404(context: &RequestContext, response: Response<Body>) -> (Response<Body>, bool) {
    is_404_with(context, response, |body| *body == json!({ "detail": NOT_FOUND })).await
}

/// Returns whether `response`, a 404, has a JSON body that `matches`.
async fn is_404_with(
    context: &RequestContext,
    response: Response<Body>,
    matches: fn(&Value) -> bool,
) -> (Response<Body>, bool) {
    let (head, body) = response.into_parts();
    let limit = context.backend.limits().response_head;
    let Ok(Ok(body)) = timeout(limit, upstream::read(body, MAX_404_BYTES)).await else {
        let detail = "The backend's answer could not be read.";
        return (respond::message(head.status, "The backend does not know this path.", detail), false);
    };
    let is_it = serde_json::from_slice::<Value>(&body).is_ok_and(|body| matches(&body));
    (Response::from_parts(head, respond::full(body)), is_it)
}

/// A response emulated by the bridge.
fn emulated(shim: Shim, path: &str, body: &Value) -> Response<Body> {
    count_shim(shim, ShimAction::Emulated, path);
    with_shim_header(respond::object(StatusCode::OK, body), shim)
}

/// Marks `response` with the shim that took part in it.
pub(super) fn with_shim_header(mut response: Response<Body>, shim: Shim) -> Response<Body> {
    response.headers_mut().insert(SHIM, HeaderValue::from_static(shim.as_str()));
    response
}

pub(super) fn count_shim(shim: Shim, action: ShimAction, path: &str) {
    telemetry::RequestShimmed { shim, action, path }.emit();
}

/// Whether the backend is healthy. `None` leaves the response to the backend.
async fn health(context: &RequestContext, parts: &Parts) -> Option<Response<Body>> {
    let limit = context.backend.limits().probe;
    let why = match timeout(limit, probe_health(context, parts)).await {
        Ok(Ok(response)) => return response,
        Ok(Err(why)) => why,
        Err(_) => {
            let limit = humantime::format_duration(limit);
            format!("{} did not answer within {limit} (limits.probe).", context.backend)
        }
    };
    let message = "The ProxBox backend cannot be reached.";
    let body = json!({
        "status": "unready", "init_ok": false, "reason": why, "message": message, "detail": why,
    });
    let mut response = respond::object(StatusCode::SERVICE_UNAVAILABLE, &body);
    let retry_after = HeaderValue::from(context.backend.limits().retry_after.as_secs());
    response.headers_mut().insert(RETRY_AFTER, retry_after);
    Some(response)
}

/// The health response of the backend, or of the bridge in its place; the reason, if the backend is unreachable.
async fn probe_health(context: &RequestContext, parts: &Parts) -> Result<Option<Response<Body>>, String> {
    let backend = &context.backend;
    let ready = || Ok(Some(emulated(Shim::Health, HEALTH, &json!({ "status": "ready", "init_ok": true }))));
    if backend.is_known_missing(HEALTH) {
        let _slot = match acquire_request(context) {
            Ok(slot) => slot,
            Err(limit) => return Ok(Some(respond::limit_exceeded(limit))),
        };
        backend.check_reachable().await.map_err(|error| error.to_string())?;
        return ready();
    }
    let generation = backend.capabilities_cache.generation();
    let response = coalesce::coalesced(context, parts).await.map_err(|error| error.to_string())?;
    match response.as_ref().map(Response::status) {
        Some(StatusCode::NOT_FOUND) => {
            let Some(response) = response else { return Ok(None) };
            // The 404 of a reverse proxy is rarely JSON.
            let (response, is_missing) = is_404_with(context, response, Value::is_object).await;
            if !is_missing {
                return Ok(Some(response));
            }
            backend.note_missing_path(HEALTH, generation);
            ready()
        }
        // The status of a reverse proxy, which plugins treat as final.
        Some(status @ (StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)) => {
            Err(format!("The proxy in front of the backend answered {status}."))
        }
        _ => Ok(response),
    }
}

fn keys(registered: Option<&RegisteredKey>, parts: &Parts) -> Response<Body> {
    let unauthorized =
        |detail: &str| respond::message(StatusCode::UNAUTHORIZED, "The API key is refused.", detail);
    let Some(registered) = registered else {
        return unauthorized("No API key configured. Register a key via POST /auth/register-key.");
    };
    match request_key(&parts.headers) {
        None => unauthorized("API key required."),
        Some(key) if registered.matches(&key) => {
            let RegisteredKey { label, created_at, .. } = registered;
            let only = json!({ "id": 1, "label": label, "is_active": true, "created_at": created_at });
            respond::object(StatusCode::OK, &json!({ "keys": [only] }))
        }
        Some(_) => unauthorized("Invalid API key."),
    }
}

async fn register(
    context: &RequestContext,
    registered: Option<&RegisteredKey>,
    body: Incoming,
) -> OrResponse<Response<Body>> {
    #[derive(Deserialize)]
    struct Registration {
        api_key: SecretString,
        #[serde(default)]
        label: String,
    }

    let body = read_body(context, body, MAX_REGISTRATION_BYTES).await?;
    let invalid = |text: &str| detail(StatusCode::BAD_REQUEST, text);
    let Ok(Registration { api_key, label }) = serde_json::from_slice(&body) else {
        let text = "The body must be a JSON object with api_key and an optional label.";
        return Err(detail(StatusCode::UNPROCESSABLE_ENTITY, text).into());
    };
    let taken = || detail(StatusCode::CONFLICT, "An API key is already configured.");
    if api_key.expose_secret().chars().count() < MIN_KEY {
        return Err(invalid("API key must be at least 32 characters.").into());
    }
    let Ok(api_key) = api_key.expose_secret().parse::<ApiKey>() else {
        return Err(invalid("API key must be one line of visible ASCII characters.").into());
    };
    if registered.is_some() {
        return Err(taken().into());
    }
    Ok(match context.proxy.keyring.register(context.backend.url(), &api_key, &label).await {
        Ok(true) => {
            context.proxy.app.registry.secrets.remember(vec![api_key.expose().into()]);
            detail(StatusCode::CREATED, "API key registered.")
        }
        Ok(false) => taken(),
        Err(error) => {
            telemetry::StateNotWritten { file: keyring::FILE, error: &error }.emit();
            detail(StatusCode::SERVICE_UNAVAILABLE, "The key could not be written; see the log.")
        }
    })
}

/// Reads a body that a client sends, of at most `limit` bytes.
async fn read_body(context: &RequestContext, body: Incoming, limit: usize) -> Result<Bytes, Response<Body>> {
    let read = timeout(context.state.config.limits.client_body, upstream::read(body, limit)).await;
    let incomplete = || detail(StatusCode::BAD_REQUEST, "The body is too long or incomplete.");
    read.ok().and_then(Result::ok).ok_or_else(incomplete)
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}
