//! Listeners: connections in, answers out, and an end in good order.

mod activity;
mod certificate;
mod connection;
mod listener;
mod patience;
mod reload;
mod screen;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::{self, Config};
use crate::handler::{Bridge, Entrance};
use crate::ledger;
use crate::tls::{TlsError, Trust};

use certificate::Certificate;
use listener::{Door, Listeners};

pub use crate::handler::OpenError;
pub use reload::{ReloadError, Reloader};

/// How long connections have to take their last bytes when the bridge stops.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// The same when it stops in a hurry.
const LAST_BYTES_IN_A_HURRY: Duration = Duration::from_secs(1);
/// How often what is older than it is to be kept is removed.
const CLEANING: Duration = Duration::from_secs(60 * 60);
/// How often the files of the certificate are looked at.
const CERTIFICATE: Duration = Duration::from_secs(60);

/// The bridge, with its listeners bound.
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    bridge: Arc<Bridge>,
    certificate: Certificate,
    reloader: Reloader,
    reloads: mpsc::Receiver<reload::Wanted>,
    source: Option<reload::Source>,
}

/// Why the bridge cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The key that says so.
        key: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The ledger is of another bridge.
    #[error(transparent)]
    Ledger(#[from] ledger::OpenError),
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something that the bridge keeps cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Server {
    /// Binds the listeners of `config`, and opens its ledger.
    ///
    /// # Errors
    ///
    /// [`StartError`] names what cannot be had, and what to do about it.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let certificate = Certificate::load(config.tls.as_ref())?;
        let mut bound = Vec::new();
        for (door, address) in doors(&config) {
            bound.push((door, address, bind(door, address).await?));
        }
        let ledger = ledger::Sqlite::open(ledger::Options {
            directory: config.data_dir.clone(),
            retention: config.limits.retention,
            log_retention: config.limits.log_retention,
            log_frames: config.jobs.log_frames,
        });
        let ledger = ledger.await?;
        let (sender, reloads) = mpsc::channel(1);
        let reloader = Reloader::new(sender);
        let bridge = Arc::new(Bridge::new(config, ledger, Arc::new(reloader.clone()))?);
        let mut listeners = Listeners::new(Arc::clone(&bridge), certificate.current());
        for (door, address, listener) in bound {
            listeners.open(door, address, listener);
        }
        tell(&bridge.state().config);
        listeners.tell();
        Ok(Self { listeners, bridge, certificate, reloader, reloads, source: None })
    }

    /// Makes it `read` its configuration again when it is asked to.
    #[must_use]
    pub fn reloading(self, read: impl Fn() -> Result<Config, config::Error> + Send + 'static) -> Self {
        Self { source: Some(reload::Source::new(read)), ..self }
    }

    /// What asks it to read its configuration again.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// The first address that clients are served on.
    ///
    /// # Errors
    ///
    /// What the system says of a socket that has none.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listeners.address(|door| matches!(door, Door::Clients(_)))
    }

    /// The address of the admin listener.
    ///
    /// # Errors
    ///
    /// What the system says of a socket that has none.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.listeners.address(|door| *door == Door::Admin)
    }

    /// Every address that is listened on, with the key that says so.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.listeners.addresses()
    }

    /// Serves until `shutdown` is done. From then on no job begins, and those that run have `limits.drain` to
    /// end, or until `hurry` is done. What is left then ends as interrupted, the readers get the end of
    /// their streams, and connections close.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>, hurry: impl Future<Output = ()>) {
        self.serve_until(shutdown).await;
        let registry = Arc::clone(&self.bridge.registry);
        registry.drain();
        let limits = self.bridge.state().config.limits.clone();
        tracing::info!(drain_seconds = limits.drain.as_secs_f64(), "Stopping: no job begins any more.");
        let mut hurry = std::pin::pin!(hurry.fuse());
        let drained = async {
            tokio::select! {
                () = &mut hurry => {}
                _ = timeout(limits.drain, registry.idle()) => {}
            }
        };
        // Clients are served until then: those who come back to their jobs, and whatever passes through.
        self.serve_until(drained).await;
        registry.close().await;
        self.bridge.close_tunnels().await;
        let Self { listeners, bridge, reloads, .. } = self;
        // Whoever asks for one now is told that there is none.
        drop(reloads);
        let patience = async {
            tokio::select! {
                () = sleep(LAST_BYTES) => {}
                // Also if it was said before.
                () = async { if !hurry.is_terminated() { hurry.await } } => sleep(LAST_BYTES_IN_A_HURRY).await,
            }
        };
        tokio::select! {
            () = listeners.close() => {}
            () = patience => tracing::warn!("Clients did not take their last bytes and were dropped."),
        }
        // A disk that hangs must not keep the process.
        if timeout(limits.ledger, bridge.registry.ledger().close()).await.is_err() {
            tracing::error!(
                "The ledger could not be closed in time (limits.ledger); what it had yet to write is lost."
            );
        }
    }

    async fn serve_until(&mut self, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        let [mut cleaning, mut looking] = [CLEANING, CERTIFICATE].map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            tokio::select! {
                () = &mut until => return,
                wanted = self.reloads.recv() => {
                    if let Some(wanted) = wanted {
                        let _ = wanted.send(self.reload().await);
                    }
                }
                _ = cleaning.tick() => {
                    let bridge = Arc::clone(&self.bridge);
                    self.listeners.spawn(async move { bridge.registry.clean().await });
                }
                _ = looking.tick() => self.certificate.look(),
                () = self.listeners.tidy() => {}
            }
        }
    }
}

/// Says what the bridge stands in front of, and what is not safe about it.
fn tell(config: &Config) {
    for backend in &config.backends {
        let config::Backend { name, url, channel, trust, .. } = backend;
        tracing::info!(backend = name, %url, %channel, "Standing in front of a backend.");
        if *trust == Trust::Insecure {
            tracing::warn!(
                backend = name,
                "The certificate of this backend is not checked (backend.insecure): whoever is between it and \
                 the bridge can read and change everything."
            );
        }
    }
}

/// The addresses that `config` has clients and operators come to.
fn doors(config: &Config) -> Vec<(Door, SocketAddr)> {
    let own = config.backends.iter().filter_map(|backend| backend.listen);
    let mut doors: Vec<_> = own.map(|own| (Door::Clients(Entrance::Own(own)), own)).collect();
    if config.backends.iter().any(|backend| backend.listen.is_none()) {
        doors.insert(0, (Door::Clients(Entrance::Common), config.listen));
    }
    doors.push((Door::Admin, config.admin_listen));
    doors
}

async fn bind(door: Door, address: SocketAddr) -> Result<TcpListener, StartError> {
    let key = door.key();
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, key, source })
}
