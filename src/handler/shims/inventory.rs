//! What the plugin reads at the beginning of a job and old backends do not have: firewalls and CPU models.

use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use super::super::front::Visit;
use super::super::{Bridge, key_of, passthrough};
use super::{emulated, is_bare_404};
use crate::core::compat::Shim;
use crate::respond::Body;

/// An empty list in answer to these touches nothing in NetBox. Any other would mark what it does not name.
const PATHS: [&str; 2] = ["/proxmox/firewall/summary", "/proxmox/datacenter/cpu-models"];

/// Whether the request is one of these.
pub(super) fn concerns(method: &Method, path: &str) -> bool {
    method == Method::GET && PATHS.contains(&path)
}

/// The backend's answer, or an empty list if it knows no such path.
pub(super) async fn answer(bridge: &Bridge, visit: &Visit, parts: Parts, body: Incoming) -> Response<Body> {
    let (key, path) = (key_of(&parts.headers), parts.uri.path().to_owned());
    let response = passthrough::answer(bridge, visit, parts, body).await;
    let is_on = visit.state.config.shims.is_on(Shim::Inventory);
    let (response, is_missing) = match response.status() {
        StatusCode::NOT_FOUND if is_on => is_bare_404(response).await,
        _ => (response, false),
    };
    bridge.registry.begins_job(&visit.backend, key.as_ref(), visit.forwarded.client, is_missing);
    if is_missing { emulated(Shim::Inventory, &path, &serde_json::json!([])) } else { response }
}
