//! The NetBox listener of a backend, as `GET /backends` shows it. Nothing of it is secret.

use serde::Serialize;

use crate::backend::Backend;
use crate::core::compat::Shim;
use crate::core::compat::netbox::RULES;
use crate::core::compat::rows::stores_proxmox;
use crate::proxy::Proxy;

/// The listener of a backend. What is not known is `null`.
#[derive(Serialize)]
pub(super) struct NetboxListenerObject {
    /// Where it listens.
    address: String,
    netbox: Option<NetboxObject>,
    /// Why requests do not reach NetBox.
    problem: Option<String>,
    /// When NetBox last answered a request of the backend through it, or could not.
    last_request: Option<String>,
    /// Why no sync runs until the backend has bound its NetBox session to the listener.
    held: Option<String>,
    /// `null` if the backend stores its Proxmox endpoints itself.
    proxmox_endpoints: Option<ProxmoxEndpointsObject>,
    /// The requests since the bridge started, by the rule that changed them.
    requests: Vec<RuleObject>,
}

/// Where NetBox is.
#[derive(Serialize)]
struct NetboxObject {
    url: String,
    /// `configured` (backend.netbox_url), or `pushed` by the plugin.
    source: &'static str,
}

/// The Proxmox endpoints that the plugin has pushed.
#[derive(Serialize)]
struct ProxmoxEndpointsObject {
    count: usize,
    /// The names of those that are enabled and have neither a password nor a token.
    without_secrets: Vec<String>,
}

#[derive(Serialize)]
struct RuleObject {
    /// The key of `[shims]` that turns it off; `null` counts the requests that no rule changed.
    rule: Option<&'static str>,
    count: u64,
}

impl NetboxListenerObject {
    /// The listener of `backend`, if it has one.
    pub(super) async fn from_backend(proxy: &Proxy, backend: &Backend) -> Option<Self> {
        let listener = backend.config().netbox.as_ref()?;
        let target = proxy.netbox.endpoints.target(backend.config());
        let source = if listener.url.is_some() { "configured" } else { "pushed" };
        let activity = proxy.netbox.activity(backend);
        let rules = RULES.iter().map(|rule| (Some(rule.shim), activity.changed.get(&rule.shim).copied()));
        let all = std::iter::once((None, Some(activity.unchanged))).chain(rules);
        let lacks_store =
            backend.cached_capabilities().release.is_some_and(|release| !stores_proxmox(release));
        Some(Self {
            address: proxy.app.listeners.netbox_address(listener.listen).to_string(),
            problem: match &target {
                Ok(_) => proxy.netbox.last_error(backend),
                Err(reason) => Some(reason.clone()),
            },
            netbox: target.ok().map(|target| NetboxObject { url: target.url.to_string(), source }),
            last_request: activity.last.map(|last| last.to_string()),
            held: proxy.app.registry.resolve_blocked(backend).await,
            proxmox_endpoints: lacks_store.then(|| ProxmoxEndpointsObject {
                count: backend.proxmox.count(),
                without_secrets: backend.proxmox.without_secrets(),
            }),
            requests: all.map(RuleObject::from_count).collect(),
        })
    }
}

impl RuleObject {
    fn from_count((rule, count): (Option<Shim>, Option<u64>)) -> Self {
        Self { rule: rule.map(Shim::as_str), count: count.unwrap_or_default() }
    }
}
