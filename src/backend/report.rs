//! What a backend reports before a sync: the guests of its Proxmox clusters, and whether it is busy.

use serde_json::Value;

use super::{Backend, RequestIdentity};
use crate::core::domain::outcome::Cause;
use crate::telemetry;

/// The path at which every release lists the resources of its clusters.
const RESOURCES: &str = "/proxmox/cluster/resources";
/// The path at which 0.0.2 clears its cache of NetBox objects.
const CLEAR_CACHE: &str = "/clear-cache";
/// The path at which releases since 0.0.11 report whether a full update runs.
const ACTIVE: &str = "/sync/active";

impl Backend {
    /// The names of the virtual machines and containers in the clusters that `query` selects. Empty if the backend
    /// does not list them, or lists one without a name.
    pub async fn guests(&self, query: &str, identity: &RequestIdentity) -> Vec<String> {
        let target = if query.is_empty() { RESOURCES.to_owned() } else { format!("{RESOURCES}?{query}") };
        let answer = self.get_json(&target, identity).await.ok().flatten();
        answer.and_then(|answer| names(&answer)).unwrap_or_default()
    }

    /// Clears the cache of 0.0.2, which would otherwise treat objects deleted from NetBox as present.
    pub async fn clear_cache(&self, identity: &RequestIdentity) {
        // If it fails, the sync that follows reports the cause.
        let _ = self.get_json(CLEAR_CACHE, identity).await;
    }

    /// Returns whether the backend may be running a full update. An unreadable response counts as yes; a refusal, or
    /// no response, counts as no.
    pub async fn reports_full_update(&self, identity: &RequestIdentity) -> bool {
        match self.get_json(ACTIVE, identity).await {
            Ok(answer) => answer.is_some_and(|answer| answer["active"] == true),
            Err(refusal) if refusal.cause == Cause::BackendLost => {
                telemetry::ReportUnreadable { path: ACTIVE, refusal: &refusal }.emit();
                true
            }
            Err(_) => false,
        }
    }
}

/// The names in a list of clusters, each an object that maps its name to a list of resources.
fn names(clusters: &Value) -> Option<Vec<String>> {
    let clusters =
        clusters.as_array()?.iter().filter_map(Value::as_object).flat_map(|cluster| cluster.values());
    let resources = clusters.filter_map(Value::as_array).flatten();
    let guests = resources.filter(|resource| matches!(resource["type"].as_str(), Some("qemu" | "lxc")));
    guests.map(|guest| guest["name"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn guests_of_all_clusters_are_listed_and_nothing_else() {
        let node = json!({"type": "node", "name": null});
        let lab = json!({"lab": [{"type": "qemu", "name": "web01"}, node, {"type": "lxc", "name": "dns01"}]});
        let north = json!({"north": [{"type": "qemu", "name": "web01"}]});
        let listed = names(&json!([lab, north])).unwrap();
        assert_eq!(listed, ["web01", "dns01", "web01"]);
        assert_eq!(names(&json!([{"lab": [{"type": "qemu", "name": null}]}])), None);
        assert_eq!(names(&json!({"detail": "Not Found"})), None);
    }
}
