//! Listeners: connections in, answers out, and an end in good order.

mod patience;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::Config;
use crate::handler::{Bridge, admin};
use crate::ledger;
use crate::respond::Body;
use patience::Patience;

/// How long connections have to take their last bytes when the bridge stops.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// The same when it stops in a hurry.
const LAST_BYTES_IN_A_HURRY: Duration = Duration::from_secs(1);
/// How often what is older than it is to be kept is removed.
const CLEANING: Duration = Duration::from_secs(60 * 60);

/// The bridge, with its listeners bound.
#[derive(Debug)]
pub struct Server {
    clients: TcpListener,
    admin: TcpListener,
    bridge: Arc<Bridge>,
    patience: Limits,
    drain: Duration,
    ledger: Duration,
    stop: watch::Sender<bool>,
}

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
struct Limits {
    head: Duration,
    write: Duration,
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
}

impl Server {
    /// Binds the listeners of `config`, and opens its ledger.
    ///
    /// # Errors
    ///
    /// [`StartError`] names what cannot be had, and what to do about it.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let clients = bind(config.listen, "listen").await?;
        let admin = bind(config.admin_listen, "admin_listen").await?;
        let ledger = ledger::Sqlite::open(ledger::Options {
            directory: config.data_dir.clone(),
            retention: config.limits.retention,
            log_retention: config.limits.log_retention,
            log_frames: config.jobs.log_frames,
        });
        let ledger = ledger.await?;
        let patience = Limits { head: config.limits.client_head, write: config.limits.client_write };
        let (drain, limit) = (config.limits.drain, config.limits.ledger);
        let bridge = Arc::new(Bridge::new(config, ledger));
        Ok(Self { clients, admin, bridge, patience, drain, ledger: limit, stop: watch::Sender::new(false) })
    }

    /// The address that clients are served on.
    ///
    /// # Errors
    ///
    /// What the system says of a socket that has none.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// The address of the admin listener.
    ///
    /// # Errors
    ///
    /// What the system says of a socket that has none.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown` is done. From then on no job begins, and those that run have `limits.drain` to
    /// end, or until `hurry` is done. What is left then ends as interrupted, the readers get the end of
    /// their streams, and connections close.
    pub async fn run(self, shutdown: impl Future<Output = ()>, hurry: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        self.serve_until(shutdown, &mut connections).await;
        let registry = Arc::clone(&self.bridge.registry);
        registry.drain();
        tracing::info!(drain_seconds = self.drain.as_secs_f64(), "Stopping: no job begins any more.");
        let mut hurry = std::pin::pin!(hurry.fuse());
        let drained = async {
            tokio::select! {
                () = &mut hurry => {}
                _ = timeout(self.drain, registry.idle()) => {}
            }
        };
        // Clients are served until then: those who come back to their jobs, and whatever passes through.
        self.serve_until(drained, &mut connections).await;
        registry.close().await;
        let Self { clients, admin, bridge, stop, ledger, .. } = self;
        drop((clients, admin));
        stop.send_replace(true);
        let all_closed = async { while connections.join_next().await.is_some() {} };
        let patience = async {
            tokio::select! {
                () = sleep(LAST_BYTES) => {}
                // Also if it was said before.
                () = async { if !hurry.is_terminated() { hurry.await } } => sleep(LAST_BYTES_IN_A_HURRY).await,
            }
        };
        tokio::select! {
            () = all_closed => {}
            () = patience => tracing::warn!("Clients did not take their last bytes and were dropped."),
        }
        drop(connections);
        // A disk that hangs must not keep the process.
        if timeout(ledger, bridge.registry.ledger().close()).await.is_err() {
            tracing::error!(
                "The ledger could not be closed in time (limits.ledger); what it had yet to write is lost."
            );
        }
    }

    async fn serve_until(&self, until: impl Future<Output = ()>, connections: &mut JoinSet<()>) {
        let mut until = std::pin::pin!(until);
        let mut cleaning = interval(CLEANING);
        cleaning.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut until => return,
                accepted = self.clients.accept() => {
                    let Some((stream, address)) = accepted_stream(accepted).await else { continue };
                    let bridge = Arc::clone(&self.bridge);
                    let answer = move |request| {
                        let bridge = Arc::clone(&bridge);
                        async move { bridge.answer(request, address).await }
                    };
                    connections.spawn(serve(stream, answer, self.patience, self.stop.subscribe()));
                }
                accepted = self.admin.accept() => {
                    let Some((stream, address)) = accepted_stream(accepted).await else { continue };
                    let bridge = Arc::clone(&self.bridge);
                    let answer = move |request| {
                        let bridge = Arc::clone(&bridge);
                        async move { admin::answer(&bridge, request, address).await }
                    };
                    connections.spawn(serve(stream, answer, self.patience, self.stop.subscribe()));
                }
                _ = cleaning.tick() => {
                    let bridge = Arc::clone(&self.bridge);
                    connections.spawn(async move { bridge.registry.clean().await });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, key, source })
}

async fn accepted_stream(accepted: std::io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, IpAddr)> {
    match accepted {
        Ok((stream, address)) => {
            // A frame that waits for more frames is a frame that comes too late.
            let _ = stream.set_nodelay(true);
            Some((stream, address.ip().to_canonical()))
        }
        Err(error) => {
            // Out of descriptors, mostly: trying again at once would only burn the processor.
            tracing::warn!(%error, "Cannot accept a connection.");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn serve<A, F>(stream: TcpStream, answer: A, patience: Limits, mut stop: watch::Receiver<bool>)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .serve_connection(Patience::new(TokioIo::new(stream), patience.write), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => return log_end(ended),
        // Also when whoever could say stop is gone.
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    log_end(connection.await);
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "A client's connection ended.");
    }
}
