//! The listener between a backend and NetBox.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::key::keys;
use crate::core::http::url::BackendUrl;
use crate::core::remote::Remote;
use crate::tls::{Fingerprint, ServerFiles, Trust};

keys! {
    struct NetboxKeys in "backend.netbox_" {
        /// Address of the listener between this backend and NetBox. The backend connects to it instead of to NetBox.
        /// See [`netbox-listener.md`](netbox-listener.md).
        listen: Option<SocketAddr> = None;
        /// File with the certificate of that listener, and its intermediates, as PEM. The backend then
        /// connects over TLS, and is configured to verify the certificate, which must be for the IP address of
        /// `backend.netbox_listen`. It is read again when it changes.
        certificate: Option<PathBuf> = None;
        /// File with the private key of that certificate, as PEM.
        key: Option<PathBuf> = None;
        /// Addresses of the backend. They may connect to `backend.netbox_listen`, as may loopback addresses.
        pub allow: Vec<IpNet> = Vec::new();
        /// URL of NetBox; by default, the one that the plugin pushes to `/netbox/endpoint`.
        pub url: Option<BackendUrl> = None;
        /// File with the CA certificates that NetBox's certificate is verified against, as PEM, instead of those of the
        /// system.
        ca_file: Option<PathBuf> = None;
        /// SHA-256 of the one certificate that is accepted from NetBox, regardless of its issuer.
        pin: Option<Fingerprint> = None;
        /// File with the certificate that the bridge presents to NetBox, and its intermediates, as PEM.
        client_certificate: Option<PathBuf> = None;
        /// File with the private key of that certificate, as PEM.
        client_key: Option<PathBuf> = None;
    }

    /// The keys `backend.netbox_*`: where a backend reaches NetBox through the bridge, and how the bridge reaches it.
    pub struct NetboxListener from keys: pub(super) fn new(listen: SocketAddr, keys: NetboxKeys) {
        /// The address that the backend connects to instead of NetBox's.
        listen: SocketAddr = listen;
        /// The files for TLS with the backend, if it is used.
        tls: Option<ServerFiles> = keys
            .certificate
            .zip(keys.key)
            .map(|(certificate, key)| ServerFiles { certificate, key, client_ca: None });
        /// Which certificates are accepted from NetBox; `None` follows `verify_ssl` of the endpoint that the plugin
        /// pushes: those of the system's authorities, or any if it is false.
        trust: Option<Trust> = keys.ca_file.map(Trust::Authority).or(keys.pin.map(Trust::Pinned));
        /// The files with the certificate that NetBox is presented, and with the private key.
        client_certificate: Option<(PathBuf, PathBuf)> = keys.client_certificate.zip(keys.client_key);
    }
}

impl NetboxListener {
    /// The key about certificates that is of use only with TLS to NetBox, if one is set.
    pub fn tls_key(&self) -> Option<&'static str> {
        let of_trust = self.trust.as_ref().map(|trust| match trust {
            Trust::Pinned(_) => Remote::Netbox.pin_key(),
            _ => Remote::Netbox.ca_file_key(),
        });
        let own = || self.client_certificate.is_some().then_some(Remote::Netbox.client_certificate_key());
        of_trust.or_else(own)
    }

    /// Whether a connection from `address` is accepted.
    pub fn allows(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.allow.iter().any(|network| network.contains(&address))
    }
}
