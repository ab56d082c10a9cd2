//! The verdicts and the names of checks. Their texts are part of the JSON format.

use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The verdict of a check, from best to worst.
    #[derive(PartialOrd, Ord)]
    pub(super) enum CheckVerdict {
        /// The check passed.
        Ok = "ok",
        /// The check passed, with a remark.
        Note = "note",
        /// Not checked: a prerequisite is missing.
        Skipped = "skipped",
        /// It works, but is or will become a problem.
        Warning = "warning",
        /// It does not work.
        Failed = "failed",
        /// The bridge does not start with it.
        Misconfigured = "misconfigured",
    }
}

string_enum! {
    /// The subject of a check.
    pub(super) enum CheckName {
        /// The address for clients.
        Clients = "clients",
        /// The address of the admin listener.
        Operators = "operators",
        /// The certificate for clients.
        Certificate = "certificate",
        /// The directory of the ledger.
        DataDir = "data_dir",
        /// A file with a secret.
        Secrets = "secrets",
        /// The trusted proxies, of the bridge or of a backend.
        Proxies = "proxies",
        /// A target of notifications.
        Notify = "notify",
        /// The host name of a backend.
        Name = "name",
        /// A backend that is the bridge itself.
        Loop = "loop",
        /// A connection over IPv4.
        ConnectV4 = "connect v4",
        /// A connection over IPv6.
        ConnectV6 = "connect v6",
        /// The certificate of a backend.
        Tls = "tls",
        /// The client certificate for a backend.
        ClientCertificate = "client cert",
        /// The answer of a backend at `/`.
        Root = "/",
        /// The release of a backend.
        Version = "/version",
        /// Whether a backend accepts the key.
        Key = "key",
        /// The dialect of the `/ws` of a backend.
        Ws = "/ws",
        /// The channels of a backend.
        Streams = "streams",
        /// Whether a backend reaches NetBox through the NetBox listener.
        Netbox = "netbox",
        /// The form of the backend's token for NetBox.
        NetboxToken = "token",
        /// The rules that the bridge applies between a backend and NetBox.
        NetboxRules = "rules",
        /// Whether NetBox answers at `backend.netbox_url`.
        NetboxUrl = "netbox_url",
        /// Whether NetBox answers through the NetBox listener.
        NetboxListener = "listener",
        /// Whether a backend uses the NetBox listener.
        NetboxUse = "requests",
        /// The Proxmox endpoints that were pushed to a backend that cannot store them.
        ProxmoxEndpoints = "proxmox",
    }
}
