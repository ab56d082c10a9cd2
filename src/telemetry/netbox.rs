//! Events on the NetBox listeners, between backends and NetBox.

use super::backend::BackendMetrics;
use super::metrics::{METRICS, NetboxRule, ShimLabel};
use crate::core::compat::{Shim, ShimAction};

/// A rule that changed a request of a backend to NetBox, or its answer.
#[derive(Clone, Copy, Debug)]
pub struct RuleApplied {
    /// The rule.
    pub shim: Shim,
    /// Its action.
    pub action: ShimAction,
    /// Whether this is the first request of the backend that it changed since the bridge started.
    pub is_first: bool,
}

/// A request of a backend to NetBox was answered.
#[derive(Debug)]
pub struct NetboxRequestAnswered<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The rules that changed the request or its answer, each once.
    pub rules: &'a [RuleApplied],
}

impl NetboxRequestAnswered<'_> {
    /// Writes a log line for each rule and updates the metrics. The first request that a rule changes is logged at
    /// info, later ones at debug.
    pub fn emit(self) {
        let Self { backend, method, path, rules } = self;
        if rules.is_empty() {
            backend.netbox_request(None);
        }
        for RuleApplied { shim, action, is_first } in rules.iter().copied() {
            METRICS.front.shims.get(ShimLabel { shim, action }).inc();
            backend.netbox_request(Some(NetboxRule(shim)));
            let (backend, rule, action) = (backend.name(), shim.as_str(), action.as_str());
            if is_first {
                tracing::info!(
                    backend,
                    rule,
                    action,
                    method,
                    path,
                    "First request to NetBox changed by this rule."
                );
            } else {
                tracing::debug!(backend, rule, action, method, path, "Request to NetBox changed.");
            }
        }
    }
}
