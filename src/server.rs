//! Listeners: they accept connections, serve them, and shut down gracefully.

mod activity;
mod certificate;
mod connection;
mod files;
mod http1_guard;
mod http_connection;
mod inherited;
mod listener;
mod reload;
mod role;
mod stream_response;
mod stream_slot;
mod supervisor;
mod write_timeout;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::app::{BackendObserver, ClientListener, ReloadReply, Reloader};
use crate::config::{self, Config, WithoutLedger};
use crate::core::remote::Remote;
use crate::job;
use crate::ledger::{self, CLEANING_INTERVAL, Cleaning};
use crate::notify;
use crate::proxy::Proxy;
use crate::telemetry;
use crate::tls::{TlsError, Trust};

use certificate::Certificates;
use files::READ_TIMEOUT;
use listener::ListenerSet;
use role::ListenerRole;

pub use crate::proxy::OpenError;
pub use inherited::{InheritError, InheritedListeners};

/// How long a connection is still read from after its last response. Closing a socket with unread data resets the
/// connection, and the client may lose the response.
const LINGER: Duration = Duration::from_secs(2);
/// How long connections may take to receive their last bytes when the bridge stops.
const STOP_LINGER: Duration = Duration::from_secs(10);
/// The same limit for a hurried stop.
const STOP_LINGER_HURRIED: Duration = Duration::from_secs(1);
/// The interval between checks of whether a backend check is due, and between writes of suppressed log lines.
const CHECKING: Duration = Duration::from_secs(1);
/// The interval between checks of the certificate files.
const CERTIFICATE: Duration = Duration::from_secs(60);

/// The bridge, with its listeners bound.
#[derive(Debug)]
pub struct Server {
    listeners: ListenerSet,
    proxy: Arc<Proxy>,
    certificates: Certificates,
    reloads: mpsc::Receiver<ReloadReply>,
    source: Option<reload::ConfigSource>,
    reloading: reload::PendingReload,
    /// Background tasks, aborted when serving ends.
    background: JoinSet<()>,
}

/// Why the bridge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound to this address, which this key configures.
    #[error("cannot listen on {0} ({1})")]
    Bind(SocketAddr, &'static str, #[source] std::io::Error),
    /// The inherited admin listener is reachable by others.
    #[error(
        "the socket for operators that the bridge was started with listens on {0}, which is not a loopback \
         address: set admin_token_file to a file with a token, such as `openssl rand -hex 32` makes"
    )]
    OpenAdmin(SocketAddr),
    /// The process inherited a listener that nothing is served on.
    #[error(
        "the bridge was started with a socket called {0}, and every backend has a listen of its own: take the \
         socket away, or one of these"
    )]
    UnusedSocket(&'static str),
    /// The ledger is in use by another bridge.
    #[error(transparent)]
    Ledger(#[from] ledger::LedgerOpenError),
    /// There is no ledger in `data_dir`, and none can be created.
    #[error(
        "data_dir cannot be used, and no ledger was found there ({0}): let it be a directory that the user of the \
         bridge can write to, or set jobs.without_ledger = \"continue\" to run without a record of jobs"
    )]
    DataDir(String),
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A state file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Server {
    /// Binds the listeners of `config`, and opens its ledger.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with(config, InheritedListeners::default()).await
    }

    /// [`Server::bind`] with inherited listeners.
    pub async fn bind_with(config: Config, mut inherited: InheritedListeners) -> Result<Self, StartError> {
        let mut certificates = Certificates::load(&config)?;
        let mut bound = Vec::new();
        for (role, address) in listener_roles(&config) {
            let listener = match inherited.take_for(role.key()) {
                Some(listener) => adopt_listener(role, address, listener, &config)?,
                None => bind(role, address).await?,
            };
            bound.push((role, address, listener));
        }
        if let Some(name) = inherited.unused_key() {
            return Err(StartError::UnusedSocket(name));
        }
        let ledger = ledger::Ledger::open(ledger::LedgerOptions {
            directory: config.data_dir.clone(),
            retention: job::retention(&config.limits),
            log_frames: config.jobs.log_frames,
            busy_timeout: Duration::from_secs(2),
            clock: Arc::new(ledger::SystemClock),
            notifications: notify::rules(&config),
        });
        let ledger = ledger.await?;
        if config.jobs.without_ledger != Some(WithoutLedger::Continue)
            && let Some(problem) = ledger.never_worked()
        {
            return Err(StartError::DataDir(problem.to_owned()));
        }
        let (sender, reloads) = mpsc::channel(1);
        let proxy = Arc::new(Proxy::new(config, ledger, Reloader::new(sender))?);
        proxy.app.registry.restore_lost_records();
        proxy.app.restore().await;
        let mut listeners = ListenerSet::new(Arc::clone(&proxy));
        for (role, address, listener) in bound {
            listeners.open(role, address, listener, certificates.config_for(role));
        }
        certificates.log_validity();
        telemetry::ConfigReloaded::in_force_now();
        log_startup(&proxy.app.state().config);
        listeners.log_addresses();
        let (reloading, background) = (reload::PendingReload::default(), JoinSet::new());
        Ok(Self { listeners, proxy, certificates, reloads, source: None, reloading, background })
    }

    /// Sets the function that reads the configuration on a reload. It is called on another thread.
    #[must_use]
    pub fn reloading(
        self,
        read: impl Fn() -> Result<Config, config::ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(reload::ConfigSource::new(read)), ..self }
    }

    /// Notifies `observer` of the connections to the backends. It is not for a server that reloads its configuration:
    /// backends of a later configuration are not observed.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn BackendObserver>) -> Self {
        self.proxy.app.observe(&observer);
        self
    }

    /// A handle that requests a reload.
    pub fn reloader(&self) -> Reloader {
        self.proxy.app.reload.clone()
    }

    /// The first address that clients are served on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listeners.address(|role| matches!(role, ListenerRole::Clients(_)))
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.listeners.address(|role| *role == ListenerRole::Admin)
    }

    /// Every listening address, with the key that configures it.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.listeners.addresses()
    }

    /// Serves until `shutdown` completes. From then on no job is admitted, and running jobs may take `limits.drain`
    /// to end, or until `hurry` completes. The remaining jobs are then interrupted, their streams are ended, and
    /// connections close.
    pub async fn run(self, shutdown: impl Future<Output = ()>, hurry: impl Future<Output = ()>) {
        supervisor::watched(self.serve(shutdown, hurry)).await;
    }

    async fn serve(mut self, shutdown: impl Future<Output = ()>, hurry: impl Future<Output = ()>) {
        self.prune_netbox_endpoints();
        self.start_notifications();
        supervisor::ready(&self.status());
        self.serve_until(shutdown).await;
        let registry = Arc::clone(&self.proxy.app.registry);
        registry.drain();
        let limits = self.proxy.app.state().config.limits.clone();
        telemetry::DrainStarted { limit: limits.drain }.emit();
        supervisor::stopping("Waiting for the jobs that run.");
        let mut hurry = std::pin::pin!(hurry.fuse());
        let drained = async {
            tokio::select! {
                () = &mut hurry => {}
                _ = timeout(limits.drain, registry.idle()) => {}
            }
        };
        // Clients are served while jobs drain: they may resume their streams, and other requests are forwarded.
        self.serve_until(drained).await;
        registry.close().await;
        self.proxy.close_tunnels().await;
        let Self { listeners, reloads, reloading, .. } = self;
        // Dropping these answers all pending and later reload requests with an error.
        drop((reloads, reloading));
        let grace_period = async {
            tokio::select! {
                () = sleep(STOP_LINGER) => {}
                // Also if `hurry` completed before.
                () = async { if !hurry.is_terminated() { hurry.await } } => sleep(STOP_LINGER_HURRIED).await,
            }
        };
        tokio::select! {
            () = listeners.close() => {}
            () = grace_period => telemetry::BridgeStopped::WithoutClients.emit(),
        }
        // A hung disk must not block the exit.
        if timeout(limits.ledger, registry.ledger().close()).await.is_err() {
            telemetry::BridgeStopped::WithoutLedger.emit();
        }
    }

    async fn serve_until(&mut self, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        let [mut cleaning, mut looking, mut checking] =
            [CLEANING_INTERVAL, CERTIFICATE, CHECKING].map(|period| {
                let mut ticks = interval(period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
        // The files were read at startup.
        looking.reset();
        loop {
            tokio::select! {
                () = &mut until => return,
                wanted = self.reloads.recv(), if self.reloading.is_free() => {
                    if let Some(wanted) = wanted {
                        self.begin_reload(wanted);
                    }
                }
                prepared = self.reloading.prepared() => self.end_reload(prepared).await,
                _ = cleaning.tick() => {
                    let proxy = Arc::clone(&self.proxy);
                    self.background.spawn(async move {
                        // An unavailable ledger reports itself.
                        let _ = proxy.app.registry.clean(Cleaning::Scheduled).await;
                    });
                }
                _ = looking.tick() => self.start_certificate_check(),
                () = self.certificates.looked() => {}
                _ = checking.tick() => {
                    telemetry::flush_throttled_lines();
                    for backend in self.proxy.app.state().backends.iter().filter(|backend| backend.is_check_due()) {
                        let backend = Arc::clone(backend);
                        self.background.spawn(async move { backend.check().await });
                    }
                }
                () = self.listeners.reap() => {}
                Some(_) = self.background.join_next() => {}
            }
        }
    }

    /// Starts to check whether certificate files have changed, on one thread per owner: if the files of one hang, the
    /// others are still read.
    fn start_certificate_check(&mut self) {
        self.certificates.look();
        let state = self.proxy.app.state();
        let remotes = state.backends.iter().map(Arc::clone).chain(self.proxy.netboxes());
        for backend in remotes.filter(|remote| remote.url().is_tls()) {
            let reading = Arc::clone(&backend);
            self.background.spawn(async move {
                let read = timeout(READ_TIMEOUT, spawn_blocking(move || reading.reload_files())).await;
                if !read.is_ok_and(|read| read.is_ok()) {
                    let name = backend.config().name.as_str();
                    let owner = match backend.remote() {
                        Remote::Backend => telemetry::FilesOf::Backend(name),
                        Remote::Netbox => telemetry::FilesOf::Netbox(name),
                    };
                    telemetry::CertificatesOverdue { owner, limit: READ_TIMEOUT }.emit();
                }
            });
        }
    }

    /// Starts to remove the NetBox endpoints of listeners that are not configured any more.
    fn prune_netbox_endpoints(&mut self) {
        let proxy = Arc::clone(&self.proxy);
        self.background.spawn(async move {
            proxy.remove_unused_netbox_endpoints().await;
        });
    }

    /// Starts to deliver notifications, those of an earlier process included.
    fn start_notifications(&mut self) {
        let proxy = Arc::clone(&self.proxy);
        let ledger = Arc::clone(proxy.app.registry.ledger());
        self.background.spawn(notify::run(ledger, move || Arc::clone(&proxy.app.state().config)));
    }

    /// The status for the supervisor.
    fn status(&self) -> String {
        let state = self.proxy.app.state();
        let addresses = self.addresses().into_iter().map(|(key, address)| format!("{key} {address}"));
        let addresses: Vec<String> = addresses.collect();
        format!("In front of {}; {}.", state.names(), addresses.join(", "))
    }
}

/// Takes the inherited listener that replaces the one at `address`.
fn adopt_listener(
    role: ListenerRole,
    address: SocketAddr,
    listener: std::net::TcpListener,
    config: &Config,
) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Bind(address, role.key(), source);
    let real = listener.local_addr().map_err(failed)?;
    if role == ListenerRole::Admin
        && !real.ip().to_canonical().is_loopback()
        && config.admin_tokens.is_empty()
    {
        return Err(StartError::OpenAdmin(real));
    }
    TcpListener::from_std(listener).map_err(failed)
}

/// Logs the configured backends, and insecure settings.
fn log_startup(config: &Config) {
    for backend in &config.backends {
        let config::BackendConfig { name, url, channel, trust, .. } = backend;
        let is_insecure = *trust == Trust::Insecure;
        telemetry::BackendConfigured { backend: name, url, channel: *channel, is_insecure }.emit();
    }
}

/// The configured addresses for clients and operators.
fn listener_roles(config: &Config) -> Vec<(ListenerRole, SocketAddr)> {
    let own = config.backends.iter().filter_map(|backend| backend.listen);
    let mut roles: Vec<_> =
        own.map(|own| (ListenerRole::Clients(ClientListener::Dedicated(own)), own)).collect();
    if config.backends.iter().any(|backend| backend.listen.is_none()) {
        roles.insert(0, (ListenerRole::Clients(ClientListener::Shared), config.listen));
    }
    roles.push((ListenerRole::Admin, config.admin_listen));
    let netbox = config.backends.iter().filter_map(|backend| Some(backend.netbox.as_ref()?.listen));
    roles.extend(netbox.map(|address| (ListenerRole::Netbox(address), address)));
    roles
}

async fn bind(role: ListenerRole, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind(address, role.key(), source))
}
