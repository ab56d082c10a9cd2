//! What is served: one module for each surface.

pub mod admin;
mod forwarded;
mod front;
mod interim;
mod jobs;
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

use crate::backend::API_KEY;
use crate::config::Config;
use crate::core::credential::ApiKey;
use crate::job::Registry;
use crate::ledger::Ledger;
use crate::tls::TlsError;

pub use front::{Entrance, Peer, REJECTED, Stopped};
pub use interim::Interim;
pub use slots::{Slot, Slots};
pub use state::State;

use shims::Keyring;
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
    reload: Arc<dyn Reload>,
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
        let state = State::new(config, None)?;
        let registry = Registry::new(Arc::clone(&state.config), ledger);
        Ok(Self {
            state: Sender::new(Arc::new(state)),
            registry,
            streams: Slots::default(),
            requests: Slots::default(),
            tunnels: Tunnels::default(),
            keyring,
            reload,
        })
    }

    /// What requests are answered by now.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// From now on requests are answered by `state`. Streams and tunnels that are there keep what they have.
    pub fn replace(&self, state: State) {
        self.registry.configure(Arc::clone(&state.config));
        self.state.send_replace(Arc::new(state));
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

/// The key that a client sent, in either of the forms that plugins have used.
fn key_of(headers: &HeaderMap) -> Option<ApiKey> {
    let named = || headers.get(API_KEY)?.to_str().ok()?.parse().ok();
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") { key.trim().parse().ok() } else { None }
    };
    named().or_else(bearer)
}
