//! What all that serves clients stands on: the configuration in force, the backends, and the jobs.

mod listeners;
mod state;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch::{Receiver, Sender};
use uuid::Uuid;

use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Outcome;
use crate::job::Registry;
use crate::ledger::{JobFilter, Ledger, Timestamp};
use crate::telemetry;

pub use listeners::{ClientListener, Listeners};
pub use state::AppState;
pub(crate) use state::host_name;

/// The state that the proxy and the admin listener share.
#[derive(Debug)]
pub struct App {
    state: Sender<Arc<AppState>>,
    /// The jobs.
    pub registry: Arc<Registry>,
    /// Reads the configuration again.
    pub reload: Arc<dyn Reload>,
    /// The open listeners.
    pub listeners: Listeners,
    /// This process.
    pub instance: Instance,
}

/// One process of the bridge.
#[derive(Debug)]
pub struct Instance {
    /// An id that no other process has.
    pub id: String,
    /// When it started, as RFC 3339.
    pub started: String,
}

/// Reads the configuration again.
pub trait Reload: std::fmt::Debug + Send + Sync {
    /// Reads the configuration again. The error is the reason why the one in force has not changed.
    fn reload(&self) -> BoxFuture<'_, Result<(), String>>;
}

impl App {
    /// Serves by `state`, and records its jobs in `ledger`.
    pub fn new(state: AppState, ledger: Arc<dyn Ledger>, reload: Arc<dyn Reload>) -> Self {
        let registry = Registry::new(Arc::clone(&state.config), ledger);
        state.publish_metrics();
        Self {
            state: Sender::new(Arc::new(state)),
            registry,
            reload,
            listeners: Listeners::default(),
            instance: Instance { id: Uuid::new_v4().to_string(), started: Timestamp::now().to_string() },
        }
    }

    /// The state that new requests are served by.
    pub fn state(&self) -> Arc<AppState> {
        Arc::clone(&self.state.borrow())
    }

    /// Every state from now on.
    pub fn subscribe(&self) -> Receiver<Arc<AppState>> {
        self.state.subscribe()
    }

    /// Serves new requests by `state`. Open streams and tunnels keep the state that they began with.
    pub fn replace(&self, state: AppState) {
        self.registry.configure(Arc::clone(&state.config));
        state.publish_metrics();
        self.state.send_replace(Arc::new(state));
    }

    /// Sets the metrics of last success, for each kind and each backend, to what the ledger has.
    pub async fn restore_last_success(&self) {
        let state = self.state();
        let ledger = self.registry.ledger();
        let completed = |kind, backend| JobFilter {
            kind,
            backend,
            outcome: Some(Outcome::Completed),
            since: None,
            before: None,
            limit: 1,
        };
        let last = async |filter| {
            // A ledger that does not work reports that itself.
            let found = ledger.jobs(filter).await.ok()?;
            Some(found.first()?.end.as_ref()?.finished.seconds())
        };
        for kind in Kind::all() {
            if let Some(at) = last(completed(Some(kind), None)).await {
                telemetry::last_success(kind, at);
            }
        }
        for backend in &state.backends {
            if let Some(at) = last(completed(None, Some(backend.url().to_string()))).await {
                backend.metrics.succeeded(at);
            }
        }
    }

    /// Takes the slots on backends that may still be at work for jobs of an earlier process.
    pub async fn resume_cooldowns(&self) {
        let state = self.state();
        self.registry.resume_cooldowns(&state.backends).await;
    }
}
