//! The verdicts and the names of checks. Their texts are part of the JSON format.
#![allow(unreachable_pub, reason = "what words! makes is public")]

use crate::core::run::policy::UnknownVariant;
use crate::core::text::words::words;

/// The verdict of a check, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckVerdict {
    /// The check passed.
    Ok,
    /// The check passed, with a remark.
    Note,
    /// Not checked: a prerequisite is missing.
    Skipped,
    /// It works, but is or will become a problem.
    Warning,
    /// It does not work.
    Failed,
    /// The bridge does not start with it.
    Misconfigured,
}

/// The subject of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckName {
    /// The address for clients.
    Clients,
    /// The address of the admin listener.
    Operators,
    /// The certificate for clients.
    Certificate,
    /// The directory of the ledger.
    DataDir,
    /// The trusted proxies, of the bridge or of a backend.
    Proxies,
    /// The host name of a backend.
    Name,
    /// A connection over IPv4.
    ConnectV4,
    /// A connection over IPv6.
    ConnectV6,
    /// The certificate of a backend.
    Tls,
    /// The client certificate for a backend.
    ClientCertificate,
    /// The answer of a backend at `/`.
    Root,
    /// The release of a backend.
    Version,
    /// Whether a backend accepts the key.
    Key,
    /// The dialect of the `/ws` of a backend.
    Ws,
    /// The channels of a backend.
    Streams,
    /// Whether a backend reaches NetBox through the NetBox listener.
    Netbox,
    /// The form of the backend's token for NetBox.
    NetboxToken,
    /// The rules that the bridge applies between a backend and NetBox.
    NetboxRules,
    /// Whether NetBox answers at `backend.netbox_url`.
    NetboxUrl,
    /// Whether NetBox answers through the NetBox listener.
    NetboxListener,
    /// Whether a backend uses the NetBox listener.
    NetboxUse,
    /// The Proxmox endpoints that were pushed to a backend that cannot store them.
    ProxmoxEndpoints,
}

words!(CheckVerdict or UnknownVariant(&CheckVerdict::WORDS) {
    Ok => "ok", Note => "note", Skipped => "skipped", Warning => "warning", Failed => "failed",
    Misconfigured => "misconfigured",
});

words!(CheckName or UnknownVariant(&CheckName::WORDS) {
    Clients => "clients",
    Operators => "operators",
    Certificate => "certificate",
    DataDir => "data_dir",
    Proxies => "proxies",
    Name => "name",
    ConnectV4 => "connect v4",
    ConnectV6 => "connect v6",
    Tls => "tls",
    ClientCertificate => "client cert",
    Root => "/",
    Version => "/version",
    Key => "key",
    Ws => "/ws",
    Streams => "streams",
    Netbox => "netbox",
    NetboxToken => "token",
    NetboxRules => "rules",
    NetboxUrl => "netbox_url",
    NetboxListener => "listener",
    NetboxUse => "requests",
    ProxmoxEndpoints => "proxmox",
});
