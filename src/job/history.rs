//! What is known of backends across restarts of the bridge: the last success of each kind, and the capabilities.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::Backend;
use crate::core::domain::kind::Kind;
use crate::core::http::url::BackendUrl;
use crate::ledger::{
    BackendHistory, DetectedCapabilities, LastSuccess, Ledger, LedgerUnavailable, Record, Timestamp,
};

/// How old the stored time of unchanged capabilities may become.
const SAVE_INTERVAL: Duration = Duration::from_secs(3600);

/// The history of each backend, by its URL. The ledger has a copy.
#[derive(Debug)]
pub struct History {
    ledger: Arc<Ledger>,
    successes: Mutex<HashMap<(BackendUrl, Kind), LastSuccess>>,
    capabilities: Mutex<HashMap<BackendUrl, DetectedCapabilities>>,
}

impl History {
    /// Creates an empty history, with a copy in `ledger`.
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, successes: Mutex::default(), capabilities: Mutex::default() }
    }

    /// Adds what the ledger knows. What this process knows already is newer, and stays.
    pub(super) async fn load(&self) -> Result<(), LedgerUnavailable> {
        let BackendHistory { successes, capabilities } = self.ledger.history().await?;
        for (backend, kind, success) in successes {
            self.successes.lock().entry((backend, kind)).or_insert(success);
        }
        for (backend, detected) in capabilities {
            self.capabilities.lock().entry(backend).or_insert(detected);
        }
        Ok(())
    }

    /// The last success of `kind` on the backend with this URL.
    pub fn last_success(&self, backend: &BackendUrl, kind: Kind) -> Option<LastSuccess> {
        self.successes.lock().get(&(backend.clone(), kind)).copied()
    }

    /// Notes the success that `record` is, if it is one. The ledger notes it with the record.
    pub(super) fn note_success(&self, record: &Record) {
        if let (Some(success), Some(backend)) = (LastSuccess::from_record(record), record.backend.known()) {
            self.successes.lock().insert((backend.clone(), record.kind), success);
        }
    }

    /// The capabilities of the backend with this URL when they were last detected.
    pub fn capabilities(&self, backend: &BackendUrl) -> Option<DetectedCapabilities> {
        self.capabilities.lock().get(backend).cloned()
    }

    /// Notes the cached capabilities of `backend`, and stores them if they have changed. Streams of the same release
    /// that the cache does not have are kept.
    pub fn note_capabilities(&self, backend: &Backend) {
        let mut capabilities = backend.cached_capabilities();
        if capabilities.release.is_none() {
            return;
        }
        let (at, url) = (Timestamp::now(), backend.url());
        let mut known = self.capabilities.lock();
        let is_saved = known.get(url).is_some_and(|before| {
            let DetectedCapabilities { at: then, capabilities: before } = before;
            if before.release == capabilities.release {
                let more = before.streams.iter().map(|(endpoint, exists)| (*endpoint, *exists));
                capabilities.streams = more.chain(capabilities.streams.drain()).collect();
            }
            *before == capabilities && at.since(*then) < SAVE_INTERVAL
        });
        if !is_saved {
            let now = DetectedCapabilities { at, capabilities };
            known.insert(url.clone(), now.clone());
            // The query runs even if its future is dropped.
            let capabilities = vec![(url.clone(), now)];
            drop(self.ledger.save_history(BackendHistory { capabilities, ..BackendHistory::default() }));
        }
    }

    /// Stores the whole history again, because the ledger has lost it.
    pub(super) fn save(&self) {
        let successes = self.successes.lock();
        let successes = successes.iter().map(|((backend, kind), success)| (backend.clone(), *kind, *success));
        let capabilities = self.capabilities.lock();
        let capabilities = capabilities.iter().map(|(backend, known)| (backend.clone(), known.clone()));
        let history = BackendHistory { successes: successes.collect(), capabilities: capabilities.collect() };
        // The query runs even if its future is dropped.
        drop(self.ledger.save_history(history));
    }
}
