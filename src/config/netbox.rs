//! The listener on which the bridge stands in front of NetBox.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::draft::NetboxDraft;
use super::url::BackendUrl;
use crate::tls::{ServerFiles, Trust};

/// The keys `backend.netbox_…`: where a backend reaches NetBox through the bridge, and how the bridge reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetboxListener {
    /// The address that the backend is given in the place of NetBox's.
    pub listen: SocketAddr,
    /// The files with which the backend is served over TLS there, if it is.
    pub tls: Option<ServerFiles>,
    /// The addresses that may connect beside loopback addresses.
    pub allow: Vec<IpNet>,
    /// Where NetBox is, if it is not to be the address that the plugin pushes.
    pub url: Option<BackendUrl>,
    /// Which certificates of NetBox are accepted; `None` accepts what the pushed row says: those of the system's
    /// authorities, or any if its `verify_ssl` is false.
    pub trust: Option<Trust>,
    /// The files with the certificate that NetBox is shown, and with its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

impl NetboxListener {
    /// The listener of `draft`, if it has one.
    pub(super) fn new(draft: NetboxDraft) -> Option<Self> {
        let tls = draft.certificate.zip(draft.key);
        Some(Self {
            listen: draft.listen?,
            tls: tls.map(|(certificate, key)| ServerFiles { certificate, key, client_ca: None }),
            allow: draft.allow,
            url: draft.url,
            trust: draft.ca_file.map(Trust::Authority).or(draft.pin.map(Trust::Pinned)),
            client_certificate: draft.client_certificate.zip(draft.client_key),
        })
    }

    /// The key of a certificate that only TLS has a use for, if one is set.
    pub fn tls_key(&self) -> Option<&'static str> {
        let of_trust = self.trust.as_ref().map(|trust| match trust {
            Trust::Pinned(_) => "backend.netbox_pin",
            _ => "backend.netbox_ca_file",
        });
        let own = || self.client_certificate.is_some().then_some("backend.netbox_client_certificate");
        of_trust.or_else(own)
    }

    /// Whether a connection from `address` is accepted.
    pub fn allows(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.allow.iter().any(|network| network.contains(&address))
    }
}
