//! How a backend is reached, and how its syncs run.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::key::keys;
use super::limits::Limits;
use super::netbox::{NetboxKeys, NetboxListener};
use super::value::count;
use crate::core::domain::channel::ChannelChoice;
use crate::core::domain::credential::ApiKey;
use crate::core::http::url::BackendUrl;
use crate::core::run::policy::{EndpointIds, FailurePolicies, UnsupportedPolicy};
use crate::tls::{Fingerprint, Trust};

keys! {
    struct BackendKeys in "backend." {
        /// URL of the backend; the one key that must be set. `https` uses TLS.
        url: Option<BackendUrl> = None, flag "--backend";
        /// Name of the backend in the log, in metrics and on the admin listener; by default, host and port of its URL.
        name: Option<String> = None;
        /// Address that serves the clients of this backend alone, instead of the top-level `listen`.
        pub listen: Option<SocketAddr> = None;
        /// Host names by which requests on the top-level `listen` are routed to this backend, as clients write them in
        /// their URL.
        pub hosts: Vec<String> = Vec::new();
        /// File with the CA certificates that the backend's certificate is verified against, as PEM, instead of those
        /// of the system.
        ca_file: Option<PathBuf> = None;
        /// SHA-256 of the one certificate that is accepted from the backend, regardless of its issuer, as
        /// `openssl x509 -fingerprint -sha256` prints it.
        pin: Option<Fingerprint> = None;
        /// File with the certificate that the bridge presents to the backend, and its intermediates, as PEM.
        client_certificate: Option<PathBuf> = None;
        /// File with the private key of that certificate, as PEM.
        client_key: Option<PathBuf> = None;
        /// Accepts any certificate of the backend. The log warns of it at every start.
        insecure: bool = false;
        /// How the backend is driven: `native` (its event stream), `websocket` (`/ws`), `json` (the plain endpoint), or
        /// `auto`, which chooses for each kind of sync by what the backend can do.
        pub channel: ChannelChoice = ChannelChoice::Auto, flag "--channel";
        /// What happens to a sync that the backend cannot run: `refuse` answers 404, `skip` a stream that succeeds and
        /// reports that nothing was done. `auto` skips a stage that follows others in one job of the plugin, which would
        /// stop there, and refuses everything else.
        pub unsupported: UnsupportedPolicy = UnsupportedPolicy::Auto;
        /// Whose ids clients send as `proxmox_endpoint_ids`: `backend` for those of the backend's database, as plugins
        /// since 0.0.20 send them, `plugin` for the primary keys of NetBox, as plugins 0.0.11 to 0.0.19 do.
        pub endpoint_ids: EndpointIds = EndpointIds::Backend;
        /// When failed objects fail the run: `all` when objects failed and none completed, of a kind that the plugin
        /// queues; `any` when one failed; `never` repeats the verdict of the backend. Single kinds can differ:
        /// `all, backup-routines=any`. See [`counts.md`](counts.md).
        pub object_failures: FailurePolicies = FailurePolicies::default();
        /// File with the API key that is sent to the backend on sync streams instead of the client's key, on one line.
        /// Everyone who reaches the bridge can then start a sync.
        api_key_file: Option<PathBuf> = None;
        /// Most syncs that run on the backend at once. On a real backend, two at once made most objects of both fail.
        pub concurrency: usize = 1, within count(1, 64);
        /// Most syncs that are queued. Further ones get 503.
        pub queue: usize = 16, within count(0, 1000);
    }

    /// A table `[backend]` or `[[backend]]`.
    pub struct BackendConfig from keys:
        pub(super) fn new(
            url: BackendUrl, keys: BackendKeys, netbox: NetboxKeys, limits: Limits, api_key: Option<ApiKey>
        )
    {
        /// The URL of the backend.
        url: BackendUrl = url;
        /// The name in the log, in metrics and on the admin listener.
        name: String = keys.name.unwrap_or_else(|| url.authority());
        /// Which certificates are accepted from it, if it is reached over TLS.
        trust: Trust = match (keys.ca_file, keys.pin, keys.insecure) {
            (Some(file), ..) => Trust::Authority(file),
            (_, Some(pin), _) => Trust::Pinned(pin),
            (_, _, true) => Trust::Insecure,
            _ => Trust::System,
        };
        /// The files with the certificate that it is presented, and with the private key.
        client_certificate: Option<(PathBuf, PathBuf)> = keys.client_certificate.zip(keys.client_key);
        /// The API key of `backend.api_key_file`.
        api_key: Option<ApiKey> = api_key;
        /// The listener on which the backend reaches NetBox through the bridge, if there is one.
        netbox: Option<NetboxListener> = netbox.listen.map(|listen| NetboxListener::new(listen, netbox));
        /// The limits for this backend.
        limits: Limits = limits;
    }
}

impl BackendConfig {
    /// NetBox at `url`, which this backend reaches through `listener`, as an upstream with the limits of this backend. Its
    /// certificate is verified by `default_trust` if the configuration does not say how.
    #[must_use]
    pub fn netbox_upstream(&self, listener: &NetboxListener, url: BackendUrl, default_trust: Trust) -> Self {
        Self {
            trust: listener.trust.clone().unwrap_or(default_trust),
            client_certificate: listener.client_certificate.clone(),
            url,
            listen: None,
            hosts: Vec::new(),
            api_key: None,
            netbox: None,
            ..self.clone()
        }
    }
}
