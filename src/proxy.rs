//! The proxy: requests for a backend, and their answers.

mod coalesce;
mod compat;
pub(crate) mod credentials;
pub(crate) mod errors;
mod forwarded;
pub(crate) mod headers;
pub mod informational;
mod netbox;
mod passthrough;
pub mod quota;
pub mod request;
mod request_id;
pub mod router;
pub(crate) mod streams;
pub(crate) mod subscriber;
mod tunnel;
mod websocket;

use std::sync::Arc;

use crate::app::{App, Reload, State};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::tls::TlsError;

use compat::{Keyring, Restarts};
use netbox::NetboxSide;
use quota::{Slots, StreamKey};
use tunnel::Tunnels;

/// The proxy: what it needs to answer requests for a backend.
#[derive(Debug)]
pub struct Proxy {
    /// The state that it shares with the admin listener.
    pub app: Arc<App>,
    /// The streams and tunnels that each client and each key has open.
    streams: Slots<StreamKey>,
    /// The requests that each client has in flight to a backend.
    requests: Slots<StreamKey>,
    tunnels: Tunnels,
    keyring: Keyring,
    restarts: Arc<Restarts>,
    netbox: NetboxSide,
}

/// Why the proxy cannot start.
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

impl Proxy {
    /// A proxy for the backends of `config`, whose jobs are recorded in `ledger`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file that cannot be used.
    pub fn new(config: Config, ledger: Arc<dyn Ledger>, reload: Arc<dyn Reload>) -> Result<Self, OpenError> {
        let keyring = Keyring::open(config.data_dir.as_deref())?;
        let restarts = Arc::new(Restarts::open(config.data_dir.as_deref()).map_err(OpenError::Restarts)?);
        let netbox = NetboxSide::open(config.data_dir.as_deref()).map_err(OpenError::Netbox)?;
        let app = App::new(State::new(config, None)?, ledger, reload);
        restarts.resume(&app.registry, &app.state().backends);
        Ok(Self {
            app: Arc::new(app),
            streams: Slots::default(),
            requests: Slots::default(),
            tunnels: Tunnels::default(),
            keyring,
            restarts,
            netbox,
        })
    }

    /// Serves new requests by `state`, as [`App::replace`] does.
    pub fn replace(&self, state: State) {
        self.restarts.resume(&self.app.registry, &state.backends);
        self.netbox.keep(&state.backends);
        self.app.replace(state);
    }

    /// Closes the tunnels.
    pub async fn close_tunnels(&self) {
        self.tunnels.close().await;
    }
}
