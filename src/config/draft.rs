//! A configuration while it is put together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::backend::Unsupported;
use super::jobs::Jobs;
use super::limits::Limits;
use super::table;
use super::url::BackendUrl;
use crate::core::channel::Choice;
use crate::core::policy::ObjectFailures;

/// What the slots of the table of keys write to. Its default is every default of that table.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) listen: SocketAddr,
    pub(super) admin_listen: SocketAddr,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) url: Option<BackendUrl>,
    pub(super) channel: Choice,
    pub(super) unsupported: Unsupported,
    pub(super) object_failures: ObjectFailures,
    pub(super) api_key_file: Option<PathBuf>,
    pub(super) concurrency: usize,
    pub(super) queue: usize,
    pub(super) jobs: Jobs,
    pub(super) limits: Limits,
}

impl Default for Draft {
    fn default() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut draft = Self {
            listen: nowhere,
            admin_listen: nowhere,
            data_dir: None,
            url: None,
            channel: Choice::default(),
            unsupported: Unsupported::default(),
            object_failures: ObjectFailures::default(),
            api_key_file: None,
            concurrency: 0,
            queue: 0,
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
