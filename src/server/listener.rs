//! The listeners, and the acceptance of connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::certificate::CurrentConfig;
use super::connection::{self, ConnectionContext};
use super::role::ListenerRole;
use crate::config::Config;
use crate::core::http::limit::{Limit, limited_as};
use crate::proxy::Proxy;
use crate::proxy::quota::{Quota, QuotaGuard};
use crate::respond;
use crate::tcp::TcpOptions;
use crate::telemetry;

/// How many connections beyond a limit are answered at once, on each kind of listener. Further ones are closed
/// without an answer. An answer needs a socket and a task until its client has read it.
const MAX_REFUSALS: usize = 64;

/// The open listeners.
#[derive(Debug)]
pub(super) struct ListenerSet {
    proxy: Arc<Proxy>,
    connections: Quota<ConnectionQuotaKey>,
    open: Vec<ListenerTask>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct ListenerTask {
    role: ListenerRole,
    /// The configured address; port 0 stands for any port.
    configured: SocketAddr,
    address: Option<SocketAddr>,
    certificate: CurrentConfig,
    /// Closes the listener and shuts its connections down gracefully.
    close: watch::Sender<bool>,
}

/// The key that connections are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ConnectionQuotaKey {
    All(telemetry::Listener),
    Address(telemetry::Listener, IpAddr),
    /// Connections beyond a limit that are being answered.
    Refused(telemetry::Listener),
}

impl ListenerSet {
    pub(super) fn new(proxy: Arc<Proxy>) -> Self {
        let (connections, tasks) = (Quota::default(), JoinSet::new());
        Self { proxy, connections, open: Vec::new(), tasks }
    }

    /// Returns whether this listener is open.
    pub(super) fn has(&self, role: ListenerRole, configured: SocketAddr) -> bool {
        self.open.iter().any(|open| (open.role, open.configured) == (role, configured))
    }

    /// Opens a listener, with TLS while there is a `certificate`.
    pub(super) fn open(
        &mut self,
        role: ListenerRole,
        configured: SocketAddr,
        listener: TcpListener,
        certificate: CurrentConfig,
    ) {
        let address = listener.local_addr().ok();
        let close = watch::Sender::new(false);
        let accepting = AcceptLoop {
            role,
            configured,
            address,
            proxy: Arc::clone(&self.proxy),
            certificate: Arc::clone(&certificate),
            connections: self.connections.clone(),
            closing: close.subscribe(),
        };
        if let Some(address) = address {
            self.proxy.app.listeners.open(role.key(), configured, address);
        }
        self.tasks.spawn(accepting.run(listener));
        self.open.push(ListenerTask { role, configured, address, certificate, close });
    }

    /// Logs the listening addresses again.
    pub(super) fn log_addresses(&self) {
        for open in &self.open {
            if let Some(address) = open.address {
                let is_tls = open.certificate.load().is_some();
                telemetry::ListenerOpened { key: open.role.key(), address, is_tls }.emit();
            }
        }
    }

    /// Closes the listeners that are no longer configured.
    pub(super) fn retain(&mut self, configured: &[(ListenerRole, SocketAddr)]) {
        self.open.retain(|open| {
            let keeps = configured.contains(&(open.role, open.configured));
            open.close.send_replace(!keeps);
            if !keeps {
                self.proxy.app.listeners.close(open.role.key(), open.configured);
            }
            keeps
        });
    }

    /// The address of the first listener that matches `is_wanted`.
    pub(super) fn address(&self, is_wanted: impl Fn(&ListenerRole) -> bool) -> std::io::Result<SocketAddr> {
        let found = self.open.iter().find(|open| is_wanted(&open.role)).and_then(|open| open.address);
        found.ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())
    }

    pub(super) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.open.iter().filter_map(|open| Some((open.role.key(), open.address?))).collect()
    }

    /// Reaps a finished task; pends forever if there is none.
    pub(super) async fn reap(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Closes all listeners, and waits until every connection has closed.
    pub(super) async fn close(mut self) {
        for open in self.open {
            open.close.send_replace(true);
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The accept loop of a listener.
struct AcceptLoop {
    role: ListenerRole,
    configured: SocketAddr,
    address: Option<SocketAddr>,
    proxy: Arc<Proxy>,
    certificate: CurrentConfig,
    connections: Quota<ConnectionQuotaKey>,
    closing: watch::Receiver<bool>,
}

impl AcceptLoop {
    async fn run(self, listener: TcpListener) {
        let mut served = JoinSet::new();
        let mut closing = self.closing.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.accept(stream, address.ip().to_canonical(), &mut served),
                    Err(error) => {
                        telemetry::AcceptFailed { error: &error }.emit();
                        self.proxy.app.listeners.fail(self.role.key(), self.configured, error.to_string());
                        // Usually the process is out of file descriptors: an immediate retry would spin.
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                // A dropped sender closes it too.
                () = closing.wait_for(|closing| *closing).map(drop) => break,
                Some(_) = served.join_next() => {}
            }
        }
        drop(listener);
        while served.join_next().await.is_some() {}
    }

    fn accept(&self, stream: TcpStream, address: IpAddr, served: &mut JoinSet<()>) {
        let state = self.proxy.app.state();
        let limits = &state.config.limits;
        TcpOptions::new(limits).apply(&stream);
        let tls = self.certificate.load_full();
        if let ListenerRole::Netbox(wanted) = self.role
            && !self.proxy.netbox_listener_allows(wanted, address)
        {
            telemetry::NetboxAccessDenied { client: address }.emit();
            return;
        }
        let slot = match self.acquire_quota(&state.config, address) {
            Ok(slot) => slot,
            Err(limit) => {
                telemetry::OverLimit { limit, client: address }.emit();
                // Over TLS an answer would need a handshake first.
                if tls.is_none() {
                    self.refuse(stream, limit, limits.client_write, served);
                }
                return;
            }
        };
        let connection = ConnectionContext {
            address,
            role: self.role,
            listen_address: self.address,
            proxy: Arc::clone(&self.proxy),
            config: Arc::clone(&state.config),
            closing: self.closing.clone(),
        };
        // A block would hold what it captures beside what it awaits.
        served.spawn(connection::serve(stream, tls, connection).map(|()| drop(slot)));
    }

    /// Answers a connection beyond `limit`, unless too many are being answered already.
    fn refuse(&self, mut stream: TcpStream, limit: Limit, write_timeout: Duration, served: &mut JoinSet<()>) {
        let refused = (ConnectionQuotaKey::Refused(self.role.listener()), MAX_REFUSALS, limit);
        let Ok(slot) = self.connections.acquire([refused]) else { return };
        served.spawn(async move {
            // No request is read.
            let answer = respond::raw_limit_exceeded(limit);
            let sent = connection::send_and_close(&mut stream, answer.as_bytes());
            let _ = timeout(write_timeout, sent).await;
            drop(slot);
        });
    }

    /// Takes a slot for one more connection. Operators have slots of their own, so that they can connect when clients
    /// have used up theirs.
    fn acquire_quota(
        &self,
        config: &Config,
        address: IpAddr,
    ) -> Result<QuotaGuard<ConnectionQuotaKey>, Limit> {
        let limits = &config.limits;
        let is_proxy = config.trusted_proxies.iter().any(|network| network.contains(&address));
        let listener = self.role.listener();
        let all = (ConnectionQuotaKey::All(listener), limits.connections, Limit::Connections);
        let key = ConnectionQuotaKey::Address(listener, limited_as(address, limits.ipv6_prefix));
        let of_address = (key, limits.connections_per_address, Limit::ConnectionsPerAddress);
        self.connections.acquire([all].into_iter().chain((!is_proxy).then_some(of_address)))
    }
}
