//! What the bridge does where a backend lacks something that the NetBox plugin needs.

use std::path::PathBuf;

use super::backend::BackendConfig;
use super::key::{Table, keys};
use crate::core::compat::Shim;
use crate::core::compat::netbox::ListenerAddress;
use crate::core::compat::plugin::ForecastSettings;
use crate::core::domain::credential::ApiKey;

keys! {
    /// The keys `shims.*`: a switch for each [`Shim`], and the file with the key.
    pub(super) struct ShimKeys in "shims." {
        /// Answers `/health` where the backend has no such endpoint, for plugins that request it before every sync, and
        /// answers it with 503 for every backend that is unreachable.
        health: bool = true;
        /// Answers `/auth/bootstrap-status`, `/auth/register-key` and `/auth/keys` where the backend has none of them.
        auth: bool = true;
        /// File with the key that is valid on such a backend, on one line, instead of a key that the plugin registers.
        /// It protects nothing: such a backend accepts every request.
        api_key_file: Option<PathBuf> = None;
        /// Accepts the two stream paths that plugin 0.0.10 requests and no backend has.
        aliases: bool = true;
        /// Answers `/version` where the backend has no such endpoint, with the release that its streams imply.
        version: bool = true;
        /// Answers `/proxmox/firewall/summary` and `/proxmox/datacenter/cpu-models` with empty lists where the backend
        /// has neither: NetBox keeps its objects, and its job does not fail.
        inventory: bool = true;
        /// Corrects the list of guests by which the plugin deletes VM templates, for backends before 0.0.20 that return
        /// a wrong one, and refuses the request where it cannot.
        templates: bool = true;
        /// Translates `proxmox_endpoint_ids` for backends before 0.0.8, which do not know it, refuses what cannot be
        /// translated, and keeps backends before 0.0.20 from deleting backups and snapshots of other Proxmox endpoints;
        /// `off` lets such a sync write to all endpoints.
        scope: bool = true;
        /// Sends an empty `netbox_vm_ids` to the VM stream of 0.0.5 and 0.0.6, which fails without it.
        vm_ids: bool = true;
        /// Warns of options that protect data in NetBox and that the backend does not know, and refuses a sync to a
        /// branch that the backend would write to main.
        options: bool = true;
        /// Updates the NetBox endpoint of 0.0.2, which cannot change it, and adds `token_version` to endpoints without
        /// it.
        netbox_endpoint: bool = true;
        /// Refuses `/proxmox/endpoints` on 0.0.2 with the reason, or keeps the endpoints in memory where there is a
        /// `backend.netbox_listen`; deletes an endpoint that the plugin disables on backends before 0.0.14, which
        /// cannot disable one.
        proxmox_endpoints: bool = true;
        /// Removes tokens and passwords from the answers of backends before 0.0.7, which show them.
        secrets: bool = true;
        /// Changes `Token` to `Bearer` for a v2 token that a backend sends to NetBox through `backend.netbox_listen`.
        netbox_token: bool = true;
        /// Makes the links to NetBox's API in its answers lead to `backend.netbox_listen`, so that backends do not follow
        /// them past the bridge.
        netbox_links: bool = true;
        /// Replaces a token that 0.0.2 has read when it started by the one that the plugin has pushed last.
        current_token: bool = true;
        /// Adds the secrets that the plugin has pushed to the answer in which 0.0.2 reads its Proxmox endpoints from
        /// NetBox.
        proxmox_credentials: bool = true;
        /// Creates in NetBox the custom fields of virtual machines that 0.0.1 fails to create.
        custom_fields: bool = true;
        /// Gives 0.0.1 and 0.0.2 MAC addresses, VLANs and the like from NetBox as texts instead of objects.
        nested_objects: bool = true;
        /// Keeps the sync-processes of 0.0.3 in memory where NetBox does not have them.
        sync_processes: bool = true;
        /// Keeps the types of the custom field `proxmox_last_updated` when 0.0.5, 0.0.6 or 0.0.7 narrows it.
        last_updated: bool = true;
    }
}

/// The table `[shims]`. Each of them acts only where the backend lacks what it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShimsConfig {
    on: [bool; Shim::ALL.len()],
    /// The key of `shims.api_key_file`.
    pub api_key: Option<ApiKey>,
}

impl ShimsConfig {
    pub(super) fn new(keys: &ShimKeys, api_key: Option<ApiKey>) -> Self {
        let is_on = |shim: Shim| keys.get(&format!("shims.{shim}")).is_some_and(|text| text == "on");
        Self { on: Shim::ALL.map(is_on), api_key }
    }

    /// Whether `shim` is on.
    pub const fn is_on(&self, shim: Shim) -> bool {
        self.on[shim as usize]
    }

    /// The settings, here and for `backend`, that matter to a job of the plugin.
    pub fn settings(&self, backend: &BackendConfig) -> ForecastSettings {
        ForecastSettings {
            on: self.on,
            unsupported: backend.unsupported,
            channel: backend.channel,
            netbox_listener: backend.netbox.as_ref().map(|netbox| ListenerAddress {
                port: netbox.listen.port(),
                speaks_tls: netbox.tls.is_some(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shim_has_a_switch() {
        let keys = ShimKeys::default();
        let on = |name: &str, keys: &ShimKeys| ShimsConfig::new(keys, None).is_on(name.parse().unwrap());
        for shim in Shim::ALL {
            let mut off = keys.clone();
            assert!(on(shim.as_str(), &keys), "{shim}");
            off.set(&format!("shims.{shim}"), "off").unwrap().unwrap();
            assert!(!on(shim.as_str(), &off), "{shim}");
        }
        assert_eq!(ShimKeys::KEYS.len(), Shim::ALL.len() + 1);
    }
}
