//! The proxy: requests for a backend, and their responses.

mod coalesce;
mod compat;
mod cors;
pub(crate) mod credentials;
pub(crate) mod errors;
pub(crate) mod forwarded;
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

use crate::app::{App, AppState, Reloader};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::private::Unreadable;
use crate::tls::TlsError;

use compat::{Keyring, PendingRestarts};
use cors::CorsCache;
use netbox::NetboxProxy;
use quota::{Quota, QuotaKey};
use tunnel::Tunnels;

/// The state for serving requests to backends.
#[derive(Debug)]
pub struct Proxy {
    /// The state shared with the admin listener.
    pub app: Arc<App>,
    /// The open streams and tunnels, per client and per key.
    streams: Quota<QuotaKey>,
    /// The requests in flight to backends, per client.
    requests: Quota<QuotaKey>,
    tunnels: Tunnels,
    /// The CORS headers of backends.
    cors: CorsCache,
    keyring: Keyring,
    restarts: Arc<PendingRestarts>,
    pub(crate) netbox: NetboxProxy,
}

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file in `data_dir` cannot be used.
    #[error(transparent)]
    State(#[from] Unreadable),
}

impl Proxy {
    /// Creates a proxy for the backends of `config`, which records its jobs in `ledger`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the unusable file.
    pub fn new(config: Config, ledger: Arc<Ledger>, reload: Reloader) -> Result<Self, OpenError> {
        let keyring = Keyring::open(config.data_dir.as_deref())?;
        let restarts = Arc::new(PendingRestarts::open(config.data_dir.as_deref())?);
        let netbox = NetboxProxy::open(config.data_dir.as_deref())?;
        let app = App::new(AppState::new(config, None)?, ledger, reload);
        restarts.resume(&app.registry, &app.state().backends);
        netbox.retain(&app.state().backends);
        Ok(Self {
            app: Arc::new(app),
            streams: Quota::default(),
            requests: Quota::default(),
            tunnels: Tunnels::default(),
            cors: CorsCache::default(),
            keyring,
            restarts,
            netbox,
        })
    }

    /// Serves new requests with `state`, as [`App::replace`] does.
    pub fn replace(&self, state: AppState) {
        self.restarts.resume(&self.app.registry, &state.backends);
        self.netbox.retain(&state.backends);
        self.app.replace(state);
    }

    /// Closes the tunnels.
    pub async fn close_tunnels(&self) {
        self.tunnels.close().await;
    }
}
