//! Questions about a backend that only an operator asks.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::link::{ConnectError, Link};
use super::{Backend, Identity, reason};
use crate::tls::{self, Certificate};

/// How much of an answer is read, in bytes.
const ANSWER: usize = 64 * 1024;

impl Backend {
    /// The addresses that the name of the backend stands for.
    ///
    /// # Errors
    ///
    /// What the system says of a name that stands for none.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let looked_up = lookup_host((self.url().host(), self.url().port()));
        let found = timeout(self.limits().connect, looked_up).await;
        Ok(found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.collect())
    }

    /// Connects to `address`, and over TLS, if the backend wants it; with the certificate that it shows.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn greet(&self, address: SocketAddr) -> Result<Option<Certificate>, ConnectError> {
        let stream = self.dialer.connect_to(address).await?;
        let link = self.dialer.secure(stream).await?;
        Ok(match &link {
            Link::Plain(_) => None,
            Link::Tls(stream) => {
                let shown = stream.get_ref().1.peer_certificates();
                shown.and_then(|shown| tls::describe(shown.first()?))
            }
        })
    }

    /// What the backend answers to `GET path`: its status, and the beginning of the body.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn get(&self, path: &str, identity: &Identity) -> Result<(StatusCode, Bytes), String> {
        let asked = async {
            let mut exchange =
                self.send(Method::GET, path, identity).await.map_err(|error| error.to_string())?;
            let body = exchange.body(ANSWER).await.map_err(|error| reason(&error))?;
            Ok((exchange.status, body))
        };
        timeout(self.limits().probe, asked).await.unwrap_or_else(|_| Err(self.overdue()))
    }
}
