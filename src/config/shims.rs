//! What the bridge does where a backend falls short of what the NetBox plugin asks for.

use super::backend::Backend;
use crate::core::compat::Shim;
use crate::core::compat::plugin::{ListenerAddress, Settings};
use crate::core::domain::credential::ApiKey;

/// The table `[shims]`. Each of them acts only where the backend lacks what it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shims {
    on: [bool; Shim::ALL.len()],
    /// The key that is right where the backend knows none, in the place of one that a plugin registers, read
    /// from the file `shims.api_key_file`.
    pub api_key: Option<ApiKey>,
}

impl Shims {
    /// Whether `shim` is on.
    pub const fn is_on(&self, shim: Shim) -> bool {
        self.on[shim as usize]
    }

    /// What is chosen here and for `backend`, as far as it decides about a job of the plugin.
    pub fn settings(&self, backend: &Backend) -> Settings {
        Settings {
            on: self.on,
            unsupported: backend.unsupported,
            channel: backend.channel,
            netbox_listener: backend.netbox.as_ref().map(|netbox| ListenerAddress {
                port: netbox.listen.port(),
                speaks_tls: netbox.tls.is_some(),
            }),
        }
    }

    /// The switch of `shim`.
    pub(super) const fn switch(&mut self, shim: Shim) -> &mut bool {
        &mut self.on[shim as usize]
    }
}
