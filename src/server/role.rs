//! The roles of listeners.

use std::net::SocketAddr;

use crate::app::{BACKEND_LISTEN, ClientListener, LISTEN, NETBOX_LISTEN};
use crate::telemetry;

/// The key that configures the certificate of a NetBox listener.
const NETBOX_CERTIFICATE: &str = "backend.netbox_certificate";

/// The role of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenerRole {
    /// Serves clients of backends.
    Clients(ClientListener),
    /// Serves operators.
    Admin,
    /// Serves a backend, in front of NetBox, at the configured address.
    Netbox(SocketAddr),
}

impl ListenerRole {
    /// The label of the listener in metrics.
    pub(super) const fn listener(self) -> telemetry::Listener {
        match self {
            Self::Clients(_) => telemetry::Listener::Clients,
            Self::Admin => telemetry::Listener::Admin,
            Self::Netbox(_) => telemetry::Listener::Netbox,
        }
    }

    /// The key that configures its address.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Clients(ClientListener::Shared) => LISTEN,
            Self::Clients(ClientListener::Dedicated(_)) => BACKEND_LISTEN,
            Self::Admin => "admin_listen",
            Self::Netbox(_) => NETBOX_LISTEN,
        }
    }

    /// The key that configures its certificate.
    pub(super) const fn certificate_key(self) -> &'static str {
        match self {
            Self::Netbox(_) => NETBOX_CERTIFICATE,
            Self::Clients(_) | Self::Admin => telemetry::CERTIFICATE,
        }
    }
}
