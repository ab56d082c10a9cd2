//! Backends that read the address of NetBox at startup, and must be restarted before they may write again.
//!
//! 0.0.1 and 0.0.2 create their NetBox session when they are imported. After a change they read credentials from the
//! new NetBox but still write to the old one. No sync runs on such a backend until it has been seen down. The restart
//! is awaited for the process at an address: the backend's URL may change in the meantime, even while the bridge is
//! stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::backend::{Backend, BackendId};
use crate::job::Registry;
use crate::private::{StateFile, Unreadable};
use crate::proxy::request::RequestContext;
use crate::telemetry;

/// The file in `data_dir`.
const FILE: &str = "awaiting-restart.json";
/// The remedy for an unreadable file.
const REMEDY: &str = "delete it once the backend was restarted";
/// How often a backend is checked for being down.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often a backend that is not in the configuration is searched for.
const MISSING_EVERY: Duration = Duration::from_secs(5);

/// The backends whose restart is awaited, by their URL.
#[derive(Debug)]
pub(crate) struct PendingRestarts {
    urls: StateFile<BTreeSet<String>>,
    /// The backends among them that are being checked, and their addresses.
    watched: Mutex<BTreeMap<String, BackendId>>,
    /// The backends of the configuration.
    backends: ArcSwap<Vec<Arc<Backend>>>,
    /// Notified when a restart is no longer awaited.
    ended: Notify,
}

impl PendingRestarts {
    /// Opens the state in `data_dir`.
    pub(crate) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        let urls = StateFile::open(data_dir, FILE, REMEDY)?;
        Ok(Self { urls, watched: Mutex::default(), backends: ArcSwap::default(), ended: Notify::new() })
    }

    /// Continues to hold the syncs of backends whose restart is awaited. `backends` are those of the new configuration.
    pub(crate) fn resume(self: &Arc<Self>, registry: &Arc<Registry>, backends: &[Arc<Backend>]) {
        self.backends.store(Arc::new(backends.to_vec()));
        let urls = self.urls.get().clone();
        for url in urls {
            let Ok(parsed) = url.parse() else { continue };
            self.watch(registry, BackendId::from_url(parsed), url);
        }
    }

    /// Holds the syncs of `backend` until it has been seen down.
    pub(super) async fn hold(self: &Arc<Self>, registry: &Arc<Registry>, backend: &Arc<Backend>) {
        if self.hold_in_memory(registry, backend) {
            self.save().await;
        }
    }

    /// The same without writing the file. Returns whether it must be written.
    fn hold_in_memory(self: &Arc<Self>, registry: &Arc<Registry>, backend: &Arc<Backend>) -> bool {
        let url = backend.url().to_string();
        let (_, is_changed) = self.urls.change_in_memory(|urls| urls.insert(url.clone()));
        self.watch(registry, backend.id().clone(), url);
        is_changed
    }

    /// Lets the syncs of `backend` run again after it has opened its NetBox session through its NetBox listener: it
    /// no longer writes to another NetBox.
    ///
    /// The file is written in the background, so that NetBox's answer does not wait for a disk.
    pub(crate) fn netbox_session_bound(self: &Arc<Self>, registry: &Registry, backend: &Backend) {
        let is_it = |(_, id): &(&String, &BackendId)| id.is_at(backend.id());
        let bound: Vec<String> =
            self.watched.lock().iter().filter(is_it).map(|(url, _)| url.clone()).collect();
        if bound.is_empty() {
            return;
        }
        let ((), is_changed) = self.urls.change_in_memory(|urls| urls.retain(|url| !bound.contains(url)));
        for url in &bound {
            let _no_hold_between = self.watched.lock();
            if !self.urls.get().contains(url) {
                registry.unblock(url);
            }
        }
        self.ended.notify_waiters();
        if is_changed {
            self.save_in_background();
        }
    }

    fn save_in_background(self: &Arc<Self>) {
        let restarts = Arc::clone(self);
        tokio::spawn(async move { restarts.save().await });
    }

    fn watch(self: &Arc<Self>, registry: &Arc<Registry>, id: BackendId, url: String) {
        let why = "Restart proxbox-api: NetBox has changed, and this release reads the address of NetBox at startup. \
                   Until it is restarted, it would write to the previous NetBox. If it was restarted but a proxy hides \
                   that from the bridge, set shims.netbox_endpoint = \"off\".";
        {
            let mut watched = self.watched.lock();
            if !self.urls.get().contains(&url) {
                return;
            }
            registry.block(url.clone(), id.clone(), why.to_owned());
            if watched.insert(url.clone(), id.clone()).is_some() {
                return;
            }
        }
        telemetry::RestartAwaited { backend: &url }.emit();
        let (restarts, registry) = (Arc::clone(self), Arc::clone(registry));
        let mut closing = registry.closing();
        tokio::spawn(async move {
            let restarted = async {
                while !restarts.unwatch(&registry, &url) {
                    restarts.wait(&id, &url).await;
                }
                telemetry::RestartSeen { backend: &url }.emit();
            };
            tokio::select! {
                () = restarted => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    /// Stops checking `url` and lets its syncs run, unless its restart is still, or again, awaited. Returns whether it
    /// has stopped.
    fn unwatch(&self, registry: &Registry, url: &str) -> bool {
        let mut watched = self.watched.lock();
        let is_over = !self.urls.get().contains(url);
        if is_over {
            watched.remove(url);
            registry.unblock(url);
        }
        is_over
    }

    /// Waits until the backend at `id` has been seen down or the restart of `url` is no longer awaited. May return early.
    async fn wait(&self, id: &BackendId, url: &str) {
        let ended = self.ended.notified();
        if !self.urls.get().contains(url) {
            return;
        }
        let seen_down = async {
            match self.is_down(id).await {
                Some(true) => return true,
                Some(false) => sleep(POLL_INTERVAL).await,
                None => sleep(MISSING_EVERY).await,
            }
            false
        };
        let is_down = tokio::select! {
            () = ended => false,
            is_down = seen_down => is_down,
        };
        if is_down {
            self.urls.change_in_memory(|urls| urls.remove(url));
            self.save().await;
        }
    }

    /// Whether the backend at `id` refuses connections. One that is merely slow may be the same process. `None` if no
    /// configured backend is at `id`.
    async fn is_down(&self, id: &BackendId) -> Option<bool> {
        if !id.has_address() {
            // A name that does not resolve now may do so later.
            let _ = id.resolve().await;
        }
        let backends = self.backends.load_full();
        let find = || backends.iter().find(|backend| backend.id().is_at(id));
        if find().is_none() {
            for backend in backends.iter() {
                backend.locate().await;
            }
        }
        Some(find()?.connect_once().await.is_err_and(|error| error.is_refusal()))
    }

    async fn save(&self) {
        if let Err(error) = self.urls.save().await {
            telemetry::StateNotWritten { file: FILE, error: &error }.emit();
        }
    }
}

/// Holds the syncs of the backend if it is dropped before the backend has answered: when the client disconnects, it is
/// unknown whether the backend has stored the new row.
#[derive(Debug)]
pub(super) struct HoldIfDropped {
    context: RequestContext,
    pub(super) is_answered: bool,
}

impl HoldIfDropped {
    pub(super) fn new(context: &RequestContext) -> Self {
        Self { context: context.clone(), is_answered: false }
    }
}

impl Drop for HoldIfDropped {
    fn drop(&mut self) {
        let RequestContext { proxy, backend, .. } = &self.context;
        if !self.is_answered && proxy.restarts.hold_in_memory(&proxy.app.registry, backend) {
            proxy.restarts.save_in_background();
        }
    }
}
