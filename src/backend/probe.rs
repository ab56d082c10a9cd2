//! Questions about a backend itself, asked for a person or before a client is let in.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::connect::{self, Link};
use super::connect_error::ConnectError;
use super::exchange::describe_failure;
use super::{Backend, RequestError, RequestIdentity, reason};
use crate::core::remote::Remote;
use crate::deadline::timeout;
use crate::tls::{self, Certificate, ConnectionUse};

/// How much of an answer is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The beginning of an answer.
#[derive(Debug)]
pub struct ProbeResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The first bytes of the body; none if it is compressed.
    pub body: Bytes,
    /// What is wrong with its encoding, and what to do.
    pub compressed: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no connection.
    #[error(transparent)]
    Connect(ConnectError),
    /// The connection was there, and brought no answer.
    #[error("the connection broke before an answer came ({0})")]
    Broken(String),
    /// TLS broke off when the connection seemed to stand. It says what to do.
    #[error("{0}")]
    Tls(String),
    /// It took too long.
    #[error("no answer within {} (limits.probe)", humantime::format_duration(*.0))]
    TimedOut(std::time::Duration),
}

impl Backend {
    /// The addresses that the name of the backend stands for, at least one.
    ///
    /// # Errors
    ///
    /// What the system says of a name that stands for none.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        self.dialer.addresses().await
    }

    /// Connects to `address`, and over TLS, if the backend wants it; with the certificate that it shows.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn handshake(&self, address: SocketAddr) -> Result<Option<Certificate>, ConnectError> {
        let stream = self.dialer.connect_to(address).await?;
        Ok(match self.dialer.tls_handshake(stream).await? {
            Link::Plain(_) => None,
            Link::Tls(stream) => connect::certificate(&stream),
        })
    }

    /// The certificate that is shown at `address`, whether it is trusted or not. Nothing is sent there.
    pub async fn peer_certificate(&self, address: SocketAddr) -> Option<Certificate> {
        self.dialer.peer_certificate(self.dialer.connect_to(address).await.ok()?).await
    }

    /// What the backend answers to `GET path`.
    ///
    /// # Errors
    ///
    /// Why there is no answer within `limits.probe`.
    pub async fn probe(&self, path: &str, identity: &RequestIdentity) -> Result<ProbeResponse, ProbeError> {
        let request = async {
            let mut exchange = match self.send(Method::GET, path, identity).await {
                Ok(exchange) => exchange,
                Err(RequestError::Connect(error)) => return Err(ProbeError::Connect(error)),
                Err(RequestError::Broken { source, .. }) => return Err(self.probe_error(&source)),
                Err(RequestError::Request(error)) => return Err(ProbeError::Broken(error.to_string())),
            };
            let compressed = exchange.error_response(b"").compressed();
            let body = match &compressed {
                Some(_) => Bytes::new(),
                None => exchange.body(MAX_BODY_BYTES).await.map_err(|error| broken(&error))?,
            };
            Ok(ProbeResponse { status: exchange.status, headers: exchange.headers, body, compressed })
        };
        let limit = self.limits().probe;
        timeout(limit, request).await.unwrap_or(Err(ProbeError::TimedOut(limit)))
    }

    fn probe_error(&self, error: &hyper::Error) -> ProbeError {
        let broken =
            || ProbeError::Broken(describe_failure(self.remote(), error, self.url(), ConnectionUse::Fresh));
        tls::explain_unanswered(self.remote(), error, ConnectionUse::Fresh)
            .map_or_else(broken, ProbeError::Tls)
    }
}

fn broken(error: &hyper::Error) -> ProbeError {
    tls::explain_tls(Remote::Backend, error)
        .map_or_else(|| ProbeError::Broken(reason(error)), ProbeError::Tls)
}
