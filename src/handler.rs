//! What is served: one module for each surface.

pub mod admin;
mod credentials;
mod doors;
mod forwarded;
mod front;
mod interim;
mod jobs;
mod netbox;
mod passthrough;
mod shield;
mod shims;
mod slots;
mod socket;
mod state;
mod streams;
mod sync;
mod trace;
mod tunnel;
mod watch;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::watch::Sender;
use uuid::Uuid;

use crate::backend::API_KEY;
use crate::config::Config;
use crate::core::credential::ApiKey;
use crate::core::kind::Kind;
use crate::core::outcome::Outcome;
use crate::job::Registry;
use crate::ledger::{Filter, Ledger, Timestamp};
use crate::telemetry;
use crate::tls::TlsError;

pub use doors::Doors;
pub use front::{Entrance, Peer, REJECTED, Stopped, Stuck, is_sync_stream};
pub use interim::Interim;
pub use slots::{Slot, Slots};
pub use state::State;

use netbox::NetboxSide;
use shims::{Keyring, Restarts};
use slots::StreamKey;
use tunnel::Tunnels;

/// Everything that serves clients.
#[derive(Debug)]
pub struct Bridge {
    state: Sender<Arc<State>>,
    /// Its jobs.
    pub registry: Arc<Registry>,
    /// Who has how many streams and tunnels.
    streams: Slots<StreamKey>,
    /// Who has how many requests on their way to a backend.
    requests: Slots<StreamKey>,
    tunnels: Tunnels,
    keyring: Keyring,
    restarts: Arc<Restarts>,
    netbox: NetboxSide,
    reload: Arc<dyn Reload>,
    /// Where it listens.
    pub doors: Doors,
    instance: Instance,
}

/// This process, as those know it who watch it.
#[derive(Debug)]
struct Instance {
    /// No other process has it.
    id: String,
    /// When it began.
    started: String,
}

/// Why there is no bridge.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of registered keys cannot be used.
    #[error(
        "cannot read registered-keys.json in data_dir ({0}): mend it, or take it away and register again"
    )]
    Keys(#[from] std::io::Error),
    /// The file of backends that wait for a restart cannot be used.
    #[error("cannot read awaiting-restart.json in data_dir ({0}): delete it once the backend was restarted")]
    Restarts(#[source] std::io::Error),
    /// The file of NetBox endpoints cannot be used.
    #[error(
        "cannot read netbox-endpoints.json in data_dir ({0}): delete it, and the plugin pushes them again"
    )]
    Netbox(#[source] std::io::Error),
}

/// Whoever can read the configuration again.
pub trait Reload: std::fmt::Debug + Send + Sync {
    /// Reads it again, and gives the reason if nothing has changed.
    fn reload(&self) -> BoxFuture<'_, Result<(), String>>;
}

impl Bridge {
    /// A bridge in front of the backends that `config` names, whose jobs are recorded in `ledger`.
    ///
    /// # Errors
    ///
    /// What is wrong with the files that certificates of backends are checked by, or with the one of keys.
    pub fn new(config: Config, ledger: Arc<dyn Ledger>, reload: Arc<dyn Reload>) -> Result<Self, OpenError> {
        let keyring = Keyring::open(config.data_dir.as_deref())?;
        let restarts = Arc::new(Restarts::open(config.data_dir.as_deref()).map_err(OpenError::Restarts)?);
        let netbox = NetboxSide::open(config.data_dir.as_deref()).map_err(OpenError::Netbox)?;
        let state = State::new(config, None)?;
        let registry = Registry::new(Arc::clone(&state.config), ledger);
        state.count();
        restarts.resume(&registry, &state.backends);
        Ok(Self {
            state: Sender::new(Arc::new(state)),
            registry,
            streams: Slots::default(),
            requests: Slots::default(),
            tunnels: Tunnels::default(),
            keyring,
            restarts,
            netbox,
            reload,
            doors: Doors::default(),
            instance: Instance { id: Uuid::new_v4().to_string(), started: Timestamp::now().to_string() },
        })
    }

    /// What requests are answered by now.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// From now on requests are answered by `state`. Streams and tunnels that are there keep what they have.
    pub fn replace(&self, state: State) {
        self.registry.configure(Arc::clone(&state.config));
        self.restarts.resume(&self.registry, &state.backends);
        state.count();
        self.state.send_replace(Arc::new(state));
    }

    /// Tells the metrics when each kind of job last completed, and a job on each backend, as the ledger has it.
    pub async fn recall(&self) {
        let state = self.state();
        let ledger = self.registry.ledger();
        let of = |kind, backend| Filter {
            kind,
            backend,
            outcome: Some(Outcome::Completed),
            since: None,
            before: None,
            limit: 1,
        };
        let last = async |filter| {
            // Of a ledger that does not work, it tells itself.
            let found = ledger.jobs(filter).await.ok()?;
            Some(found.first()?.end.as_ref()?.finished.seconds())
        };
        for kind in Kind::all() {
            if let Some(at) = last(of(Some(kind), None)).await {
                telemetry::last_success(kind, at);
            }
        }
        for backend in &state.backends {
            if let Some(at) = last(of(None, Some(backend.url().to_string()))).await {
                backend.metrics.succeeded(at);
            }
        }
    }

    /// Takes the places on the backends that may be at work for jobs of an earlier process.
    pub async fn resume_cooldowns(&self) {
        let state = self.state();
        self.registry.resume_cooldowns(&state.backends).await;
    }

    /// Ends the tunnels.
    pub async fn close_tunnels(&self) {
        self.tunnels.close().await;
    }
}

/// Where keys are registered, which makes them right if they were wrong.
const REGISTER: &str = "/auth/register-key";
/// Where they are looked at.
const KEYS: &str = "/auth/keys";

/// The key that a client sent, in one of the forms that plugins have used.
fn key_of(headers: &HeaderMap) -> Option<ApiKey> {
    let named = || headers.get(API_KEY)?.to_str().ok()?.parse().ok();
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let is_known = ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        if is_known { key.trim().parse().ok() } else { None }
    };
    named().or_else(bearer)
}
