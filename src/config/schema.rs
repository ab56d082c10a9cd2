//! All keys, and their values while the configuration is put together.

use super::backend::BackendKeys;
use super::jobs::Jobs;
use super::key::{ConfigKey, Table};
use super::limits::Limits;
use super::netbox::NetboxKeys;
use super::notify::NotifyKeys;
use super::shims::ShimKeys;
use super::value::ValueError;
use super::{BridgeKeys, TlsKeys};

/// Every key, in the order of the documentation.
pub fn keys() -> impl Iterator<Item = &'static ConfigKey> {
    [
        BridgeKeys::KEYS,
        TlsKeys::KEYS,
        BackendKeys::KEYS,
        NetboxKeys::KEYS,
        ShimKeys::KEYS,
        Jobs::KEYS,
        Limits::KEYS,
        NotifyKeys::KEYS,
    ]
    .into_iter()
    .flatten()
}

/// The value of every key; the default ones at first.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    pub(super) bridge: BridgeKeys,
    pub(super) tls: TlsKeys,
    pub(super) backend: BackendKeys,
    pub(super) netbox: NetboxKeys,
    pub(super) shims: ShimKeys,
    pub(super) jobs: Jobs,
    pub(super) limits: Limits,
    pub(super) notify: NotifyKeys,
}

impl Values {
    /// Sets `key`. A refused text changes nothing.
    pub(super) fn set(&mut self, key: &ConfigKey, text: &str) -> Result<(), ValueError> {
        let Self { bridge, tls, backend, netbox, shims, jobs, limits, notify } = self;
        let tables: [&mut dyn Table; 8] = [bridge, tls, backend, netbox, shims, jobs, limits, notify];
        tables.into_iter().find_map(|table| table.set(key.name, text)).unwrap_or(Err(ValueError::NotAllowed))
    }

    /// The value of the key of this name, as a variable would set it; `None` if it is not set.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let Self { bridge, tls, backend, netbox, shims, jobs, limits, notify } = self;
        let tables: [&dyn Table; 8] = [bridge, tls, backend, netbox, shims, jobs, limits, notify];
        tables.into_iter().find_map(|table| table.get(name))
    }

    /// The keys whose change needs a restart, with their values.
    pub(super) fn needing_restart(&self) -> Vec<(&'static str, String)> {
        let value = |name| self.get(name).unwrap_or_else(|| "none".to_owned());
        keys().filter(|key| key.needs_restart).map(|key| (key.name, value(key.name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed() {
        for key in keys() {
            let mut values = Values::default();
            let default = key.default().into_iter().find(|default| values.set(key, default).is_err());
            assert_eq!(default, None, "{}", key.name);
        }
    }
}
