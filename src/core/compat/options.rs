//! Sync options that protect manual edits in NetBox, and releases that ignore them.

use super::scope::parameters;
use crate::core::domain::channel::Channel;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::release::Release;
use crate::core::run::plan::RunPlan;

/// The option for the NetBox branch that a sync writes to.
const BRANCH: &str = "netbox_branch_schema_id";
/// The first release whose full update supports branches. No release supports them in the stream of a single stage.
const FIRST_WITH_BRANCH: Release = Release::new(0, 0, 11);

/// The options that releases from the given one on support. A missing option defaults to `true` or `always`, which is
/// also the fixed behaviour of older releases.
const KNOWN_FROM: [(Release, &[&str]); 5] = [
    (
        Release::new(0, 0, 9),
        &[
            "overwrite_device_role", "overwrite_device_tags", "overwrite_device_type", "overwrite_vm_role",
            "overwrite_vm_tags",
        ],
    ),
    (
        Release::new(0, 0, 9).post(1),
        &[
            "overwrite_cluster_custom_fields",
            "overwrite_cluster_description",
            "overwrite_cluster_tags",
            "overwrite_device_custom_fields",
            "overwrite_device_description",
            "overwrite_device_status",
            "overwrite_ip_custom_fields",
            "overwrite_ip_status",
            "overwrite_ip_tags",
            "overwrite_node_interface_custom_fields",
            "overwrite_node_interface_tags",
            "overwrite_storage_tags",
            "overwrite_vm_custom_fields",
            "overwrite_vm_description",
            "overwrite_vm_interface_custom_fields",
            "overwrite_vm_interface_tags",
        ],
    ),
    (Release::new(0, 0, 10), &["overwrite_vm_type"]),
    (
        Release::new(0, 0, 11),
        &["overwrite_ip_address_dns_name", "overwrite_vm_cloudinit", "overwrite_vm_proxmox_tags"],
    ),
    (Release::new(0, 0, 18), &["sync_mode_vm", "sync_mode_vm_template"]),
];

/// The maximum number of options named in a message; the others are counted. A step has at most 600 characters.
const MAX_NAMED: usize = 8;

/// The protective options in `query` that `release` does not support, as written there.
pub fn ignored(query: &str, release: Release) -> Vec<String> {
    let is_unknown =
        |name: &str| KNOWN_FROM.iter().any(|(first, names)| release < *first && names.contains(&name));
    let protects = |name: &str, value: &str| match value {
        "false" | "0" => name.starts_with("overwrite_"),
        "bootstrap_only" | "disabled" => name.starts_with("sync_mode_"),
        _ => false,
    };
    parameters(query)
        .filter(|(name, value)| protects(name, value) && is_unknown(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The notice about options that `release` ignores.
pub fn notice(ignored: &[String], release: Release) -> Option<String> {
    let named = ignored.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match ignored.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!ignored.is_empty()).then(|| {
        format!(
            "Warning: proxbox-api {release} does not know {named}{more}. It overwrites what they protect."
        )
    })
}

/// Why the sync of `plan` cannot be run with `query`: it names a branch, and the backend would write to the main one.
/// Only the native stream of a full update supports branches.
pub fn loses_branch(query: &str, plan: &RunPlan, release: Option<Release>) -> Option<String> {
    let takes_it = match plan.legs.as_slice() {
        [leg] => leg.channel == Channel::Native && leg.endpoint.kind == Kind::FullUpdate && knows(release),
        _ => false,
    };
    (!takes_it).then(|| branch(query)).flatten()
}

/// The same for a request to `path` that is not a stream, if it makes the backend write to NetBox.
pub fn loses_branch_at(path: &str, query: &str, release: Option<Release>) -> Option<String> {
    let is_sync = Kind::all().any(|kind| SyncEndpoint::for_kind(kind).json_path() == path);
    let writes = is_sync || path.starts_with(INDIVIDUAL) || path == SOCKET_OF_VMS;
    let takes_it = TAKE_IT.contains(&path) && knows(release);
    (writes && !takes_it).then(|| branch(query)).flatten()
}

/// The paths of syncs of single objects, and the WebSocket that starts a sync immediately.
const INDIVIDUAL: &str = "/sync/individual/";
const SOCKET_OF_VMS: &str = "/ws/virtual-machines";
const TAKE_IT: [&str; 2] = ["/full-update", "/sync/individual/cluster"];

fn knows(release: Option<Release>) -> bool {
    release.is_some_and(|release| release >= FIRST_WITH_BRANCH)
}

/// Whether `query` names a branch.
pub fn has_branch(query: &str) -> bool {
    parameters(query).any(|(name, value)| name == BRANCH && !value.is_empty())
}

fn branch(query: &str) -> Option<String> {
    let (_, branch) = parameters(query).find(|(name, value)| name == BRANCH && !value.is_empty())?;
    Some(format!(
        "It is to write to the NetBox branch {branch:?}, and the backend does not take {BRANCH} here: it would write to \
         main. Run it without a branch, or use {} of proxbox-api {FIRST_WITH_BRANCH} or newer.",
        Kind::FullUpdate.row().stream_path
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::run::plan::Leg;

    #[test]
    fn what_protects_data_and_is_not_known_is_named() {
        let query = "overwrite_vm_tags=false&overwrite_vm_role=true&overwrite_vm_platform=false&\
                     sync_mode_vm=bootstrap_only&sync_mode_sdn=disabled&overwrite_vm_type=false";
        let of = |release: &str| ignored(query, release.parse().unwrap());
        assert_eq!(
            of("0.0.6"),
            ["overwrite_vm_tags=false", "sync_mode_vm=bootstrap_only", "overwrite_vm_type=false"]
        );
        let query = "overwrite_vm_tags=false&overwrite_vm_description=false";
        assert_eq!(ignored(query, "0.0.9".parse().unwrap()), ["overwrite_vm_description=false"]);
        assert_eq!(of("0.0.9.post2"), ["sync_mode_vm=bootstrap_only", "overwrite_vm_type=false"]);
        assert_eq!(of("0.0.11"), ["sync_mode_vm=bootstrap_only"]);
        assert!(of("0.0.19.post5").is_empty());
        let notice_text = notice(&of("0.0.6"), "0.0.6".parse().unwrap()).unwrap();
        assert!(
            notice_text
                .contains("overwrite_vm_tags=false, sync_mode_vm=bootstrap_only, overwrite_vm_type=false.")
        );
        assert_eq!(notice(&[], "0.0.6".parse().unwrap()), None);
    }

    #[test]
    fn a_notice_fits_into_a_step_whatever_is_protected() {
        let names = KNOWN_FROM.iter().flat_map(|(_, names)| *names);
        let query: Vec<String> = names
            .map(|name| {
                let value = if name.starts_with("sync") { "bootstrap_only" } else { "false" };
                format!("{name}={value}")
            })
            .collect();
        let release = "0.0.2.post1".parse().unwrap();
        let notice_text = notice(&ignored(&query.join("&"), release), release).unwrap();
        assert!(
            notice_text.len() < 500 && notice_text.contains(" more"),
            "{}: {notice_text}",
            notice_text.len()
        );
    }

    #[test]
    fn a_branch_is_only_for_the_full_update_of_those_that_know_it() {
        let branch = "a=b&netbox_branch_schema_id=td5smq0f";
        let lost = |query, kind, channel, release: &str| {
            let endpoint = SyncEndpoint::for_kind(kind);
            let leg = Leg { endpoint, kinds: vec![kind], channel, command: None };
            let plan = RunPlan { legs: vec![leg], skipped: Vec::new() };
            loses_branch(query, &plan, release.parse().ok()).is_some()
        };
        assert!(lost(branch, Kind::Devices, Channel::Native, "0.0.30.post2"));
        assert!(lost(branch, Kind::FullUpdate, Channel::Native, "0.0.10"));
        assert!(lost(branch, Kind::FullUpdate, Channel::Websocket, "0.0.30"), "no option reaches it");
        assert!(lost(branch, Kind::FullUpdate, Channel::Native, "not known"));
        assert!(!lost(branch, Kind::FullUpdate, Channel::Native, "0.0.11"));
        assert!(!lost("netbox_branch_schema_id=", Kind::Devices, Channel::Native, "0.0.30"));

        let lost_at = |path, release: &str| loses_branch_at(path, branch, release.parse().ok()).is_some();
        for path in ["/sync/individual/vm", "/dcim/devices/create", "/ws/virtual-machines"] {
            assert!(lost_at(path, "0.0.30"), "{path}");
        }
        assert!(
            !lost_at("/sync/individual/cluster", "0.0.11") && lost_at("/sync/individual/cluster", "0.0.10")
        );
        assert!(!lost_at("/full-update", "0.0.11") && lost_at("/full-update", "not known"));
        assert!(!lost_at("/proxmox/cluster/status", "0.0.4"), "it writes nothing");
    }
}
