//! Backends that read where NetBox is when they start, and must be restarted before they may write again.
//!
//! 0.0.2 binds its connection to NetBox when it is imported: after a change it asks the new NetBox for
//! credentials and goes on writing to the old one. No sync runs on it until it has been seen down.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    urls: Mutex<BTreeSet<String>>,
    /// Those of them that are looked at.
    watched: Mutex<BTreeSet<String>>,
    /// One set is written after the other.
    writing: tokio::sync::Mutex<()>,
}

impl Restarts {
    /// Those that are kept in `data_dir`; without it, none.
    ///
    /// # Errors
    ///
    /// Why the file could not be read.
    pub(crate) fn open(data_dir: Option<&Path>) -> io::Result<Self> {
        let path = data_dir.map(|folder| folder.join(FILE));
        let urls = read(path.as_deref())?;
        Ok(Self {
            path,
            urls: Mutex::new(urls),
            watched: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Holds the syncs of those of `backends` that wait for a restart.
    pub(crate) fn resume(self: &Arc<Self>, registry: &Arc<Registry>, backends: &[Arc<Backend>]) {
        let urls = locked(&self.urls).clone();
        for url in urls {
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
        let is_new = locked(&self.urls).insert(url.clone());
        if is_new {
            self.keep().await;
        }
        self.watch(registry, backend, url);
    }

    /// `backend` has bound its NetBox session to the listener in front of NetBox: it writes to no other any more.
    pub(crate) async fn netbox_session_bound(&self, backend: &Backend) {
        let is_it =
            |url: &String| url.parse().is_ok_and(|parsed| backend.id().is_at(&BackendId::of_url(parsed)));
        let is_held = {
            let mut urls = locked(&self.urls);
            let before = urls.len();
            // Whatever watches it sees that.
            urls.retain(|url| !is_it(url));
            urls.len() < before
        };
        if is_held {
            self.keep().await;
        }
    }

    fn watch(self: &Arc<Self>, registry: &Arc<Registry>, backend: &Arc<Backend>, url: String) {
        if !locked(&self.watched).insert(url.clone()) {
            return;
        }
        let why = "Restart proxbox-api: NetBox has changed, and this release reads where it is when it starts. \
                   Until it was restarted it would write to the NetBox before. If it was, and a proxy between keeps the \
                   bridge from seeing that, set shims.netbox_endpoint = \"off\".";
        registry.hold(url.clone(), backend.id().clone(), why.to_owned());
        telemetry::RestartAwaited { backend: &url }.emit();
        let (restarts, registry, backend) = (Arc::clone(self), Arc::clone(registry), Arc::clone(backend));
        let mut closing = registry.closing();
        tokio::spawn(async move {
            let seen_down = async {
                // One that is slow, or whose name is not known for a moment, may be the same as before.
                let is_held = || locked(&restarts.urls).contains(&url);
                while is_held() && !backend.touch().await.is_err_and(|error| error.is_refusal()) {
                    sleep(EVERY).await;
                }
                locked(&restarts.urls).remove(&url);
                locked(&restarts.watched).remove(&url);
                restarts.keep().await;
                registry.release(&url);
                telemetry::RestartSeen { backend: &url }.emit();
            };
            tokio::select! {
                () = seen_down => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    async fn keep(&self) {
        let Some(path) = self.path.clone() else { return };
        let _turn = self.writing.lock().await;
        let urls = locked(&self.urls).clone();
        let written =
            spawn_blocking(move || write(&path, &urls)).await.unwrap_or_else(|error| Err(error.into()));
        if let Err(error) = written {
            telemetry::RestartNotKept { error: &error }.emit();
        }
    }
}

fn locked(urls: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    urls.lock().unwrap_or_else(PoisonError::into_inner)
}
