//! How the backend is reached and what its answers are taken for.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::limits::Limits;
use super::netbox::NetboxListener;
use super::url::BackendUrl;
use crate::core::domain::channel::Choice;
use crate::core::domain::credential::ApiKey;
use crate::core::run::policy::{EndpointIds, Policies, Unsupported};
use crate::tls::Trust;

/// The table `[backend]`, or one of several that are written `[[backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What it is called.
    pub name: String,
    /// Where the backend is.
    pub url: BackendUrl,
    /// The address on which its clients alone are served, if it has one.
    pub listen: Option<SocketAddr>,
    /// The names by which it is told from others on the common address, in lower case.
    pub hosts: Vec<String>,
    /// Which certificates of it are taken, if it is spoken to over TLS.
    pub trust: Trust,
    /// The files with the certificate that it is shown, and with its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Which channel drives it.
    pub channel: Choice,
    /// What becomes of a sync that the backend has no way to run.
    pub unsupported: Unsupported,
    /// Whose ids clients send as `proxmox_endpoint_ids`.
    pub endpoint_ids: EndpointIds,
    /// When objects that failed make a run a failed one.
    pub object_failures: Policies,
    /// The key that goes to the backend in the place of the key of clients, read from the file
    /// `backend.api_key_file`.
    pub api_key: Option<ApiKey>,
    /// How many syncs run on the backend at once; two at once have made most objects of both fail on a real
    /// backend.
    pub concurrency: usize,
    /// How many more syncs may wait for their turn before new ones are refused with status 503.
    pub queue: usize,
    /// The listener on which the backend reaches NetBox through the bridge, if it has one.
    pub netbox: Option<NetboxListener>,
    /// The limits that are in force for it.
    pub limits: Limits,
}
