//! The services that the bridge connects to, and their names in messages.

use crate::core::text::string_enum::string_enum;
string_enum! {
    /// The remote end of an outgoing connection.
    pub enum Remote {
        /// A `ProxBox` backend.
        Backend = "the backend",
        /// NetBox, for which the bridge acts as a backend.
        Netbox = "NetBox",
    }
}

impl Remote {
    const fn choose(self, backend: &'static str, netbox: &'static str) -> &'static str {
        match self {
            Self::Backend => backend,
            Self::Netbox => netbox,
        }
    }

    /// The configuration key of its address. For NetBox, the configured value takes precedence over the one that the
    /// plugin pushes.
    pub const fn url_key(self) -> &'static str {
        self.choose("backend.url", "backend.netbox_url")
    }

    /// The configuration key of the CA file for its certificate.
    pub const fn ca_file_key(self) -> &'static str {
        self.choose("backend.ca_file", "backend.netbox_ca_file")
    }

    /// The configuration key of its pinned certificate.
    pub const fn pin_key(self) -> &'static str {
        self.choose("backend.pin", "backend.netbox_pin")
    }

    /// The configuration key of the bridge's client certificate.
    pub const fn client_certificate_key(self) -> &'static str {
        self.choose("backend.client_certificate", "backend.netbox_client_certificate")
    }

    /// Its name at the start of a sentence.
    pub const fn capitalized(self) -> &'static str {
        self.choose("The backend", "NetBox")
    }
}
