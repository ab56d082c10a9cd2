//! The NetBox and Proxmox rows in a backend's database (see [`crate::core::compat::rows`]).

use std::net::SocketAddr;

use bytes::Bytes;
use http::request::Parts;
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use secrecy::ExposeSecret;
use serde_json::json;

use super::restart::HoldIfDropped;
use super::upstream::{self, get, request_identity_encoding, send};
use super::{count_shim, read_body, with_shim_header};
use crate::core::compat::netbox::{ListenerAddress, cannot_reach};
use crate::core::compat::rows::{
    V1, add_token_version, can_update_netbox, has_new_token, is_same, is_same_address, knows_enabled,
    netbox_row, redact, shows_secrets, stored_secrets, stores_proxmox,
};
use crate::core::compat::{Shim, ShimAction, release_name};
use crate::core::domain::release::Release;
use crate::core::run::capabilities::SETTINGS;
use crate::core::secret::{SecretJson, wipe};
use crate::proxy::errors::{OrResponse, merge};
use crate::proxy::request::RequestContext;
use crate::proxy::{netbox, passthrough};
use crate::respond::{self, Body, detail};

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

/// The id of the row of `collection` in `path`; empty for the collection itself.
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
    context: &RequestContext,
    request: Request<Incoming>,
    path: &str,
    release: Release,
) -> OrResponse<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let changes = RowChanges::new(context, path, release);
    if !changes.is_empty() {
        request_identity_encoding(&mut parts);
    }
    let shims = &context.state.config.shims;
    let handles_proxmox = shims.is_on(Shim::ProxmoxEndpoints);
    let pushes_netbox = [Method::PUT, Method::POST].contains(&parts.method);
    let replaces_netbox = shims.is_on(Shim::NetboxEndpoint) && !can_update_netbox(release);
    let has_listener = context.backend.config().netbox.is_some();
    let response = match (row_id(path, PROXMOX), row_id(path, NETBOX)) {
        (Some(id), _) if handles_proxmox && !stores_proxmox(release) => {
            if !has_listener {
                return Err(no_endpoints(release, "set backend.netbox_listen").into());
            }
            if !shims.is_on(Shim::ProxmoxCredentials) {
                return Err(no_endpoints(release, "set shims.proxmox_credentials = \"on\"").into());
            }
            let pushed =
                SecretJson::parse(&read_body(context, body, MAX_ROW_BYTES).await?).unwrap_or_default();
            let (status, answer) = context.backend.proxmox.handle(&parts.method, id, &pushed);
            context.proxy.app.registry.secrets.remember(stored_secrets(&parts.method, status, &pushed));
            count_shim(Shim::ProxmoxEndpoints, ShimAction::Emulated, PROXMOX);
            return Ok(with_shim_header(respond::object(status, &answer), Shim::ProxmoxEndpoints));
        }
        (Some(id), _)
            if handles_proxmox
                && parts.method == Method::PUT
                && !id.is_empty()
                && !knows_enabled(release) =>
        {
            let (pushed, bytes) = read(context, body).await?;
            if pushed["enabled"] == json!(false) {
                return Ok(revoke(context, &parts, id).await);
            }
            let target = upstream::target(&parts);
            send(context, &parts, Method::PUT, target, Some(bytes)).await
        }
        (_, Some(id)) if pushes_netbox && (replaces_netbox || has_listener) => {
            let (pushed, _) = read(context, body).await?;
            let row = listener_row(context, &pushed, release)?;
            if replaces_netbox && has_new_token(&row) {
                return Err(no_v2_token(release).into());
            }
            let response = if replaces_netbox {
                replace_netbox(context, &parts, id, row).await?
            } else {
                let (method, target) = (parts.method.clone(), upstream::target(&parts));
                send(context, &parts, method, target, Some(row.to_body())).await
            };
            // A push that the backend has refused changes nothing: the backend knows who may push.
            if has_listener && response.status().is_success() {
                let secrets = stored_secrets(&parts.method, response.status(), &pushed);
                context.proxy.app.registry.secrets.remember(secrets);
                context.proxy.netbox.push(&context.backend, &pushed).await;
            }
            response
        }
        _ => merge(passthrough::answer(context, parts, body).await),
    };
    changes.apply(context, path, response).await
}

/// The NetBox row for a backend of `release` in place of `pushed`: it leads to the NetBox listener, if the backend has
/// one. A release that sends a single token gets a v2 token in one string. The row is refused if the backend cannot reach
/// the listener or the bridge cannot reach NetBox.
fn listener_row(context: &RequestContext, pushed: &SecretJson, release: Release) -> OrResponse<SecretJson> {
    let config = context.backend.config();
    let Some(listener) = &config.netbox else { return Ok(pushed.clone()) };
    let address = context.proxy.app.listeners.netbox_address(listener.listen);
    let speaks_tls = listener.tls.is_some();
    if let Some(why) = cannot_reach(release, ListenerAddress { port: address.port(), speaks_tls }) {
        return Err(refusal(NETBOX, "This backend cannot reach backend.netbox_listen.", &why).into());
    }
    netbox::check_pushed(config, pushed)
        .map_err(|why| refusal(NETBOX, "The bridge cannot reach this NetBox.", &why))?;
    let scheme = if speaks_tls { Scheme::HTTPS } else { Scheme::HTTP };
    let mut row = netbox::at_listener(pushed, address, &scheme, release);
    let shims = &context.state.config.shims;
    // Unless the listener sends it as Bearer, a v2 token is useless to such a release.
    let is_sent_as_bearer = shims.is_on(Shim::NetboxEndpoint) && shims.is_on(Shim::NetboxToken);
    if is_sent_as_bearer && !can_update_netbox(release) {
        wipe(&mut row["token"]);
        row["token"] = json!(netbox::token(pushed).expose_secret());
        row["token_version"] = json!(V1);
    }
    count_shim(Shim::NetboxEndpoint, ShimAction::Translated, NETBOX);
    Ok(row)
}

/// Reads the row that a client pushes, as JSON and as it was sent.
async fn read(context: &RequestContext, body: Incoming) -> OrResponse<(SecretJson, Bytes)> {
    let body = read_body(context, body, MAX_ROW_BYTES).await?;
    let value = SecretJson::parse(&body).ok().filter(|value| value.is_object());
    let no_object = || detail(StatusCode::UNPROCESSABLE_ENTITY, "The body must be a JSON object.");
    Ok((value.ok_or_else(no_object)?, body))
}

/// The changes to rows in responses of a backend.
struct RowChanges {
    /// Tokens and passwords are removed.
    hides_secrets: bool,
    /// NetBox rows get a token version, which the plugin requires.
    adds_token_version: bool,
    /// In NetBox rows, the address of this listener is replaced by the pushed one.
    listener: Option<SocketAddr>,
}

impl RowChanges {
    fn new(context: &RequestContext, path: &str, release: Release) -> Self {
        let shims = &context.state.config.shims;
        let is_netbox = row_id(path, NETBOX).is_some();
        let listener = context.backend.config().netbox.as_ref().filter(|_| is_netbox);
        Self {
            hides_secrets: shims.is_on(Shim::Secrets) && shows_secrets(release),
            adds_token_version: is_netbox && shims.is_on(Shim::NetboxEndpoint) && !can_update_netbox(release),
            listener: listener.map(|listener| context.proxy.app.listeners.netbox_address(listener.listen)),
        }
    }

    fn is_empty(&self) -> bool {
        !self.hides_secrets && !self.adds_token_version && self.listener.is_none()
    }

    async fn apply(
        &self,
        context: &RequestContext,
        path: &str,
        response: Response<Body>,
    ) -> OrResponse<Response<Body>> {
        if self.is_empty() || !response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = upstream::collect(context, response).await?;
        let Ok(mut value) = SecretJson::parse(&body) else {
            let text = "The backend's answer may contain tokens and passwords, and could not be parsed to remove them.";
            return Err(detail(StatusCode::BAD_GATEWAY, text).into());
        };
        let hidden = self.hides_secrets && redact(&mut value);
        let completed = self.adds_token_version && add_token_version(&mut value);
        let restored = self.listener.is_some_and(|address| {
            context.proxy.netbox.endpoints.restore(&context.backend, address, &mut value)
        });
        if hidden {
            count_shim(Shim::Secrets, ShimAction::Completed, path);
        }
        if completed || restored {
            count_shim(Shim::NetboxEndpoint, ShimAction::Translated, path);
        } else if !hidden {
            return Ok(upstream::rebuild(head, body));
        }
        let shim = if hidden { Shim::Secrets } else { Shim::NetboxEndpoint };
        Ok(with_shim_header(upstream::rebuild(head, value.to_body()), shim))
    }
}

/// The refusal of Proxmox endpoints for 0.0.1 and 0.0.2, which do not store any.
fn no_endpoints(release: Release, remedy: &str) -> Response<Body> {
    let text = format!(
        "{} reads its Proxmox credentials from NetBox, and today's netbox-proxbox does not return them there. Use \
         proxbox-api 0.0.4 or newer, or {remedy}.",
        release_name(Some(release))
    );
    refusal(PROXMOX, "This backend stores no Proxmox endpoints.", &text)
}

/// The refusal of a v2 token for `release`, which does not support it.
fn no_v2_token(release: Release) -> Response<Body> {
    let text = format!(
        "{} only supports v1 tokens of NetBox. Give the NetBox endpoint of the plugin a v1 token, or use proxbox-api \
         0.0.3 or newer.",
        release_name(Some(release))
    );
    refusal(NETBOX, "This backend cannot use a v2 token.", &text)
}

/// The refusal of a row for `collection`. NetBox's job shows `detail` unchanged.
fn refusal(collection: &'static str, message: &str, detail: &str) -> Response<Body> {
    let shim = if collection == NETBOX { Shim::NetboxEndpoint } else { Shim::ProxmoxEndpoints };
    count_shim(shim, ShimAction::Refused, collection);
    with_shim_header(respond::message(StatusCode::UNPROCESSABLE_ENTITY, message, detail), shim)
}

/// Deletes the row of a Proxmox endpoint that is disabled in NetBox, on a backend that cannot disable it. The plugin
/// pushes the endpoint again when it is enabled.
async fn revoke(context: &RequestContext, parts: &Parts, id: &str) -> Response<Body> {
    let target = format!("{PROXMOX}/{id}");
    let response = send(context, parts, Method::DELETE, &target, None).await;
    if !response.status().is_success() && response.status() != StatusCode::NOT_FOUND {
        return response;
    }
    count_shim(Shim::ProxmoxEndpoints, ShimAction::Translated, PROXMOX);
    let id = id.parse::<u64>().map_or_else(|_| json!(id), |id| json!(id));
    let response = respond::object(StatusCode::OK, &json!({ "id": id, "enabled": false }));
    with_shim_header(response, Shim::ProxmoxEndpoints)
}

/// Replaces the NetBox row of 0.0.2, which cannot update it. The new row is stored before the old one is deleted, so
/// that there is always one.
async fn replace_netbox(
    context: &RequestContext,
    parts: &Parts,
    id: &str,
    pushed: SecretJson,
) -> OrResponse<Response<Body>> {
    let (mut old, mut is_bound) = (None, false);
    if !id.is_empty() {
        let target = format!("{NETBOX}/{id}");
        let response = get(context, parts, &target).await;
        if !response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = upstream::collect(context, response).await?;
        let row = SecretJson::parse(&body).unwrap_or_default();
        if is_same(&row, &pushed) {
            return Ok(upstream::rebuild(head, body));
        }
        // Through the listener, the old token works until the backend is restarted.
        is_bound = context.backend.config().netbox.is_some() && is_same_address(&row, &pushed);
        old = Some(target);
    }
    let row = SecretJson::from(netbox_row(&pushed)).to_body();
    let mut unanswered = (!is_bound).then(|| HoldIfDropped::new(context));
    let stored = send(context, parts, Method::POST, NETBOX, Some(row)).await;
    if let Some(unanswered) = &mut unanswered {
        unanswered.is_answered = true;
    }
    if !stored.status().is_success() {
        return Ok(stored);
    }
    if !is_bound {
        context.proxy.restarts.hold(&context.proxy.app.registry, &context.backend).await;
    }
    count_shim(Shim::NetboxEndpoint, ShimAction::Translated, NETBOX);
    if let Some(old) = old {
        let deleted = send(context, parts, Method::DELETE, &old, None).await;
        if !deleted.status().is_success() {
            return Ok(deleted);
        }
    }
    Ok(stored)
}
