//! The words of a report: programs go by them.
#![allow(unreachable_pub, reason = "what words! makes is public")]

use crate::core::run::policy::UnknownVariant;
use crate::core::text::words::words;

/// How something is, the worse the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckVerdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Not asked, because something is missing for it.
    Skipped,
    /// It works, and is or will be a problem.
    Warning,
    /// It does not work.
    Failed,
    /// The bridge will not start with it.
    Misconfigured,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckName {
    /// Where clients are served.
    Clients,
    /// Where operators are served.
    Operators,
    /// The certificate that clients are shown.
    Certificate,
    /// Where the record of jobs is.
    DataDir,
    /// Whose word on clients is believed.
    Proxies,
    /// What the name of a backend stands for.
    Name,
    /// A connection over IPv4.
    ConnectV4,
    /// A connection over IPv6.
    ConnectV6,
    /// The certificate of a backend.
    Tls,
    /// The certificate that it is shown.
    ClientCertificate,
    /// What it says to everybody.
    Root,
    /// Its release.
    Version,
    /// Whether it takes the key.
    Key,
    /// How its `/ws` is spoken to.
    Ws,
    /// Which streams it has.
    Streams,
    /// Whether it reaches NetBox through the NetBox listener.
    Netbox,
    /// The form of its token for NetBox.
    NetboxToken,
    /// What the bridge changes between it and NetBox.
    NetboxRules,
    /// Whether NetBox answers at `backend.netbox_url`.
    NetboxUrl,
    /// Whether NetBox answers through the NetBox listener.
    NetboxListener,
    /// Whether it uses the NetBox listener.
    NetboxUse,
    /// The Proxmox endpoints that were pushed to it, if it cannot store them.
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
