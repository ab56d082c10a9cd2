//! Connections to the backend, over TLS or without it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::breaker::Breaker;
use crate::config::{self, BackendUrl};
use crate::tls::{self, TlsError};

/// A connection to the backend.
#[derive(Debug)]
pub enum Link {
    /// Without TLS.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A backend that could not be reached. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was refused, reset or not routed, or the name is unknown.
    #[error("{url}: {source}")]
    Failed {
        /// Where it should be.
        url: BackendUrl,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Nobody answered in time.
    #[error("{url} did not answer within {} ({limit})", humantime::format_duration(*.after))]
    TimedOut {
        /// Where it should be.
        url: BackendUrl,
        /// How long it had.
        after: Duration,
        /// The limit that says so.
        limit: &'static str,
    },
    /// There is no TLS connection to it.
    #[error("{url}: {why}")]
    Tls {
        /// Where it should be.
        url: BackendUrl,
        /// Why not, and what to do.
        why: String,
    },
    /// It was not tried: it could not be reached a moment ago.
    #[error("{last}; it is tried again in {} (limits.breaker_open)", humantime::format_duration(*.again))]
    Down {
        /// Why it could not be reached then.
        last: Box<ConnectError>,
        /// In how long it is tried again.
        again: Duration,
    },
}

/// How TLS is spoken to it, and by what name.
#[derive(Debug)]
struct Secure {
    config: Arc<ClientConfig>,
    /// None is possible for a name that no certificate can have.
    name: Option<ServerName<'static>>,
}

/// Makes connections to one backend.
#[derive(Debug)]
pub(super) struct Dialer {
    url: BackendUrl,
    connect: Duration,
    handshake: Duration,
    tls: Option<Secure>,
    pub(super) breaker: Breaker,
}

impl Dialer {
    pub(super) fn new(config: &config::Backend) -> Result<Self, TlsError> {
        let limits = &config.limits;
        let tls = if config.url.is_tls() { Some(client(config)?) } else { None };
        Ok(Self {
            tls: tls.map(|tls| Secure { config: tls, name: name(&config.url) }),
            url: config.url.clone(),
            connect: limits.connect,
            handshake: limits.handshake,
            breaker: Breaker::new(limits.breaker_failures, limits.breaker_open),
        })
    }

    /// A new connection, unless the backend is taken for down.
    pub(super) async fn connect(&self) -> Result<Link, ConnectError> {
        let attempt = self.breaker.attempt()?;
        let dialed = self.dial().await;
        match &dialed {
            Ok(_) => attempt.succeeded(),
            Err(error) => attempt.failed(error),
        }
        dialed
    }

    async fn dial(&self) -> Result<Link, ConnectError> {
        let stream = self.connect_to((self.url.host(), self.url.port())).await?;
        self.secure(stream).await
    }

    /// The connection to `address`, the backend's own or one of those that its name stands for, whether it is
    /// taken for down or not.
    pub(super) async fn connect_to(&self, address: impl ToSocketAddrs) -> Result<TcpStream, ConnectError> {
        let stream = match timeout(self.connect, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(|source| self.failed(source))?,
            Err(_) => return Err(self.timed_out(self.connect, "limits.connect")),
        };
        // Commands are tiny, and waiting for more of them is waiting for nothing.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// `stream`, over TLS if the backend wants it.
    pub(super) async fn secure(&self, stream: TcpStream) -> Result<Link, ConnectError> {
        let Some(Secure { config, name }) = &self.tls else { return Ok(Link::Plain(stream)) };
        let Some(name) = name else {
            let why = "its host is not a name that a certificate can have".to_owned();
            return Err(ConnectError::Tls { url: self.url.clone(), why });
        };
        let connector = TlsConnector::from(Arc::clone(config));
        match timeout(self.handshake, connector.connect(name.clone(), stream)).await {
            Ok(Ok(stream)) => Ok(Link::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(ConnectError::Tls { url: self.url.clone(), why: tls::explain(&error) }),
            Err(_) => Err(self.timed_out(self.handshake, "limits.handshake")),
        }
    }

    fn failed(&self, source: io::Error) -> ConnectError {
        ConnectError::Failed { url: self.url.clone(), source: Arc::new(source) }
    }

    fn timed_out(&self, after: Duration, limit: &'static str) -> ConnectError {
        ConnectError::TimedOut { url: self.url.clone(), after, limit }
    }
}

fn client(config: &config::Backend) -> Result<Arc<ClientConfig>, TlsError> {
    let own = config.client_certificate.as_ref();
    tls::client(&config.trust, own.map(|(certificate, key)| (certificate.as_path(), key.as_path())))
}

fn name(url: &BackendUrl) -> Option<ServerName<'static>> {
    ServerName::try_from(url.host().trim_end_matches('.').to_owned()).ok()
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
