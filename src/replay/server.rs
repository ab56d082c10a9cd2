//! The server: listening, connections, shutdown.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use super::Shared;
use super::connection::serve;
use super::keys::KeyCheck;
use super::{Library, ReplayOptions, ServerLog};

/// The pause after an accept error, which is mostly caused by too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A fake backend that is bound to its port and does not serve yet.
pub struct ReplayServer {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl ReplayServer {
    /// Binds to an address. Port 0 selects a free port.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        address: impl ToSocketAddrs,
        library: Library,
        options: ReplayOptions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let keys = KeyCheck::new(options.api_key.clone());
        let shared = Arc::new(Shared { library, options, keys, log: ServerLog::new() });
        Ok(Self { listener, address, shared })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The log of the server. It outlives the server.
    pub fn log(&self) -> ServerLog {
        self.shared.log.clone()
    }

    /// Serves until `shutdown` completes. Then it drops all connections and returns when they are closed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut connections = JoinSet::new();
        let mut number = 0;
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Recorded frames must arrive one by one, as from the backend.
                        let _ = stream.set_nodelay(true);
                        connections.spawn(serve(Arc::clone(&self.shared), stream, number));
                        number += 1;
                    }
                    Err(error) => {
                        warn!(%error, "Cannot accept a connection.");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
    }

    /// Serves in a new task, until the handle is stopped or dropped.
    pub fn spawn(self) -> ReplayHandle {
        let (address, log) = (self.local_addr(), self.log());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(self.run(async {
            // A dropped sender stops the server, too.
            let _ = stopped.await;
        }));
        ReplayHandle { address, log, stop: Some(stop), task }
    }
}

/// A running server. Dropping the handle ends the server and all its connections.
pub struct ReplayHandle {
    address: SocketAddr,
    log: ServerLog,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl ReplayHandle {
    /// The address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The log of the server.
    pub fn log(&self) -> ServerLog {
        self.log.clone()
    }

    /// Stops the server and returns when its port and all its connections are closed.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the server has already stopped.
            let _ = stop.send(());
        }
        // An error is a panic in the server. The panic hook has reported it.
        let _ = (&mut self.task).await;
    }
}

impl Drop for ReplayHandle {
    fn drop(&mut self) {
        // The connections are owned by the task and are aborted with it.
        self.task.abort();
    }
}
