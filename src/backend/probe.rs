//! Diagnostic requests to a backend, for the `check` command and before a client is admitted.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::connect_error::ConnectError;
use super::exchange::describe_failure;
use super::{Backend, RequestError, RequestIdentity, reason};
use crate::deadline::timeout;
use crate::tls::{self, Certificate, ConnectionUse};

/// How much of a response body is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A response, possibly truncated.
#[derive(Debug)]
pub struct ProbeResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The first bytes of the body; empty if it is compressed.
    pub body: Bytes,
    /// The problem with its encoding and the remedy, if there is one.
    pub compressed: Option<String>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// The connection broke before a response arrived.
    #[error("the connection broke before an answer came ({0})")]
    Broken(String),
    /// TLS failed after the handshake. The text includes the remedy.
    #[error("{0}")]
    Tls(String),
    /// The response timed out.
    #[error("no answer within {} (limits.probe)", humantime::format_duration(*.0))]
    TimedOut(std::time::Duration),
}

impl Backend {
    /// Resolves the host of the backend to at least one address.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        self.dialer.addresses().await
    }

    /// Connects to `address`, with TLS if the backend uses it. Returns its certificate.
    pub async fn handshake(&self, address: SocketAddr) -> Result<Option<Certificate>, ConnectError> {
        let stream = self.dialer.connect_to(address).await?;
        Ok(self.dialer.tls_handshake(stream).await?.peer_certificate())
    }

    /// Reads the certificate at `address`, trusted or not. No request is sent.
    pub async fn peer_certificate(&self, address: SocketAddr) -> Option<Certificate> {
        self.dialer.peer_certificate(self.dialer.connect_to(address).await.ok()?).await
    }

    /// Sends `GET path`. The limit is `limits.probe`.
    pub async fn probe(&self, path: &str, identity: &RequestIdentity) -> Result<ProbeResponse, ProbeError> {
        let request = async {
            let mut exchange = match self.send(Method::GET, path, identity).await {
                Ok(exchange) => exchange,
                Err(RequestError::Connect(error)) => return Err(ProbeError::Connect(error)),
                Err(RequestError::Broken(_, error)) => return Err(self.probe_error(&error)),
                Err(RequestError::Request(error)) => return Err(ProbeError::Broken(error.to_string())),
            };
            let compressed = exchange.error_response(b"").compressed();
            let body = match &compressed {
                Some(_) => Bytes::new(),
                None => exchange.body(MAX_BODY_BYTES).await.map_err(|error| {
                    let broken = || ProbeError::Broken(reason(&error));
                    tls::explain_tls(self.remote(), &error).map_or_else(broken, ProbeError::Tls)
                })?,
            };
            Ok(ProbeResponse { status: exchange.status, headers: exchange.headers, body, compressed })
        };
        let limit = self.limits().probe;
        timeout(limit, request).await.unwrap_or(Err(ProbeError::TimedOut(limit)))
    }

    fn probe_error(&self, error: &hyper::Error) -> ProbeError {
        let (remote, fresh) = (self.remote(), ConnectionUse::Fresh);
        let broken = || ProbeError::Broken(describe_failure(remote, error, self.url(), fresh));
        tls::explain_unanswered(remote, error, fresh).map_or_else(broken, ProbeError::Tls)
    }
}
