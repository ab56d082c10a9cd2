//! Connections to the backend, with or without TLS.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::breaker::Breaker;
use super::connect_error::ConnectError;
use super::id::BackendId;
use super::observe::{BackendObserver, LastRelease, ObservedStream};
use crate::config::BackendConfig;
use crate::core::remote::Remote;
use crate::deadline::timeout;
use crate::tcp::TcpOptions;
use crate::telemetry::BackendMetrics;
use crate::tls::{self, Certificate, FileHashes, TlsError, Trust};

/// A connection to the backend.
pub(super) type Link = Box<dyn Stream>;

/// A stream with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {
    /// The certificate of the peer, over TLS.
    fn peer_certificate(&self) -> Option<Certificate> {
        None
    }
}

impl Stream for TcpStream {}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}

impl Stream for TlsStream<TcpStream> {
    fn peer_certificate(&self) -> Option<Certificate> {
        let shown = self.get_ref().1.peer_certificates()?;
        tls::describe(shown.first()?)
    }
}

impl Stream for ObservedStream<Link> {
    fn peer_certificate(&self) -> Option<Certificate> {
        self.link.peer_certificate()
    }
}

/// The TLS configuration of a backend, and its server name.
#[derive(Debug)]
struct TlsSettings {
    config: ArcSwap<ClientConfig>,
    /// The files that the configuration was built from. The lock is held during a reload.
    files: Mutex<TlsFiles>,
    /// `None` for a host that no certificate can name.
    name: Option<ServerName<'static>>,
}

/// The files as they were last read.
#[derive(Debug)]
struct TlsFiles {
    contents: FileHashes,
    /// False if they were unusable, and the previous ones stay in use.
    are_usable: bool,
}

impl TlsSettings {
    fn new(config: &BackendConfig) -> Result<Self, TlsError> {
        // Hashed before the files are loaded: a change in between is detected by the next check.
        let contents = file_hashes(config);
        let tls = client_config(config)?;
        let files = Mutex::new(TlsFiles { contents, are_usable: true });
        let name = ServerName::try_from(config.url.host().trim_end_matches('.').to_owned()).ok();
        Ok(Self { config: ArcSwap::new(tls), files, name })
    }
}

/// Connects to one backend.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) remote: Remote,
    pub(super) id: BackendId,
    pub(super) config: BackendConfig,
    tls: Option<TlsSettings>,
    pub(super) breaker: Breaker,
    /// The last detected release, on which the rules of the NetBox listener depend. It outlasts the other
    /// capabilities, because a backend that syncs may not answer for long. It is cleared when the backend refuses
    /// connections: the process that starts next may be another release.
    pub(super) last_release: LastRelease,
    /// Is notified of its connections, in `record`.
    pub(super) observer: OnceLock<Arc<dyn BackendObserver>>,
}

impl Dialer {
    pub(super) fn new(
        remote: Remote,
        config: BackendConfig,
        metrics: Arc<BackendMetrics>,
    ) -> Result<Self, TlsError> {
        let limits = &config.limits;
        Ok(Self {
            remote,
            tls: if config.url.is_tls() { Some(TlsSettings::new(&config)?) } else { None },
            id: BackendId::new(&config),
            breaker: Breaker::new(limits.breaker_failures, limits.breaker_open, metrics),
            last_release: Arc::default(),
            observer: OnceLock::new(),
            config,
        })
    }

    /// Returns whether the files are unchanged since they were loaded. It reads them, and blocks.
    pub(super) fn has_current_files(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| {
            let now = file_hashes(&self.config);
            let files = tls.files.lock();
            files.are_usable && files.contents == now
        })
    }

    /// Reloads the files if they have changed. `None` if they have not, or if another thread reads them. Unusable files
    /// change nothing, and are reported once. It reads them, and blocks.
    pub(super) fn reload_files(&self) -> Option<Result<(), TlsError>> {
        let tls = self.tls.as_ref()?;
        let mut files = tls.files.try_lock()?;
        let now = file_hashes(&self.config);
        if now == files.contents {
            return None;
        }
        let read = client_config(&self.config).map(|client| tls.config.store(client));
        *files = TlsFiles { contents: now, are_usable: read.is_ok() };
        Some(read)
    }

    /// Opens a new connection, unless the circuit is open.
    pub(super) async fn connect(&self) -> Result<Link, ConnectError> {
        let attempt = self.breaker.attempt()?;
        let dialed = self.dial().await;
        match &dialed {
            Ok(_) => attempt.succeeded(),
            Err(error) => {
                attempt.failed(error);
                if error.is_refusal() {
                    *self.last_release.lock() = None;
                }
            }
        }
        dialed
    }

    async fn dial(&self) -> Result<Link, ConnectError> {
        let deadline = Instant::now() + self.config.limits.connect;
        let stream = self.connect_any(&self.addresses().await?, deadline).await?;
        let link = self.tls_handshake(stream).await?;
        Ok(match self.observer.get() {
            Some(observer) => Box::new(ObservedStream::new(link, observer.connected(&self.last_release))),
            None => link,
        })
    }

    /// Resolves the host to at least one address, in the order in which they are tried.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let looked_up = timeout(self.config.limits.connect, self.id.resolve()).await;
        let found = looked_up.map_err(|_| self.connect_timed_out())?;
        let addresses = found.map_err(|source| self.failed(source))?;
        if addresses.is_empty() {
            return Err(self.failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        }
        Ok(addresses)
    }

    /// Connects to the first of `addresses` that accepts. The addresses share the time limit equally, so that an
    /// unresponsive one leaves time for the next.
    async fn connect_any(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<TcpStream, ConnectError> {
        let mut last = self.connect_timed_out();
        for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
            let time = deadline.saturating_duration_since(Instant::now());
            let share = time / u32::try_from(left).unwrap_or(u32::MAX);
            match time::timeout(share, self.open(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(source)) => last = self.failed(source),
                Err(_) => last = self.connect_timed_out(),
            }
        }
        Err(last)
    }

    /// Connects to `address`, one of the backend's, whatever the state of the circuit.
    pub(super) async fn connect_to(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let connected = timeout(self.config.limits.connect, self.open(address)).await;
        let connected = connected.map_err(|_| self.connect_timed_out())?;
        connected.map_err(|source| self.failed(source))
    }

    async fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        TcpOptions::new(&self.config.limits).apply(&stream);
        Ok(stream)
    }

    /// Performs the TLS handshake on `stream`, if the backend uses TLS.
    pub(super) async fn tls_handshake(&self, stream: TcpStream) -> Result<Link, ConnectError> {
        let Some(TlsSettings { config, name, .. }) = &self.tls else { return Ok(Box::new(stream)) };
        let failed = |why| ConnectError::Tls(self.config.url.clone(), why);
        let Some(name) = name else {
            return Err(failed("its host is not a name that a certificate can have".to_owned()));
        };
        let connector = TlsConnector::from(config.load_full());
        let shaken = timeout(self.config.limits.handshake, connector.connect(name.clone(), stream)).await;
        match shaken.map_err(|_| self.timed_out(self.config.limits.handshake, "limits.handshake"))? {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(failed(tls::explain(self.remote, &error))),
        }
    }

    /// Reads the certificate of the peer of `stream`, trusted or not. Nothing beyond the handshake is sent, and the
    /// client certificate is not presented.
    pub(super) async fn peer_certificate(&self, stream: TcpStream) -> Option<Certificate> {
        let name = self.tls.as_ref()?.name.clone()?;
        let connector = TlsConnector::from(tls::client(&Trust::Insecure, None).ok()?);
        timeout(self.config.limits.handshake, connector.connect(name, stream))
            .await
            .ok()?
            .ok()?
            .peer_certificate()
    }

    fn failed(&self, source: io::Error) -> ConnectError {
        ConnectError::Failed(self.config.url.clone(), Arc::new(source))
    }

    fn connect_timed_out(&self) -> ConnectError {
        self.timed_out(self.config.limits.connect, "limits.connect")
    }

    fn timed_out(&self, after: Duration, limit: &'static str) -> ConnectError {
        ConnectError::TimedOut { url: self.config.url.clone(), after, limit }
    }
}

fn client_config(config: &BackendConfig) -> Result<Arc<ClientConfig>, TlsError> {
    tls::client(&config.trust, config.client_certificate.as_ref())
}

fn file_hashes(config: &BackendConfig) -> FileHashes {
    FileHashes::for_client(&config.trust, config.client_certificate.as_ref())
}

#[cfg(test)]
#[cfg(target_os = "linux")] // Elsewhere a full queue answers.
mod tests {
    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::config::{Config, Flags};

    /// A listener that never accepts: its queue holds one connection, which is taken.
    async fn silent() -> (SocketAddr, TcpListener, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let first = TcpStream::connect(address).await.unwrap();
        (address, listener, first)
    }

    fn dialer(address: SocketAddr, settings: &[(&str, &str)]) -> Dialer {
        let flags = Flags { backend: Some(format!("http://{address}")), ..Flags::default() };
        let variables =
            settings.iter().map(|(key, value)| (format!("PROXBOX_BRIDGE_LIMITS_{key}"), (*value).to_owned()));
        let config = Config::parse(&flags, variables, |_| unreachable!()).unwrap();
        let metrics = BackendMetrics::new(Remote::Backend, "tested");
        Dialer::new(Remote::Backend, config.backends[0].clone(), metrics).unwrap()
    }

    #[tokio::test]
    async fn every_connection_to_a_backend_has_the_tcp_options_of_its_limits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialer = dialer(address, &[("TCP_KEEPALIVE", "7s"), ("TCP_USER_TIMEOUT", "9s")]);
        let deadline = Instant::now() + dialer.config.limits.connect;
        let dialled = dialer.connect_any(&[address], deadline).await.unwrap();
        for stream in [dialled, dialer.connect_to(address).await.unwrap()] {
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_for_the_next() {
        let (silent, _listener, _first) = silent().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialer = dialer(silent, &[]);
        dialer.config.limits.connect = Duration::from_millis(200);
        let mut addresses = vec![silent, good.local_addr().unwrap()];
        let deadline = Instant::now() + dialer.config.limits.connect;
        let stream = dialer.connect_any(&addresses, deadline).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        addresses.pop();
        let error =
            dialer.connect_any(&addresses, Instant::now() + dialer.config.limits.connect).await.unwrap_err();
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    }
}
