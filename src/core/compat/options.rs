//! Options of a sync by which NetBox protects what people have written there, and releases that ignore them.

use super::scope::parameters;
use crate::core::kind::{Endpoint, Kind};
use crate::core::release::Release;

/// The branch of NetBox that a sync is to write to.
const BRANCH: &str = "netbox_branch_schema_id";
/// The first release whose full update knows branches. No release has a stream of a single stage that does.
const FIRST_WITH_BRANCH: Release = Release::new(0, 0, 11);

/// What releases from the given one on know. They take `true` and `always` for what is not said, which is what
/// older ones do whatever is said.
const KNOWN_FROM: [(Release, &[&str]); 4] = [
    (
        Release::new(0, 0, 9),
        &[
            "overwrite_cluster_custom_fields",
            "overwrite_cluster_description",
            "overwrite_cluster_tags",
            "overwrite_device_custom_fields",
            "overwrite_device_description",
            "overwrite_device_role",
            "overwrite_device_status",
            "overwrite_device_tags",
            "overwrite_device_type",
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
            "overwrite_vm_role",
            "overwrite_vm_tags",
        ],
    ),
    (Release::new(0, 0, 10), &["overwrite_vm_type"]),
    (
        Release::new(0, 0, 11),
        &["overwrite_ip_address_dns_name", "overwrite_vm_cloudinit", "overwrite_vm_proxmox_tags"],
    ),
    (Release::new(0, 0, 18), &["sync_mode_vm", "sync_mode_vm_template"]),
];

/// How many options are named before the rest is counted: a step has 600 characters.
const NAMED: usize = 8;

/// The options in `query` that protect something and that `release` does not know, as they are written there.
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

/// What readers are told of options that `release` ignores.
pub fn notice(ignored: &[String], release: Release) -> Option<String> {
    let named = ignored.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match ignored.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!ignored.is_empty()).then(|| {
        format!(
            "Warning: proxbox-api {release} does not know {named}{more}. It overwrites what they protect."
        )
    })
}

/// Why `query` cannot be passed on to the stream of `endpoint`: it names a branch, and the backend would write to
/// the main one.
pub fn loses_branch(query: &str, endpoint: Endpoint, release: Option<Release>) -> Option<String> {
    let knows =
        endpoint.kind == Kind::FullUpdate && release.is_none_or(|release| release >= FIRST_WITH_BRANCH);
    let (_, branch) = parameters(query).find(|(name, value)| name == BRANCH && !value.is_empty())?;
    (!knows).then(|| {
        format!(
            "The sync is to write to the NetBox branch {branch:?}, and no release of proxbox-api takes \
             {BRANCH} on this stream: it would write to main. Run it without a branch, or use \
             {full} of proxbox-api {FIRST_WITH_BRANCH} or newer.",
            full = Kind::FullUpdate.row().stream_path
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protects_data_and_is_not_known_is_named() {
        let query = "overwrite_vm_tags=false&overwrite_vm_role=true&overwrite_vm_platform=false&\
                     sync_mode_vm=bootstrap_only&sync_mode_sdn=disabled&overwrite_vm_type=false";
        let of = |release: &str| ignored(query, release.parse().unwrap());
        assert_eq!(
            of("0.0.6"),
            ["overwrite_vm_tags=false", "sync_mode_vm=bootstrap_only", "overwrite_vm_type=false"]
        );
        assert_eq!(of("0.0.9.post2"), ["sync_mode_vm=bootstrap_only", "overwrite_vm_type=false"]);
        assert_eq!(of("0.0.11"), ["sync_mode_vm=bootstrap_only"]);
        assert!(of("0.0.19.post5").is_empty());
        let told = notice(&of("0.0.6"), "0.0.6".parse().unwrap()).unwrap();
        assert!(
            told.contains("overwrite_vm_tags=false, sync_mode_vm=bootstrap_only, overwrite_vm_type=false.")
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
        let told = notice(&ignored(&query.join("&"), release), release).unwrap();
        assert!(told.len() < 500 && told.contains(" more"), "{}: {told}", told.len());
    }

    #[test]
    fn a_branch_is_only_for_the_full_update_of_those_that_know_it() {
        let lost = |query, kind, release: &str| {
            loses_branch(query, Endpoint::of(kind), release.parse().ok()).is_some()
        };
        let query = "a=b&netbox_branch_schema_id=td5smq0f";
        assert!(lost(query, Kind::Devices, "0.0.30.post2"));
        assert!(lost(query, Kind::FullUpdate, "0.0.10"));
        assert!(!lost(query, Kind::FullUpdate, "0.0.11"));
        assert!(!lost("netbox_branch_schema_id=", Kind::Devices, "0.0.30"));
    }
}
