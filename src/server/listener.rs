//! The doors of the bridge, and who comes in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::certificate::Current;
use super::connection::{self, Connection};
use super::door::Door;
use crate::config::Limits;
use crate::core::http::address::limited_as;
use crate::core::http::limit::Limit;
use crate::proxy::Proxy;
use crate::proxy::quota::{Slot, Slots};
use crate::respond;
use crate::tcp::TcpOptions;
use crate::telemetry;

/// How many connections beyond a limit are answered at once, on each sort of listener; more are closed without an
/// answer. An answer takes a socket and a task for as long as its client needs to read it.
const REFUSALS: usize = 64;

/// Every door that is open.
#[derive(Debug)]
pub(super) struct Listeners {
    proxy: Arc<Proxy>,
    connections: Slots<ConnectionKey>,
    open: Vec<Open>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Open {
    door: Door,
    /// As it is configured: port 0 is any port.
    wanted: SocketAddr,
    address: std::io::Result<SocketAddr>,
    certificate: Current,
    /// Closes it. Its connections come to a good end then.
    close: watch::Sender<bool>,
}

/// Whose connections are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ConnectionKey {
    All(telemetry::Listener),
    Address(telemetry::Listener, IpAddr),
    /// Those beyond a limit that are being answered.
    Refused(telemetry::Listener),
}

impl Listeners {
    pub(super) fn new(proxy: Arc<Proxy>) -> Self {
        let (connections, tasks) = (Slots::default(), JoinSet::new());
        Self { proxy, connections, open: Vec::new(), tasks }
    }

    /// Whether this one is open.
    pub(super) fn has(&self, door: Door, wanted: SocketAddr) -> bool {
        self.open.iter().any(|open| (open.door, open.wanted) == (door, wanted))
    }

    /// Opens one, over TLS while there is a `certificate`.
    pub(super) fn open(
        &mut self,
        door: Door,
        wanted: SocketAddr,
        listener: TcpListener,
        certificate: Current,
    ) {
        let address = listener.local_addr();
        let close = watch::Sender::new(false);
        let accepting = Accepting {
            door,
            address: address.as_ref().ok().copied(),
            proxy: Arc::clone(&self.proxy),
            certificate: Arc::clone(&certificate),
            connections: self.connections.clone(),
            closing: close.subscribe(),
        };
        if let Ok(address) = &address {
            if let Door::Netbox(wanted) = door {
                self.proxy.netbox_listener_opened(wanted, *address);
            }
            self.proxy.app.listeners.open(door.key(), *address);
        }
        self.tasks.spawn(accepting.run(listener));
        self.open.push(Open { door, wanted, address, certificate, close });
    }

    /// Says again what is listened on, and how.
    pub(super) fn tell(&self) {
        for open in &self.open {
            if let Ok(address) = &open.address {
                let is_tls = open.certificate.load().is_some();
                telemetry::Listening { key: open.door.key(), address: *address, is_tls }.emit();
            }
        }
    }

    /// Closes those that are not `wanted`.
    pub(super) fn keep(&mut self, wanted: &[(Door, SocketAddr)]) {
        self.open.retain(|open| {
            let keeps = wanted.contains(&(open.door, open.wanted));
            open.close.send_replace(!keeps);
            if let (false, Ok(address)) = (keeps, &open.address) {
                self.proxy.app.listeners.close(open.door.key(), *address);
            }
            keeps
        });
    }

    /// The address of the first that `is_wanted`.
    pub(super) fn address(&self, is_wanted: impl Fn(&Door) -> bool) -> std::io::Result<SocketAddr> {
        let none = || Err(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable));
        match self.open.iter().find(|open| is_wanted(&open.door)).map(|open| &open.address) {
            Some(Ok(address)) => Ok(*address),
            _ => none(),
        }
    }

    pub(super) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let known = |open: &Open| open.address.as_ref().ok().map(|address| (open.door.key(), *address));
        self.open.iter().filter_map(known).collect()
    }

    /// Forgets a task that has ended; waits for ever if there is none.
    pub(super) async fn tidy(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Closes all of them, and waits until every connection has ended.
    pub(super) async fn close(mut self) {
        for open in self.open {
            open.close.send_replace(true);
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// One door, as it is minded.
struct Accepting {
    door: Door,
    address: Option<SocketAddr>,
    proxy: Arc<Proxy>,
    certificate: Current,
    connections: Slots<ConnectionKey>,
    closing: watch::Receiver<bool>,
}

impl Accepting {
    async fn run(self, listener: TcpListener) {
        let mut served = JoinSet::new();
        let mut closing = self.closing.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.welcome(stream, address.ip().to_canonical(), &mut served),
                    Err(error) => {
                        telemetry::AcceptFailed { error: &error }.emit();
                        if let Some(address) = self.address {
                            self.proxy.app.listeners.fail(self.door.key(), address, error.to_string());
                        }
                        // Out of descriptors, mostly: trying again at once would only burn the processor.
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                // Also when whoever could say it is gone.
                () = closed(&mut closing) => break,
                Some(_) = served.join_next() => {}
            }
        }
        drop(listener);
        while served.join_next().await.is_some() {}
    }

    fn welcome(&self, stream: TcpStream, address: IpAddr, served: &mut JoinSet<()>) {
        let state = self.proxy.app.state();
        let limits = &state.config.limits;
        TcpOptions::new(limits).apply(&stream);
        let tls = self.certificate.load_full();
        if let Door::Netbox(wanted) = self.door
            && !self.proxy.netbox_listener_allows(wanted, address)
        {
            telemetry::NetboxStranger { client: address }.emit();
            return;
        }
        let is_proxy = state.config.trusted_proxies.iter().any(|network| network.contains(&address));
        let slot = match self.slot(limits, address, is_proxy) {
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
        let connection = Connection {
            address,
            door: self.door,
            on_loopback: self.address.is_some_and(|address| address.ip().to_canonical().is_loopback()),
            proxy: Arc::clone(&self.proxy),
            limits: limits.clone(),
            closing: self.closing.clone(),
        };
        served.spawn(async move {
            connection::serve(stream, tls, connection).await;
            drop(slot);
        });
    }

    /// Answers a connection beyond `limit`, unless as many as may be are being answered.
    fn refuse(&self, stream: TcpStream, limit: Limit, patience: Duration, served: &mut JoinSet<()>) {
        let refused = (ConnectionKey::Refused(self.door.listener()), REFUSALS, limit);
        let Ok(slot) = self.connections.take([refused]) else { return };
        served.spawn(async move {
            turn_away(stream, limit, patience).await;
            drop(slot);
        });
    }

    /// A place for one more connection. Operators have as many of their own, so that they come in when clients
    /// have taken everything.
    fn slot(&self, limits: &Limits, address: IpAddr, is_proxy: bool) -> Result<Slot<ConnectionKey>, Limit> {
        let listener = self.door.listener();
        let all = (ConnectionKey::All(listener), limits.connections, Limit::Connections);
        let key = ConnectionKey::Address(listener, limited_as(address, limits.ipv6_prefix));
        let of_address = (key, limits.connections_per_address, Limit::ConnectionsPerAddress);
        self.connections.take([all].into_iter().chain((!is_proxy).then_some(of_address)))
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Says why, without waiting for what would have been asked.
async fn turn_away(mut stream: TcpStream, limit: Limit, patience: Duration) {
    let answer = respond::turned_away(limit);
    let _ = timeout(patience, connection::farewell(&mut stream, answer.as_bytes())).await;
}
