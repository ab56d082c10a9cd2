//! Compatibility shims: backend releases that do not support the NetBox plugin's requests beside the sync streams, and
//! how the bridge closes the gaps.
//!
//! Every rule was derived from the source of the plugin and of each release. The rules also state what an answer must
//! not contain, because the plugin deletes and overwrites NetBox objects based on some of them.

pub mod netbox;
pub mod options;
pub mod plugin;
pub mod resources;
pub mod rows;
pub mod scope;

use std::borrow::Cow;

use super::domain::kind::{Kind, SyncEndpoint};
use super::domain::release::Release;
use super::text::string_enum::string_enum;

string_enum! {
    /// A gap between the plugin's requests and a backend's answers. Each one has a key in the table `[shims]`.
    pub enum Shim {
        /// `/health`, which backends before 0.0.6 lack.
        Health = "health",
        /// `/auth/bootstrap-status`, `/auth/register-key` and `/auth/keys`, which backends before 0.0.7 lack.
        Auth = "auth",
        /// The two stream paths that plugin 0.0.10 requests and no backend has.
        Aliases = "aliases",
        /// `/version`, which backends before 0.0.6 lack.
        Version = "version",
        /// `/proxmox/firewall/summary` and `/proxmox/datacenter/cpu-models`, which old backends lack.
        Inventory = "inventory",
        /// `/proxmox/cluster/resources?type=vm`, which the plugin uses to delete VM templates.
        Templates = "templates",
        /// `proxmox_endpoint_ids`, which backends before 0.0.8 do not support.
        Scope = "scope",
        /// `netbox_vm_ids`, without which the VM stream of 0.0.5 and 0.0.6 fails.
        VmIds = "vm_ids",
        /// Sync options that a backend does not support.
        Options = "options",
        /// The NetBox row in a backend's database.
        NetboxEndpoint = "netbox_endpoint",
        /// The Proxmox rows in a backend's database.
        ProxmoxEndpoints = "proxmox_endpoints",
        /// Tokens and passwords that backends before 0.0.7 expose.
        Secrets = "secrets",
        /// The format of the tokens that old releases send to NetBox.
        NetboxToken = "netbox_token",
        /// The links in NetBox's answers.
        NetboxLinks = "netbox_links",
        /// The replaced token that 0.0.2 continues to send to NetBox.
        CurrentToken = "current_token",
        /// The Proxmox credentials that 0.0.2 reads from NetBox.
        ProxmoxCredentials = "proxmox_credentials",
        /// The custom fields that 0.0.1 fails to create in NetBox.
        CustomFields = "custom_fields",
        /// The nested objects in NetBox's answers that 0.0.1 and 0.0.2 expect as strings.
        NestedObjects = "nested_objects",
        /// The objects in NetBox in which 0.0.3 records its syncs.
        SyncProcesses = "sync_processes",
        /// The custom field that 0.0.5 to 0.0.7 restrict in NetBox.
        LastUpdated = "last_updated",
    }
}

string_enum! {
    /// How the bridge handled a request that the backend does not support as sent.
    pub enum ShimAction {
        /// The bridge answered instead of the backend.
        Emulated = "emulated",
        /// The bridge completed the backend's answer, or removed secrets from it.
        Completed = "completed",
        /// The bridge sent the request in the form that the backend supports.
        Translated = "translated",
        /// The bridge refused the request and gave the reason.
        Refused = "refused",
    }
}

impl Shim {
    /// The actions that this shim can take.
    pub const fn actions(self) -> &'static [ShimAction] {
        match self {
            Self::Health
            | Self::Auth
            | Self::Version
            | Self::Inventory
            | Self::CustomFields
            | Self::SyncProcesses => &[ShimAction::Emulated],
            Self::Aliases
            | Self::VmIds
            | Self::NetboxToken
            | Self::NetboxLinks
            | Self::CurrentToken
            | Self::NestedObjects
            | Self::LastUpdated => &[ShimAction::Translated],
            Self::Templates => &[ShimAction::Completed, ShimAction::Translated, ShimAction::Refused],
            Self::Scope | Self::NetboxEndpoint => &[ShimAction::Translated, ShimAction::Refused],
            Self::ProxmoxEndpoints => &[ShimAction::Emulated, ShimAction::Translated, ShimAction::Refused],
            Self::Options => &[ShimAction::Completed, ShimAction::Refused],
            Self::Secrets | Self::ProxmoxCredentials => &[ShimAction::Completed],
        }
    }
}

/// The releases whose VM stream fails without `netbox_vm_ids`.
const NEEDS_VM_IDS: (Release, Release) = (Release::new(0, 0, 5), Release::new(0, 0, 6));
/// A list without ids, which these releases interpret as all virtual machines.
const ALL_VMS: &str = "netbox_vm_ids=,";

/// Whether the VM stream of `release` fails without `netbox_vm_ids`: it reads a variable that is only assigned if the
/// parameter is present.
pub fn needs_vm_ids(release: Option<Release>) -> bool {
    is_within(release, NEEDS_VM_IDS)
}

/// Whether `release` is known, and from `first` to `last`, both included.
fn is_within(release: Option<Release>, (first, last): (Release, Release)) -> bool {
    release.is_some_and(|release| release >= first && release.is_up_to(last))
}

/// The query for the native stream of `endpoint`, with `netbox_vm_ids` added if `release` fails without it.
pub fn with_vm_ids(query: &str, endpoint: SyncEndpoint, release: Option<Release>) -> Option<String> {
    let concerns = endpoint == SyncEndpoint::for_kind(Kind::VirtualMachines) && needs_vm_ids(release);
    // These releases treat an empty value as absent.
    let has_ids = |(name, value): (Cow<'_, str>, Cow<'_, str>)| name == "netbox_vm_ids" && !value.is_empty();
    let is_given = scope::parameters(query).any(has_ids);
    (concerns && !is_given).then(|| scope::with_part(query, ALL_VMS))
}

/// The notice about a release that does not detect objects deleted from NetBox.
pub fn overlooks_deleted(release: Option<Release>) -> Option<String> {
    scope::is_first(release).then(|| {
        format!(
            "Notice: {} takes what it has found in NetBox since its start to be there. Restart it if some of that was deleted.",
            release_name(release)
        )
    })
}

/// The display name of a release: `proxbox-api 0.0.6.post4`, or "This backend" if unknown.
pub fn release_name(release: Option<Release>) -> String {
    release.map_or_else(|| "This backend".to_owned(), |release| format!("proxbox-api {release}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_that_0_0_1_overlooks_deleted_endpoints() {
        let warning = |release: &str| overlooks_deleted(release.parse().ok());
        assert!(warning("0.0.1").unwrap().contains("Restart it"));
        assert_eq!((warning("0.0.2"), warning("")), (None, None));
    }

    #[test]
    fn the_vm_stream_of_two_releases_is_given_an_empty_list_of_ids() {
        let vms = SyncEndpoint::for_kind(Kind::VirtualMachines);
        let rewritten = |query, release: &str| with_vm_ids(query, vms, release.parse().ok());
        assert_eq!(rewritten("a=b", "0.0.5").as_deref(), Some("a=b&netbox_vm_ids=,"));
        assert_eq!(rewritten("", "0.0.6.post4").as_deref(), Some("netbox_vm_ids=,"));
        assert_eq!(rewritten("netbox_vm_ids=3", "0.0.6"), None, "it has been given some");
        assert_eq!(rewritten("netbox_vm_ids=", "0.0.6").as_deref(), Some("netbox_vm_ids=&netbox_vm_ids=,"));
        assert_eq!(rewritten("", "0.0.4"), None);
        assert_eq!(rewritten("", "0.0.7"), None);
        assert_eq!(with_vm_ids("", vms, None), None);
        assert_eq!(with_vm_ids("", SyncEndpoint::for_kind(Kind::Devices), "0.0.6".parse().ok()), None);
    }
}
