//! The state that the proxy and the admin listener share: the current configuration, the backends and the jobs.

mod listeners;
mod state;

use std::sync::Arc;

use tokio::sync::watch::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::config::SettingChange;
use crate::core::domain::kind::Kind;
use crate::job::Registry;
use crate::ledger::{Ledger, Timestamp};
use crate::notify;
use crate::telemetry;

pub use crate::backend::BackendObserver;
pub use listeners::{BACKEND_LISTEN, ClientListener, LISTEN, Listeners, NETBOX_LISTEN};
pub use state::AppState;
pub(crate) use state::host_name;

/// The shared state.
#[derive(Debug)]
pub struct App {
    state: Sender<Arc<AppState>>,
    /// The jobs.
    pub registry: Arc<Registry>,
    /// Reloads the configuration.
    pub reload: Reloader,
    /// The open listeners.
    pub listeners: Listeners,
    /// This process.
    pub instance: Instance,
}

/// The identity of this process.
#[derive(Debug)]
pub struct Instance {
    /// A unique id.
    pub id: String,
    /// When it started, as RFC 3339.
    pub started: String,
}

/// A handle that requests a reload of the configuration.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<ReloadReply>);

/// The channel for the result of a requested reload.
pub type ReloadReply = oneshot::Sender<Result<Vec<SettingChange>, String>>;

/// The error of a reload that nothing performs.
pub const NO_RELOAD: &str = "the bridge is stopping, or does not know where its configuration came from";

impl Reloader {
    /// A handle whose requests `sender` passes on.
    pub fn new(sender: mpsc::Sender<ReloadReply>) -> Self {
        Self(sender)
    }

    /// Requests a reload, and waits for its result: the keys that changed. The error says why it failed; the current
    /// configuration stays in force then.
    pub async fn reload(&self) -> Result<Vec<SettingChange>, String> {
        let (sender, answer) = oneshot::channel();
        // If this fails, the answer does too.
        let _ = self.0.send(sender).await;
        answer.await.unwrap_or_else(|_| Err(NO_RELOAD.to_owned()))
    }
}

impl App {
    /// An app with `state` that records its jobs in `ledger`.
    pub fn new(state: AppState, ledger: Arc<Ledger>, reload: Reloader) -> Self {
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

    /// The current state, for new requests.
    pub fn state(&self) -> Arc<AppState> {
        Arc::clone(&self.state.borrow())
    }

    /// A receiver of the current state and its replacements.
    pub fn subscribe(&self) -> Receiver<Arc<AppState>> {
        self.state.subscribe()
    }

    /// Replaces the state for new requests. Open streams and tunnels keep the state that they started with.
    pub fn replace(&self, state: AppState) {
        self.registry.configure(Arc::clone(&state.config));
        let rules = notify::rules(&state.config);
        state.publish_metrics();
        self.state.send_replace(Arc::new(state));
        // This wakes the delivery, which must find the new targets.
        self.registry.ledger().set_notification_rules(rules);
    }

    /// Notifies `observer` of the connections to the current backends.
    pub fn observe(&self, observer: &Arc<dyn BackendObserver>) {
        for backend in &self.state().backends {
            backend.observe(Arc::clone(observer));
        }
    }

    /// Restores the state of an earlier process: the last successes, what is known of backends, and cool-downs.
    pub async fn restore(&self) {
        let state = self.state();
        self.registry.restore(&state.backends).await;
    }

    /// All metrics, in the Prometheus text format. Must be called in the runtime.
    pub fn metrics(&self) -> Vec<u8> {
        let now = Timestamp::now();
        for backend in &self.state().backends {
            for kind in Kind::all() {
                let success = self.registry.history.last_success(backend.url(), kind);
                backend.metrics.set_last_success(kind, success.map_or(0.0, |success| success.at.seconds()));
            }
            backend.metrics.set_frame_age(self.registry.frame_age(backend, now));
        }
        telemetry::metrics_text(&self.registry.reading())
    }
}
