//! The keys of jobs, and of what is made up for.

use super::{Key, key, put, put_some};
use crate::config::jobs::{OnDisconnect, WithoutLedger};
use crate::config::slot::Slot;
use crate::core::compat::Shim;

pub(super) static KEYS: &[Key] = &[
    key(
        "shims.health",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Health)),
        "Whether the bridge answers /health where the backend has none, for plugins that ask for it before \
         every sync; and 503 for any backend that is not there.",
    ),
    key(
        "shims.auth",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Auth)),
        "Whether it answers /auth/bootstrap-status, /auth/register-key and /auth/keys where the backend has \
         none.",
    ),
    key(
        "shims.api_key_file",
        None,
        Slot::Path(|draft| &mut draft.shim_key_file),
        "The file with the key that is right there, in the place of one that a plugin registers, on one line. It \
         protects nothing: such a backend takes every request.",
    ),
    key(
        "shims.aliases",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Aliases)),
        "Whether it knows the two stream paths that plugin 0.0.10 asks for and no backend has.",
    ),
    key(
        "shims.version",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Version)),
        "Whether it answers /version where the backend has none, with the release that its streams tell.",
    ),
    key(
        "shims.inventory",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Inventory)),
        "Whether it answers /proxmox/firewall/summary and /proxmox/datacenter/cpu-models with empty lists \
         where the backend has neither: NetBox keeps what it has of them, and its job does not fail.",
    ),
    key(
        "shims.templates",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Templates)),
        "Whether it corrects the list of guests by which the plugin deletes VM templates, for backends \
         before 0.0.20 that give a wrong one, and refuses it where it cannot.",
    ),
    key(
        "shims.scope",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Scope)),
        "Whether it translates proxmox_endpoint_ids for backends before 0.0.8, which do not know it, refuses what \
         cannot be translated, and keeps backends before 0.0.20 from deleting the backups and snapshots of other \
         Proxmox endpoints; off lets such a sync write all of them.",
    ),
    key(
        "shims.vm_ids",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::VmIds)),
        "Whether it sends the VM stream of 0.0.5 and 0.0.6 an empty netbox_vm_ids, without which it fails.",
    ),
    key(
        "shims.options",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Options)),
        "Whether it warns of options that protect data in NetBox and that the backend does not know, and \
         refuses a sync to a branch that the backend would write to main.",
    ),
    key(
        "shims.netbox_endpoint",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::NetboxEndpoint)),
        "Whether it updates the row of NetBox in 0.0.2, which has no way to change it, and adds \
         token_version to rows without it.",
    ),
    key(
        "shims.proxmox_endpoints",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::ProxmoxEndpoints)),
        "Whether it refuses /proxmox/endpoints on 0.0.2 with the reason, or keeps them in memory where there is a \
         backend.netbox_listen, and deletes an endpoint that the plugin disables on backends before 0.0.14, which \
         cannot disable one.",
    ),
    key(
        "shims.secrets",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::Secrets)),
        "Whether it takes tokens and passwords out of the answers of backends before 0.0.7 that show them.",
    ),
    key(
        "shims.netbox_token",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::NetboxToken)),
        "Whether a v2 token that a backend sends to NetBox as Token becomes Bearer on its way through \
         backend.netbox_listen.",
    ),
    key(
        "shims.netbox_links",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::NetboxLinks)),
        "Whether the links to NetBox's API in its answers lead to backend.netbox_listen, so that backends do not \
         follow them past the bridge.",
    ),
    key(
        "shims.current_token",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::CurrentToken)),
        "Whether a token that 0.0.2 has read when it started is replaced by the one that the plugin has pushed last.",
    ),
    key(
        "shims.proxmox_credentials",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::ProxmoxCredentials)),
        "Whether the answer of NetBox in which 0.0.2 reads its Proxmox endpoints gets the secrets that the \
         plugin has pushed.",
    ),
    key(
        "shims.custom_fields",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::CustomFields)),
        "Whether the custom fields of virtual machines that 0.0.1 fails to create are created for it in NetBox.",
    ),
    key(
        "shims.nested_objects",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::NestedObjects)),
        "Whether 0.0.1 and 0.0.2 get MAC addresses, VLANs and the like from NetBox as texts, in place of objects.",
    ),
    key(
        "shims.sync_processes",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::SyncProcesses)),
        "Whether the sync-processes of 0.0.3 are kept in memory where NetBox does not have them.",
    ),
    key(
        "shims.last_updated",
        Some("on"),
        Slot::Switch(|draft| draft.shims.switch(Shim::LastUpdated)),
        "Whether the custom field proxmox_last_updated keeps its types when 0.0.5, 0.0.6 or 0.0.7 narrows it.",
    ),
    key(
        "jobs.on_disconnect",
        Some("grace"),
        Slot::Word(&OnDisconnect::WORDS, |draft, text| put(&mut draft.jobs.on_disconnect, text)),
        "What becomes of a job whose last client has gone: grace lets it go on for limits.detach_grace \
         and then cancels it, continue lets it go on to its end, cancel cancels it at once.",
    ),
    key(
        "jobs.without_ledger",
        None,
        Slot::Word(&WithoutLedger::WORDS, |draft, text| put_some(&mut draft.jobs.without_ledger, text)),
        "What becomes of new jobs while the record of jobs cannot be written: continue runs them without \
         a record until it can be, refuse answers 503. Without it they run too, but the bridge does not start on a \
         data_dir that never worked.",
    ),
    key(
        "jobs.recording",
        Some("off"),
        Slot::Switch(|draft| &mut draft.jobs.recording),
        "Whether the raw frames of the backend are kept in data_dir/recordings, for /jobs/{id}/recording; \
         on needs a data_dir.",
    ),
    key(
        "jobs.log_frames",
        Some("1000"),
        Slot::Count(|draft| &mut draft.jobs.log_frames, 1, 100_000),
        "How many of the last frames of a job the record keeps.",
    ),
];
