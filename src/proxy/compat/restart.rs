//! Backends that read where NetBox is when they start, and must be restarted before they may write again.
//!
//! 0.0.1 and 0.0.2 bind their connection to NetBox when they are imported: after a change they ask the new NetBox for
//! credentials and go on writing to the old one. No sync runs on such a backend until it has been seen down. Its URL may change
//! meanwhile, also while the bridge does not run: what waits is the process at an address.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::backend::{Backend, BackendId};
use crate::job::Registry;
use crate::private::{StateFile, Unreadable};
use crate::telemetry;

/// The file in `data_dir`.
const FILE: &str = "awaiting-restart.json";
/// What to do about one that cannot be read.
const REMEDY: &str = "delete it once the backend was restarted";
/// How often it is found out whether such a backend is down.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often one is looked for that no backend of the configuration is.
const MISSING_EVERY: Duration = Duration::from_secs(5);

/// The backends that wait for a restart, by their URL.
#[derive(Debug)]
pub(crate) struct PendingRestarts {
    urls: StateFile<BTreeSet<String>>,
    /// Those of them that are looked at, and where they are.
    watched: Mutex<BTreeMap<String, BackendId>>,
    /// The backends of the configuration.
    backends: ArcSwap<Vec<Arc<Backend>>>,
    /// One of them waits no longer.
    ended: Notify,
}

impl PendingRestarts {
    /// Those that are kept in `data_dir`; without it, none.
    ///
    /// # Errors
    ///
    /// Why the file could not be read.
    pub(crate) fn open(data_dir: Option<&Path>) -> Result<Self, Unreadable> {
        let urls = StateFile::open(data_dir, FILE, REMEDY)?;
        Ok(Self { urls, watched: Mutex::default(), backends: ArcSwap::default(), ended: Notify::new() })
    }

    /// Holds the syncs of those of `backends`, which are configured from now on, that wait for a restart.
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

    /// The same, but for the file. Returns whether it is to be written.
    fn hold_in_memory(self: &Arc<Self>, registry: &Arc<Registry>, backend: &Arc<Backend>) -> bool {
        let url = backend.url().to_string();
        let (_, is_changed) = self.urls.change_in_memory(|urls| urls.insert(url.clone()));
        self.watch(registry, backend.id().clone(), url);
        is_changed
    }

    /// Holds the syncs of `backend` if it is dropped: when the client hangs up, what the backend has made of its request
    /// is not known.
    pub(super) fn hold_if_dropped(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        backend: &Arc<Backend>,
    ) -> HoldIfDropped {
        HoldIfDropped {
            restarts: Arc::clone(self),
            registry: Arc::clone(registry),
            backend: Arc::clone(backend),
            is_answered: false,
        }
    }

    /// `backend` has bound its NetBox session to the listener in front of NetBox: it writes to no other any more, and its
    /// syncs run again.
    ///
    /// The file is written behind this, for NetBox's answer not to wait for a disk.
    pub(crate) fn netbox_session_bound(self: &Arc<Self>, registry: &Registry, backend: &Backend) {
        let is_it = |(_, id): &(&String, &BackendId)| id.is_at(backend.id());
        let bound: Vec<String> =
            locked(&self.watched).iter().filter(is_it).map(|(url, _)| url.clone()).collect();
        if bound.is_empty() {
            return;
        }
        let ((), is_changed) = self.urls.change_in_memory(|urls| urls.retain(|url| !bound.contains(url)));
        for url in &bound {
            let _no_hold_between = locked(&self.watched);
            if !self.urls.get().contains(url) {
                registry.unblock(url);
            }
        }
        self.ended.notify_waiters();
        if is_changed {
            self.save_behind();
        }
    }

    fn save_behind(self: &Arc<Self>) {
        let restarts = Arc::clone(self);
        tokio::spawn(async move { restarts.save().await });
    }

    fn watch(self: &Arc<Self>, registry: &Arc<Registry>, id: BackendId, url: String) {
        let why = "Restart proxbox-api: NetBox has changed, and this release reads where it is when it starts. \
                   Until it was restarted it would write to the NetBox before. If it was, and a proxy between keeps the \
                   bridge from seeing that, set shims.netbox_endpoint = \"off\".";
        {
            let mut watched = locked(&self.watched);
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

    /// Ends the watch over `url` and lets its syncs run, unless it waits for a restart still, or again. Returns whether it
    /// has.
    fn unwatch(&self, registry: &Registry, url: &str) -> bool {
        let mut watched = locked(&self.watched);
        let is_over = !self.urls.get().contains(url);
        if is_over {
            watched.remove(url);
            registry.unblock(url);
        }
        is_over
    }

    /// Done when the backend at `id` has been seen down, or `url` waits for no restart any more; or sooner.
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

    /// Whether the backend at `id` refuses connections: one that is slow may be the same as before. `None` if no backend
    /// of the configuration is found there.
    async fn is_down(&self, id: &BackendId) -> Option<bool> {
        if !id.has_address() {
            // A name that is not known now may be later.
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

/// See [`PendingRestarts::hold_if_dropped`].
#[derive(Debug)]
pub(super) struct HoldIfDropped {
    restarts: Arc<PendingRestarts>,
    registry: Arc<Registry>,
    backend: Arc<Backend>,
    is_answered: bool,
}

impl HoldIfDropped {
    /// The backend has answered: nothing is held for want of its answer.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for HoldIfDropped {
    fn drop(&mut self) {
        if !self.is_answered && self.restarts.hold_in_memory(&self.registry, &self.backend) {
            self.restarts.save_behind();
        }
    }
}

fn locked(watched: &Mutex<BTreeMap<String, BackendId>>) -> MutexGuard<'_, BTreeMap<String, BackendId>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
