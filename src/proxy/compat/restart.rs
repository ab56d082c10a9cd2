//! Backends that read where NetBox is when they start, and must be restarted before they may write again.
//!
//! 0.0.2 binds its connection to NetBox when it is imported: after a change it asks the new NetBox for
//! credentials and goes on writing to the old one. No sync runs on it until it has been seen down.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::file::{read, write};
use crate::backend::{Backend, BackendId};
use crate::job::Registry;
use crate::telemetry;

/// The file in `data_dir`.
const FILE: &str = "awaiting-restart.json";
/// How often it is found out whether such a backend is down.
const EVERY: Duration = Duration::from_millis(500);

/// The backends that wait for a restart, by their URL.
#[derive(Debug)]
pub(crate) struct Restarts {
    path: Option<PathBuf>,
    urls: Mutex<Urls>,
    /// One of them waits no longer.
    ended: Notify,
    /// One set is written after the other.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Urls {
    held: BTreeSet<String>,
    /// Those that a task looks at: those that are held, and for a moment those that were.
    watched: BTreeSet<String>,
}

impl Restarts {
    /// Those that are kept in `data_dir`; without it, none.
    ///
    /// # Errors
    ///
    /// Why the file could not be read.
    pub(crate) fn open(data_dir: Option<&Path>) -> io::Result<Self> {
        let path = data_dir.map(|folder| folder.join(FILE));
        let urls = Urls { held: read(path.as_deref())?, watched: BTreeSet::new() };
        Ok(Self {
            path,
            urls: Mutex::new(urls),
            ended: Notify::new(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Holds the syncs of those of `backends` that wait for a restart.
    pub(crate) fn resume(self: &Arc<Self>, registry: &Arc<Registry>, backends: &[Arc<Backend>]) {
        let held = self.urls().held.clone();
        for url in held {
            let Ok(parsed) = url.parse() else { continue };
            let id = BackendId::of_url(parsed);
            if let Some(backend) = backends.iter().find(|backend| backend.id().is_at(&id)) {
                self.watch(registry, backend, url);
            }
        }
    }

    /// Holds the syncs of `backend` until it has been seen down.
    pub(super) async fn hold(self: &Arc<Self>, registry: &Arc<Registry>, backend: &Arc<Backend>) {
        let url = backend.url().to_string();
        let is_new = self.urls().held.insert(url.clone());
        if is_new {
            self.keep().await;
        }
        self.watch(registry, backend, url);
    }

    /// `backend` has bound its NetBox session to the listener in front of NetBox: it writes to no other any more, and its
    /// syncs run again.
    pub(crate) async fn netbox_session_bound(&self, registry: &Registry, backend: &Backend) {
        let is_it =
            |url: &String| url.parse().is_ok_and(|parsed| backend.id().is_at(&BackendId::of_url(parsed)));
        let is_held = {
            let mut urls = self.urls();
            let bound: Vec<String> = urls.held.iter().filter(|url| is_it(url)).cloned().collect();
            for url in &bound {
                urls.held.remove(url);
                registry.release(url);
            }
            !bound.is_empty()
        };
        if is_held {
            self.ended.notify_waiters();
            self.keep().await;
        }
    }

    fn watch(self: &Arc<Self>, registry: &Arc<Registry>, backend: &Arc<Backend>, url: String) {
        let why = "Restart proxbox-api: NetBox has changed, and this release reads where it is when it starts. \
                   Until it was restarted it would write to the NetBox before. If it was, and a proxy between keeps the \
                   bridge from seeing that, set shims.netbox_endpoint = \"off\".";
        {
            let mut urls = self.urls();
            if !urls.held.contains(&url) {
                return;
            }
            registry.hold(url.clone(), backend.id().clone(), why.to_owned());
            if !urls.watched.insert(url.clone()) {
                return;
            }
        }
        telemetry::RestartAwaited { backend: &url }.emit();
        let (restarts, registry, backend) = (Arc::clone(self), Arc::clone(registry), Arc::clone(backend));
        let mut closing = registry.closing();
        tokio::spawn(async move {
            let restarted = async {
                while !restarts.unwatch(&url) {
                    restarts.seen_down(&registry, &backend, &url).await;
                }
                telemetry::RestartSeen { backend: &url }.emit();
                restarts.keep().await;
            };
            tokio::select! {
                () = restarted => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    /// Ends the watch over `url`, unless it waits for a restart still, or again. Says whether it has.
    fn unwatch(&self, url: &str) -> bool {
        let mut urls = self.urls();
        let is_over = !urls.held.contains(url);
        if is_over {
            urls.watched.remove(url);
        }
        is_over
    }

    /// Waits until `backend` has been seen down, and lets its syncs run again then; or until it waits for no restart.
    async fn seen_down(&self, registry: &Registry, backend: &Backend, url: &str) {
        loop {
            let ended = self.ended.notified();
            if !self.urls().held.contains(url) {
                return;
            }
            let next = async {
                // One that is slow, or whose name is not known for a moment, may be the same as before.
                if backend.touch().await.is_err_and(|error| error.is_refusal()) {
                    let mut urls = self.urls();
                    urls.held.remove(url);
                    registry.release(url);
                } else {
                    sleep(EVERY).await;
                }
            };
            tokio::select! {
                () = ended => {}
                () = next => {}
            }
        }
    }

    async fn keep(&self) {
        let Some(path) = self.path.clone() else { return };
        let _turn = self.writing.lock().await;
        let held = self.urls().held.clone();
        let written =
            spawn_blocking(move || write(&path, &held)).await.unwrap_or_else(|error| Err(error.into()));
        if let Err(error) = written {
            telemetry::RestartNotKept { error: &error }.emit();
        }
    }

    fn urls(&self) -> MutexGuard<'_, Urls> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
