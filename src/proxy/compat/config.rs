//! The configuration of a guest. Without it the plugin neither creates nor updates a VM template.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use super::upstream::{self, get};
use super::{count_shim, with_shim_header};
use crate::core::compat::resources::{config, refuses_config};
use crate::core::compat::scope::{endpoint_ids, with_parameter};
use crate::core::compat::{Shim, ShimAction};
use crate::core::domain::release::Release;
use crate::proxy::request::RequestContext;
use crate::respond::{self, Body};

/// The path of the Proxmox API in backends that have it.
const PROXMOX: &str = "/proxmox/api2/latest/nodes";
/// The parts of a path before and after the node, kind and number of a guest.
const PLACE: (&str, &str) = ("/proxmox/", "/config");

/// The guest whose configuration is requested: `NODE/KIND/NUMBER`.
pub(super) fn match_path<'a>(method: &Method, path: &'a str) -> Option<&'a str> {
    let guest = path.strip_prefix(PLACE.0)?.strip_suffix(PLACE.1)?;
    let mut parts = guest.split('/');
    let is_guest = parts.next().is_some_and(|node| !node.is_empty())
        && matches!(parts.next(), Some("qemu" | "lxc"))
        && parts.next().is_some_and(|number| number.parse::<u64>().is_ok())
        && parts.next().is_none();
    (method == Method::GET && is_guest).then_some(guest)
}

/// The backend's response or, if it fails because of an unknown key, the configuration from the Proxmox API.
pub(super) async fn answer(
    context: &RequestContext,
    request: Request<Incoming>,
    guest: &str,
    release: Release,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let response = upstream::forward(context, &parts, body).await;
    let is_on = context.state.config.shims.is_on(Shim::Templates);
    if !is_on || !refuses_config(release) || response.status() != StatusCode::INTERNAL_SERVER_ERROR {
        return response;
    }
    match read_from_proxmox(context, &parts, guest).await {
        Some(config) => {
            count_shim(Shim::Templates, ShimAction::Translated, parts.uri.path());
            let body = Bytes::from(config.to_string());
            with_shim_header(respond::json(StatusCode::OK, body), Shim::Templates)
        }
        None => response,
    }
}

async fn read_from_proxmox(context: &RequestContext, parts: &Parts, guest: &str) -> Option<Value> {
    let ids = endpoint_ids(parts.uri.query().unwrap_or_default()).ok()?;
    let mut query = "source=database".to_owned();
    // This API selects endpoints by name. Without an id there is one endpoint, or the backend refuses.
    if let Some([id]) = ids.as_deref() {
        let row = read(context, parts, &format!("/proxmox/endpoints/{id}")).await?;
        let row: Value = serde_json::from_slice(&row).ok()?;
        query = with_parameter(&query, "target_name", row["name"].as_str()?);
    }
    config(&read(context, parts, &format!("{PROXMOX}/{guest}/config?{query}")).await?)
}

/// The backend's response to `target`, if it is successful.
async fn read(context: &RequestContext, parts: &Parts, target: &str) -> Option<Bytes> {
    let response = get(context, parts, target).await;
    let is_success = response.status().is_success();
    let (_, body) = upstream::collect(context, response).await.ok()?;
    is_success.then_some(body)
}
