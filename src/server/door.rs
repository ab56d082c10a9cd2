//! What a listener is for.

use std::net::SocketAddr;

use crate::app::ClientListener;
use crate::telemetry;

/// The key that names the certificate of a NetBox listener.
pub(super) const NETBOX_CERTIFICATE: &str = "backend.netbox_certificate";

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenerRole {
    /// Clients of backends.
    Clients(ClientListener),
    /// Operators.
    Admin,
    /// A backend, in front of NetBox; the address is the configured one.
    Netbox(SocketAddr),
}

impl ListenerRole {
    /// Who is served there.
    pub(super) const fn listener(self) -> telemetry::Listener {
        match self {
            Self::Clients(_) => telemetry::Listener::Clients,
            Self::Admin => telemetry::Listener::Admin,
            Self::Netbox(_) => telemetry::Listener::Netbox,
        }
    }

    /// The key that says where it is.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Clients(ClientListener::Shared) => "listen",
            Self::Clients(ClientListener::Dedicated(_)) => "backend.listen",
            Self::Admin => "admin_listen",
            Self::Netbox(_) => "backend.netbox_listen",
        }
    }

    /// The key that names the certificate which is shown there.
    pub(super) const fn certificate_key(self) -> &'static str {
        match self {
            Self::Netbox(_) => NETBOX_CERTIFICATE,
            Self::Clients(_) | Self::Admin => telemetry::CERTIFICATE,
        }
    }
}
