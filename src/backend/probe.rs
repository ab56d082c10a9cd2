//! Questions about a backend itself, asked for a person or before a client is let in.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::connect::{self, Link};
use super::connect_error::ConnectError;
use super::exchange::unanswered;
use super::{Backend, Identity, RequestError, reason};
use crate::core::remote::Remote;
use crate::deadline::timeout;
use crate::tls::{self, Brought, Certificate};

/// How much of an answer is read, in bytes.
const ANSWER: usize = 64 * 1024;

/// The beginning of an answer.
#[derive(Debug)]
pub struct Glimpse {
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
pub enum Silence {
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
    Overdue(std::time::Duration),
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
    pub async fn greet(&self, address: SocketAddr) -> Result<Option<Certificate>, ConnectError> {
        let stream = self.dialer.connect_to(address).await?;
        Ok(match self.dialer.secure(stream).await? {
            Link::Plain(_) => None,
            Link::Tls(stream) => connect::certificate(&stream),
        })
    }

    /// The certificate that is shown at `address`, whether it is trusted or not. Nothing is sent there.
    pub async fn shown(&self, address: SocketAddr) -> Option<Certificate> {
        self.dialer.shown(self.dialer.connect_to(address).await.ok()?).await
    }

    /// What the backend answers to `GET path`.
    ///
    /// # Errors
    ///
    /// Why there is no answer within `limits.probe`.
    pub async fn glimpse(&self, path: &str, identity: &Identity) -> Result<Glimpse, Silence> {
        let asked = async {
            let mut exchange = match self.send(Method::GET, path, identity).await {
                Ok(exchange) => exchange,
                Err(RequestError::Connect(error)) => return Err(Silence::Connect(error)),
                Err(RequestError::Broken { source, .. }) => return Err(self.silent(&source)),
                Err(RequestError::Request(error)) => return Err(Silence::Broken(error.to_string())),
            };
            let compressed = exchange.answer(b"").compressed();
            let body = match &compressed {
                Some(_) => Bytes::new(),
                None => exchange.body(ANSWER).await.map_err(|error| broken(&error))?,
            };
            Ok(Glimpse { status: exchange.status, headers: exchange.headers, body, compressed })
        };
        let limit = self.limits().probe;
        timeout(limit, asked).await.unwrap_or(Err(Silence::Overdue(limit)))
    }

    fn silent(&self, error: &hyper::Error) -> Silence {
        let broken = || Silence::Broken(unanswered(self.remote(), error, self.url(), Brought::Nothing));
        tls::explain_unanswered(self.remote(), error, Brought::Nothing).map_or_else(broken, Silence::Tls)
    }
}

fn broken(error: &hyper::Error) -> Silence {
    tls::explain_tls(Remote::Backend, error).map_or_else(|| Silence::Broken(reason(error)), Silence::Tls)
}
