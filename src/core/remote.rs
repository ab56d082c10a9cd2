//! What the bridge connects to, as texts name it.

use std::fmt;

/// What is at the other end of a connection that the bridge has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A `ProxBox` backend.
    Backend,
    /// NetBox, in front of which the bridge stands for a backend.
    Netbox,
}

impl Remote {
    /// The key of the configuration for its address. What it says of NetBox counts more than what the plugin pushes.
    pub const fn url_key(self) -> &'static str {
        match self {
            Self::Backend => "backend.url",
            Self::Netbox => "backend.netbox_url",
        }
    }

    /// The key for the file with the authorities of its certificate.
    pub const fn ca_file_key(self) -> &'static str {
        match self {
            Self::Backend => "backend.ca_file",
            Self::Netbox => "backend.netbox_ca_file",
        }
    }

    /// The key for the one certificate that it may have.
    pub const fn pin_key(self) -> &'static str {
        match self {
            Self::Backend => "backend.pin",
            Self::Netbox => "backend.netbox_pin",
        }
    }

    /// The key for the certificate that the bridge shows to it.
    pub const fn client_certificate_key(self) -> &'static str {
        match self {
            Self::Backend => "backend.client_certificate",
            Self::Netbox => "backend.netbox_client_certificate",
        }
    }

    /// Its name at the beginning of a sentence.
    pub const fn capitalized(self) -> &'static str {
        match self {
            Self::Backend => "The backend",
            Self::Netbox => "NetBox",
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend => "the backend",
            Self::Netbox => "NetBox",
        })
    }
}
