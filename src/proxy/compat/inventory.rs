//! Inventories that the plugin reads at the start of a job and old backends lack: firewalls and CPU models.

use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use super::{emulated, is_bare_404, upstream};
use crate::core::compat::Shim;
use crate::core::compat::plugin::Inventory;
use crate::proxy::credentials::request_key;
use crate::proxy::request::RequestContext;
use crate::respond::Body;

/// The inventory that the request reads, if it does.
pub(super) fn match_path(method: &Method, path: &str) -> Option<Inventory> {
    let is_asked = |inventory: &Inventory| method == Method::GET && inventory.path() == path;
    Inventory::ALL.into_iter().find(is_asked)
}

/// The backend's response, or an empty list if it does not know the path. An empty list changes nothing in NetBox;
/// any other would mark the objects that it omits.
pub(super) async fn answer(
    context: &RequestContext,
    parts: Parts,
    body: Incoming,
    inventory: Inventory,
) -> Response<Body> {
    let key = request_key(&parts.headers);
    let is_on = context.state.config.shims.is_on(Shim::Inventory);
    let response = upstream::forward(context, &parts, body).await;
    let (response, is_missing) = match response.status() {
        StatusCode::NOT_FOUND if is_on => is_bare_404(context, response).await,
        _ => (response, false),
    };
    let (registry, backend) = (&context.proxy.app.registry, &context.backend);
    let (key, client) = (key.as_ref(), context.forwarded.client);
    if is_missing {
        registry.begins_job(backend, key, client);
        registry.note_missing(backend, key, client, inventory);
        return emulated(Shim::Inventory, inventory.path(), &serde_json::json!([]));
    }
    // A refused client starts no job.
    if response.status().is_success() {
        registry.begins_job(backend, key, client);
        registry.note_read(backend, key, client, inventory);
    }
    response
}
