//! A configuration while it is put together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::jobs::Jobs;
use super::limits::Limits;
use super::shims::Shims;
use super::table;
use super::url::BackendUrl;
use crate::core::domain::channel::Choice;
use crate::core::domain::credential::ApiKey;
use crate::core::run::policy::{EndpointIds, Policies, Unsupported};
use crate::tls::Fingerprint;

/// What the slots of the table of keys write to. Its default is every default of that table.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) listen: SocketAddr,
    pub(super) admin_listen: SocketAddr,
    pub(super) admin_token_file: Option<PathBuf>,
    pub(super) admin_token: Option<ApiKey>,
    pub(super) admin_open_reads: bool,
    pub(super) admin_open_metrics: bool,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) name: Option<String>,
    pub(super) url: Option<BackendUrl>,
    pub(super) own_listen: Option<SocketAddr>,
    pub(super) hosts: Vec<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) pin: Option<Fingerprint>,
    pub(super) backend_certificate: Option<PathBuf>,
    pub(super) backend_key: Option<PathBuf>,
    pub(super) insecure: bool,
    pub(super) channel: Choice,
    pub(super) unsupported: Unsupported,
    pub(super) endpoint_ids: EndpointIds,
    pub(super) object_failures: Policies,
    pub(super) api_key_file: Option<PathBuf>,
    pub(super) api_key: Option<ApiKey>,
    pub(super) concurrency: usize,
    pub(super) queue: usize,
    pub(super) netbox: NetboxDraft,
    pub(super) shims: Shims,
    pub(super) shim_key_file: Option<PathBuf>,
    pub(super) jobs: Jobs,
    pub(super) limits: Limits,
}

/// The keys `backend.netbox_…`.
#[derive(Clone, Debug, Default)]
pub(super) struct NetboxDraft {
    pub(super) listen: Option<SocketAddr>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) allow: Vec<IpNet>,
    pub(super) url: Option<BackendUrl>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) pin: Option<Fingerprint>,
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
}

impl Default for Draft {
    fn default() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut draft = Self {
            listen: nowhere,
            admin_listen: nowhere,
            admin_token_file: None,
            admin_token: None,
            admin_open_reads: false,
            admin_open_metrics: false,
            data_dir: None,
            trusted_proxies: Vec::new(),
            certificate: None,
            key: None,
            client_ca: None,
            name: None,
            url: None,
            own_listen: None,
            hosts: Vec::new(),
            ca_file: None,
            pin: None,
            backend_certificate: None,
            backend_key: None,
            insecure: false,
            channel: Choice::default(),
            unsupported: Unsupported::default(),
            endpoint_ids: EndpointIds::default(),
            object_failures: Policies::default(),
            api_key_file: None,
            api_key: None,
            concurrency: 0,
            queue: 0,
            netbox: NetboxDraft::default(),
            shims: Shims::default(),
            shim_key_file: None,
            jobs: Jobs::BLANK,
            limits: Limits::BLANK,
        };
        for key in table::keys() {
            if let Some(default) = key.default {
                let set = key.slot.set(&mut draft, default);
                debug_assert!(set.is_ok(), "the default of {} is allowed", key.name);
            }
        }
        draft
    }
}
