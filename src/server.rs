//! Listeners: connections in, answers out, and an end in good order.

mod patience;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Config;
use crate::handler::{Bridge, admin};
use crate::respond::Body;
use patience::Patience;

/// How long connections have to take their last bytes when the bridge stops.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// The bridge, with its listeners bound.
#[derive(Debug)]
pub struct Server {
    clients: TcpListener,
    admin: TcpListener,
    bridge: Arc<Bridge>,
    patience: Limits,
    stop: watch::Sender<bool>,
}

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
struct Limits {
    head: Duration,
    write: Duration,
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key})")]
pub struct BindError {
    address: SocketAddr,
    key: &'static str,
    source: std::io::Error,
}

impl Server {
    /// Binds the listeners of `config`.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address that cannot be had, and its key.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let clients = bind(config.listen, "listen").await?;
        let admin = bind(config.admin_listen, "admin_listen").await?;
        let (stop, stopped) = watch::channel(false);
        let patience = Limits { head: config.limits.client_head, write: config.limits.client_write };
        Ok(Self { clients, admin, bridge: Arc::new(Bridge::new(config, stopped)), patience, stop })
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

    /// Serves until `shutdown` is done. Then running jobs end as interrupted, their readers get the end
    /// of their streams, and connections close.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.clients.accept() => {
                    let Some(stream) = accepted_stream(accepted).await else { continue };
                    let bridge = Arc::clone(&self.bridge);
                    let answer = move |request| {
                        let bridge = Arc::clone(&bridge);
                        async move { bridge.answer(request).await }
                    };
                    connections.spawn(serve(stream, answer, self.patience, self.stop.subscribe()));
                }
                accepted = self.admin.accept() => {
                    let Some(stream) = accepted_stream(accepted).await else { continue };
                    let answer = |request: Request<Incoming>| async move { admin::answer(&request) };
                    connections.spawn(serve(stream, answer, self.patience, self.stop.subscribe()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop((self.clients, self.admin));
        self.stop.send_replace(true);
        let all_closed = async { while connections.join_next().await.is_some() {} };
        if timeout(LAST_BYTES, all_closed).await.is_err() {
            tracing::warn!("Clients did not take their last bytes and were dropped.");
        }
    }
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, key, source })
}

async fn accepted_stream(accepted: std::io::Result<(TcpStream, SocketAddr)>) -> Option<TcpStream> {
    match accepted {
        Ok((stream, _)) => {
            // A frame that waits for more frames is a frame that comes too late.
            let _ = stream.set_nodelay(true);
            Some(stream)
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
