//! The configuration and its backends. A reload replaces both as a whole.

use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::app::ClientListener;
use crate::backend::Backend;
use crate::config::{BackendConfig, Config, NetboxListener};
use crate::core::http::headers::Pseudonym;
use crate::core::http::url::BackendUrl;
use crate::telemetry;
use crate::tls::{self, TlsError, Trust};

/// A configuration and its backends.
#[derive(Debug)]
pub struct AppState {
    /// The configuration.
    pub config: Arc<Config>,
    /// The backends, in the order of the configuration.
    pub backends: Vec<Arc<Backend>>,
    /// The name of this instance in `Via`.
    pub pseudonym: Pseudonym,
}

impl AppState {
    /// The state for `config`. A backend whose configuration and files are unchanged is taken over from `before` with
    /// its cached capabilities. One whose configuration has changed keeps its accepted and refused keys. Reads files
    /// and blocks.
    pub fn new(config: Config, before: Option<&Self>) -> Result<Self, TlsError> {
        let previous = |backend_config: &BackendConfig| {
            let previous = before?.backends.iter().find(|previous| previous.config() == backend_config);
            previous.filter(|previous| previous.has_current_files()).cloned()
        };
        let pseudonym = before.map_or_else(new_pseudonym, |before| before.pseudonym.clone());
        let mut backends: Vec<Arc<Backend>> = Vec::new();
        for backend_config in &config.backends {
            if let Some(netbox) = &backend_config.netbox {
                check_files(netbox)?;
            }
            if let Some(backend) = previous(backend_config) {
                backends.push(backend);
                continue;
            }
            let mut backend = Backend::new(backend_config.clone())?.with_pseudonym(pseudonym.clone());
            let others = before.into_iter().flat_map(|before| &before.backends).chain(&backends);
            if let Some(same) = others.into_iter().find(|other| other.id().is_same(backend.id())) {
                backend.share_state(same);
            }
            backends.push(Arc::new(backend));
        }
        Ok(Self { backends, config: Arc::new(config), pseudonym })
    }

    /// The state for `config` of a process that sends no requests.
    pub(crate) fn without_backends(config: Config) -> Self {
        Self { config: Arc::new(config), backends: Vec::new(), pseudonym: new_pseudonym() }
    }

    /// The backend for a request on the listener `entrance` with the host `host`, which may have a port.
    pub(crate) fn backend(&self, entrance: ClientListener, host: Option<&str>) -> Option<&Arc<Backend>> {
        let name = host.map(host_name);
        let is_wanted = |config: &BackendConfig| match entrance {
            ClientListener::Dedicated(address) => config.listen == Some(address),
            ClientListener::Shared => {
                config.listen.is_none() && name.as_ref().is_some_and(|name| config.hosts.contains(name))
            }
        };
        let is_default = |config: &BackendConfig| {
            entrance == ClientListener::Shared && config.listen.is_none() && config.hosts.is_empty()
        };
        let wanted = self.backends.iter().find(|backend| is_wanted(backend.config()));
        wanted.or_else(|| self.backends.iter().find(|backend| is_default(backend.config())))
    }

    /// The backend whose NetBox listener is configured at `listen`, and that listener.
    pub(crate) fn netbox_listener(&self, listen: SocketAddr) -> Option<(&Arc<Backend>, &NetboxListener)> {
        self.backends.iter().find_map(|backend| {
            let listener = backend.config().netbox.as_ref().filter(|listener| listener.listen == listen)?;
            Some((backend, listener))
        })
    }

    /// Exposes the metrics of its backends.
    pub(crate) fn publish_metrics(&self) {
        telemetry::set_backends(self.backends.iter().map(|backend| Arc::clone(&backend.metrics)).collect());
    }

    /// The backend with this name.
    pub(crate) fn find_backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.config().name == name)
    }

    /// The names of all backends.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.backends.iter().map(|backend| backend.config().name.as_str()).collect();
        names.join(", ")
    }
}

fn new_pseudonym() -> Pseudonym {
    Pseudonym::new(Uuid::new_v4().as_fields().0)
}

/// Checks the TLS files for NetBox, also if its URL is not known yet. Reads files and blocks.
fn check_files(netbox: &NetboxListener) -> Result<(), TlsError> {
    let is_tls = netbox.url.as_ref().is_some_and(BackendUrl::is_tls);
    // Without a URL, the plugin's push decides later whether the system's CA certificates are needed.
    let default = if is_tls { Trust::System } else { Trust::Insecure };
    let trust = netbox.trust.as_ref().unwrap_or(&default);
    tls::client(trust, netbox.client_certificate.as_ref()).map(drop)
}

/// `host` without its port and in lower case; an IPv6 address without its brackets.
pub(crate) fn host_name(host: &str) -> String {
    let bare = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    };
    bare.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn state(file: &str, before: Option<&AppState>) -> AppState {
        let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
        AppState::new(Config::parse(&flags, [], |_| Ok(file.as_bytes().to_vec())).unwrap(), before).unwrap()
    }

    const THREE: &str = r#"
        [[backend]]
        name = "lab"
        url = "http://10.0.0.1:8800"
        hosts = ["lab.example", "::1"]
        [[backend]]
        name = "rest"
        url = "http://10.0.0.2:8800"
        [[backend]]
        name = "own"
        url = "http://10.0.0.3:8800"
        listen = "127.0.0.1:8803"
    "#;

    #[test]
    fn a_request_is_for_the_backend_that_its_entrance_or_its_host_names() {
        let state = state(THREE, None);
        let own = ClientListener::Dedicated("127.0.0.1:8803".parse().unwrap());
        for (entrance, host, name) in [
            (ClientListener::Shared, Some("lab.example"), "lab"),
            (ClientListener::Shared, Some("LAB.example.:8800"), "lab"),
            (ClientListener::Shared, Some("[::1]:8800"), "lab"),
            (ClientListener::Shared, Some("other.example"), "rest"),
            (ClientListener::Shared, None, "rest"),
            (own, Some("lab.example"), "own"),
        ] {
            let backend = state.backend(entrance, host).unwrap();
            assert_eq!(backend.config().name, name, "{host:?}");
        }
    }

    #[test]
    fn a_backend_that_did_not_change_keeps_what_is_known_of_it() {
        let before = state(THREE, None);
        let after = state(&THREE.replace("10.0.0.2", "10.0.0.9"), Some(&before));
        let same = |index: usize| Arc::ptr_eq(&before.backends[index], &after.backends[index]);
        assert_eq!([same(0), same(1), same(2)], [true, false, true]);
    }

    #[tokio::test]
    async fn a_key_that_a_backend_has_accepted_stays_accepted_when_a_limit_changes() {
        let before = state(THREE, None);
        let key = Some([1; 32]);
        before.backends[1].gate.accept(key);
        let after = state(&format!("[limits]\nprobe = \"7s\"\n{THREE}"), Some(&before));
        assert!(!Arc::ptr_eq(&before.backends[1], &after.backends[1]));
        let client = [192, 0, 2, 1].into();
        assert!(matches!(after.backends[1].admit(client, key).await, Ok(None)));
        assert!(matches!(after.backends[0].admit(client, key).await, Ok(Some(_))), "another backend");
    }
}
