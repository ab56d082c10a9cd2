//! The rows of NetBox and Proxmox in a backend's database (see [`crate::core::compat::rows`]).

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use secrecy::ExposeSecret;
use serde_json::json;

use super::upstream::{self, BackendRequest, request_identity_encoding, send};
use super::{count_shim, detail, json_response, with_shim_header};
use crate::core::compat::netbox::{ListenerAddress, cannot_reach};
use crate::core::compat::rows::{
    V1, add_token_version, can_update_netbox, has_new_token, is_same, is_same_address, knows_enabled,
    netbox_row, redact, shows_secrets, stored_secrets, stores_proxmox,
};
use crate::core::compat::{Shim, ShimAction, release_name};
use crate::core::domain::release::Release;
use crate::core::run::capabilities::SETTINGS;
use crate::core::secret::{SecretJson, wipe};
use crate::deadline::timeout;
use crate::proxy::Proxy;
use crate::proxy::request::RequestContext;
use crate::proxy::{netbox, passthrough};
use crate::respond::Body;

const NETBOX: &str = "/netbox/endpoint";
const PROXMOX: &str = "/proxmox/endpoints";
/// The largest row that is read, in bytes.
const MAX_ROW_BYTES: usize = 64 * 1024;

/// Where 0.0.1 shows the row of NetBox, beside [`NETBOX`].
const ELSEWHERE: [&str; 3] = [SETTINGS, "/netbox", "/netbox/"];

/// Whether the request is about rows.
pub(super) fn matches(path: &str) -> bool {
    row_id(path, NETBOX).is_some() || row_id(path, PROXMOX).is_some() || ELSEWHERE.contains(&path)
}

/// What stands behind `collection` in `path`: nothing for all of its rows, or the id of one.
fn row_id<'a>(path: &'a str, collection: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(collection)?;
    if rest.is_empty() || rest == "/" {
        Some("")
    } else {
        rest.strip_prefix('/').filter(|id| !id.contains('/'))
    }
}

/// Answers a request about rows for a backend of `release`.
pub(super) async fn answer(
    proxy: &Proxy,
    context: &RequestContext,
    mut parts: Parts,
    path: &str,
    body: Incoming,
    release: Release,
) -> Response<Body> {
    let shims = &context.state.config.shims;
    if changes(context, release, path) {
        request_identity_encoding(&mut parts);
    }
    if let Some(id) = row_id(path, PROXMOX) {
        let is_on = shims.is_on(Shim::ProxmoxEndpoints);
        if is_on && !stores_proxmox(release) {
            let has_listener = context.backend.config().netbox.is_some();
            if !has_listener || !shims.is_on(Shim::ProxmoxCredentials) {
                return no_endpoints(release, has_listener);
            }
            return match read_bytes(context, body).await {
                Ok(body) => {
                    let pushed = SecretJson::parse(&body).unwrap_or_default();
                    let (status, answer) = context.backend.proxmox.handle(&parts.method, id, &pushed);
                    proxy.app.registry.secrets.remember(stored_secrets(&parts.method, status, &pushed));
                    count_shim(Shim::ProxmoxEndpoints, ShimAction::Emulated, PROXMOX);
                    with_shim_header(json_response(status, &answer), Shim::ProxmoxEndpoints)
                }
                Err(refused) => refused,
            };
        }
        if is_on && parts.method == Method::PUT && !id.is_empty() && !knows_enabled(release) {
            let (pushed, bytes) = match read(context, body).await {
                Ok(read) => read,
                Err(refused) => return refused,
            };
            if pushed["enabled"] == json!(false) {
                return revoke(proxy, context, &parts, id).await;
            }
            let target = parts.uri.path_and_query().map_or(PROXMOX, |target| target.as_str()).to_owned();
            let request = BackendRequest { method: Method::PUT, target: &target, body: Some(bytes) };
            let response = send(proxy, context, &parts, request).await;
            return rewrite_rows(proxy, context, release, path, response).await;
        }
    } else if (parts.method == Method::PUT || parts.method == Method::POST)
        && let Some(id) = row_id(path, NETBOX)
    {
        let replaces = shims.is_on(Shim::NetboxEndpoint) && !can_update_netbox(release);
        if replaces || context.backend.config().netbox.is_some() {
            let (pushed, _) = match read(context, body).await {
                Ok(read) => read,
                Err(refused) => return refused,
            };
            let config = context.backend.config();
            if let Some(listener) = &config.netbox {
                let port = proxy.app.listeners.netbox_address(listener.listen).port();
                let listener = ListenerAddress { port, speaks_tls: listener.tls.is_some() };
                if let Some(why) = cannot_reach(release, listener) {
                    return refused(NETBOX, "This backend cannot reach backend.netbox_listen.", &why);
                }
                if let Err(why) = netbox::check_pushed(config, &pushed) {
                    return refused(NETBOX, "The bridge cannot reach this NetBox.", &why);
                }
            }
            let row = at_listener(proxy, context, &pushed, release);
            let response = if replaces {
                push(proxy, context, &parts, id, row, release).await
            } else {
                let target = parts.uri.path_and_query().map_or(NETBOX, |target| target.as_str()).to_owned();
                let (method, body) = (parts.method.clone(), Some(row.to_body()));
                send(proxy, context, &parts, BackendRequest { method, target: &target, body }).await
            };
            // What the backend has refused changes nothing: it knows who may push.
            if context.backend.config().netbox.is_some() && response.status().is_success() {
                let secrets = stored_secrets(&parts.method, response.status(), &pushed);
                proxy.app.registry.secrets.remember(secrets);
                proxy.netbox.push(&context.backend, &pushed).await;
            }
            return rewrite_rows(proxy, context, release, path, response).await;
        }
    }
    let response = passthrough::answer(proxy, context, parts, body).await;
    rewrite_rows(proxy, context, release, path, response).await
}

/// The NetBox endpoint that a backend of `release` is given for the one that is `pushed`: that of its NetBox listener, if
/// it has one. A release that sends one token gets a v2 token in one text.
fn at_listener(proxy: &Proxy, context: &RequestContext, pushed: &SecretJson, release: Release) -> SecretJson {
    let Some(listener) = &context.backend.config().netbox else { return pushed.clone() };
    let address = proxy.app.listeners.netbox_address(listener.listen);
    let mut row = netbox::at_listener(pushed, address, listener.tls.is_some(), release);
    let shims = &context.state.config.shims;
    // Where nothing makes a Bearer of it on the way to NetBox, a v2 token is of no use to such a release.
    let is_sent_as_bearer = shims.is_on(Shim::NetboxEndpoint) && shims.is_on(Shim::NetboxToken);
    if is_sent_as_bearer && !can_update_netbox(release) {
        wipe(&mut row["token"]);
        row["token"] = json!(netbox::token(pushed).expose_secret());
        row["token_version"] = json!(V1);
    }
    count_shim(Shim::NetboxEndpoint, ShimAction::Translated, NETBOX);
    row
}

/// What a client pushes.
async fn read_bytes(context: &RequestContext, body: Incoming) -> Result<Bytes, Response<Body>> {
    let body_timeout = context.state.config.limits.client_body;
    let read = timeout(body_timeout, upstream::read(body, MAX_ROW_BYTES)).await;
    read.ok()
        .and_then(Result::ok)
        .ok_or_else(|| detail(StatusCode::BAD_REQUEST, "The body is too long, or did not come to its end."))
}

/// The JSON that a client pushes, and as it came.
async fn read(context: &RequestContext, body: Incoming) -> Result<(SecretJson, Bytes), Response<Body>> {
    let body = read_bytes(context, body).await?;
    let value = SecretJson::parse(&body).ok().filter(|value| value.is_object());
    let no_object = || detail(StatusCode::UNPROCESSABLE_ENTITY, "The body must be a JSON object.");
    Ok((value.ok_or_else(no_object)?, body))
}

/// Whether answers of `release` show what they must not.
fn hides_secrets(context: &RequestContext, release: Release) -> bool {
    context.state.config.shims.is_on(Shim::Secrets) && shows_secrets(release)
}

/// Whether its rows of NetBox lack what the plugin demands.
fn adds_token_version(context: &RequestContext, release: Release, path: &str) -> bool {
    let is_on = context.state.config.shims.is_on(Shim::NetboxEndpoint);
    is_on && !can_update_netbox(release) && row_id(path, NETBOX).is_some()
}

/// Whether its rows of NetBox lead to the listener in front of NetBox.
fn is_moved(context: &RequestContext, path: &str) -> bool {
    context.backend.config().netbox.is_some() && row_id(path, NETBOX).is_some()
}

fn changes(context: &RequestContext, release: Release, path: &str) -> bool {
    hides_secrets(context, release) || adds_token_version(context, release, path) || is_moved(context, path)
}

/// `response` without what no answer may show, and with what the plugin demands of a row.
async fn rewrite_rows(
    proxy: &Proxy,
    context: &RequestContext,
    release: Release,
    path: &str,
    response: Response<Body>,
) -> Response<Body> {
    if !changes(context, release, path) || !response.status().is_success() {
        return response;
    }
    let (head, body) = match upstream::collect(context, response).await {
        Ok(whole) => whole,
        Err(broken) => return broken,
    };
    let Ok(mut value) = SecretJson::parse(&body) else {
        let text =
            "The backend's answer may hold tokens and passwords, and could not be read to take them out.";
        return detail(StatusCode::BAD_GATEWAY, text);
    };
    let hidden = hides_secrets(context, release) && redact(&mut value);
    let completed = adds_token_version(context, release, path) && add_token_version(&mut value);
    let listener = context.backend.config().netbox.as_ref().filter(|_| is_moved(context, path));
    let moved = listener.is_some_and(|listener| {
        let address = proxy.app.listeners.netbox_address(listener.listen);
        proxy.netbox.endpoints.restore(&context.backend, address, &mut value)
    });
    let completed = completed || moved;
    for (was, shim) in [(hidden, Shim::Secrets), (completed, Shim::NetboxEndpoint)] {
        if was {
            let action = if shim == Shim::Secrets { ShimAction::Completed } else { ShimAction::Translated };
            count_shim(shim, action, path);
        }
    }
    if !(hidden || completed) {
        return upstream::rebuild(head, body);
    }
    let shim = if hidden { Shim::Secrets } else { Shim::NetboxEndpoint };
    with_shim_header(upstream::rebuild(head, value.to_body()), shim)
}

/// 0.0.1 and 0.0.2 store no Proxmox endpoints.
fn no_endpoints(release: Release, has_listener: bool) -> Response<Body> {
    let remedy =
        if has_listener { "set shims.proxmox_credentials = \"on\"" } else { "set backend.netbox_listen" };
    let text = format!(
        "{} takes its Proxmox credentials from the NetBox plugin of its day, and today's netbox-proxbox does not \
         give them out. Use proxbox-api 0.0.4 or newer, or {remedy}.",
        release_name(Some(release))
    );
    refused(PROXMOX, "This backend stores no Proxmox endpoints.", &text)
}

/// The refusal of a pushed row for `collection`: `detail` is what NetBox's job says of it, word for word.
fn refused(collection: &'static str, message: &str, detail: &str) -> Response<Body> {
    let shim = if collection == NETBOX { Shim::NetboxEndpoint } else { Shim::ProxmoxEndpoints };
    count_shim(shim, ShimAction::Refused, collection);
    let body = json!({ "message": message, "detail": detail });
    with_shim_header(json_response(StatusCode::UNPROCESSABLE_ENTITY, &body), shim)
}

/// A Proxmox endpoint is disabled in NetBox, and the backend cannot disable it: without its row, it is not
/// synchronised. When it is enabled again, the plugin pushes it anew.
async fn revoke(proxy: &Proxy, context: &RequestContext, parts: &Parts, id: &str) -> Response<Body> {
    let target = format!("{PROXMOX}/{id}");
    let request = BackendRequest { method: Method::DELETE, target: &target, body: None };
    let response = send(proxy, context, parts, request).await;
    if !response.status().is_success() && response.status() != StatusCode::NOT_FOUND {
        return response;
    }
    count_shim(Shim::ProxmoxEndpoints, ShimAction::Translated, PROXMOX);
    let id = id.parse::<u64>().map_or_else(|_| json!(id), |id| json!(id));
    with_shim_header(
        json_response(StatusCode::OK, &json!({ "id": id, "enabled": false })),
        Shim::ProxmoxEndpoints,
    )
}

/// Makes what is pushed the row of NetBox in 0.0.2, which has no way to change one: a new row is stored, and the
/// old one deleted then, so that there is never none.
async fn push(
    proxy: &Proxy,
    context: &RequestContext,
    parts: &Parts,
    id: &str,
    pushed: SecretJson,
    release: Release,
) -> Response<Body> {
    if has_new_token(&pushed) {
        let text = format!(
            "{} knows NetBox's v1 tokens alone. Give the NetBox endpoint of the plugin a v1 token, or use proxbox-api \
             0.0.3 or newer.",
            release_name(Some(release))
        );
        return refused(NETBOX, "This backend cannot use a v2 token.", &text);
    }
    let (mut old, mut is_bound) = (None, false);
    if !id.is_empty() {
        let response = send(proxy, context, parts, BackendRequest::get(&format!("{NETBOX}/{id}"))).await;
        if !response.status().is_success() {
            return response;
        }
        let (head, body) = match upstream::collect(context, response).await {
            Ok(whole) => whole,
            Err(broken) => return broken,
        };
        let row = SecretJson::parse(&body).unwrap_or_default();
        if is_same(&row, &pushed) {
            return upstream::rebuild(head, body);
        }
        // Behind the listener the old token serves until the backend is restarted.
        is_bound = context.backend.config().netbox.is_some() && is_same_address(&row, &pushed);
        old = Some(format!("{NETBOX}/{id}"));
    }
    let row = SecretJson::from(netbox_row(&pushed)).to_body();
    let request = BackendRequest { method: Method::POST, target: NETBOX, body: Some(row) };
    let unanswered =
        (!is_bound).then(|| proxy.restarts.hold_if_dropped(&proxy.app.registry, &context.backend));
    let stored = send(proxy, context, parts, request).await;
    if let Some(unanswered) = unanswered {
        unanswered.answered();
    }
    if !stored.status().is_success() {
        return stored;
    }
    if !is_bound {
        proxy.restarts.hold(&proxy.app.registry, &context.backend).await;
    }
    count_shim(Shim::NetboxEndpoint, ShimAction::Translated, NETBOX);
    if let Some(old) = old {
        let request = BackendRequest { method: Method::DELETE, target: &old, body: None };
        let deleted = send(proxy, context, parts, request).await;
        if !deleted.status().is_success() {
            return deleted;
        }
    }
    stored
}
