//! Connections to a backend, and what is known of it.
//!
//! Every request of the stream path has a connection of its own: nothing that one run does to it, a
//! cut in the middle above all, can reach another.

mod capabilities;
mod exchange;
mod forward;
mod socket;

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tokio::net::TcpStream;

use crate::config::{self, BackendUrl};
use crate::core::credential::ApiKey;

pub use capabilities::Knowledge;
pub use exchange::{Exchange, RequestError, reason};
pub use forward::{ForwardError, Passed};
pub use socket::{OpenError, Opened, open};

/// The header that carries the key since 0.0.7.
pub const API_KEY: HeaderName = HeaderName::from_static("x-proxbox-api-key");

/// What this bridge calls itself.
const AGENT: &str = concat!("proxbox-bridge/", env!("CARGO_PKG_VERSION"));

/// How long to wait for a backend.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For the answers to everything that it is asked about itself before a run.
    pub probe: Duration,
    /// For the head of an answer that is passed on.
    pub response_head: Duration,
    /// How long an answer to such a question is believed.
    pub capabilities: Duration,
    /// The largest body that is not a stream, in bytes.
    pub body: usize,
}

/// One backend.
#[derive(Debug)]
pub struct Backend {
    url: BackendUrl,
    limits: Limits,
    /// What it can do, as far as it is known.
    pub knowledge: Knowledge,
}

/// A backend that could not be reached. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was refused, reset or not routed, or the name is unknown.
    #[error("{url}: {source}")]
    Failed {
        /// Where it should be.
        url: BackendUrl,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nobody answered in time.
    #[error("{url} did not answer within {} (limits.connect)", humantime::format_duration(*.limit))]
    TimedOut {
        /// Where it should be.
        url: BackendUrl,
        /// The limit.
        limit: Duration,
    },
}

/// What a request carries besides its path.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The key, in the form that the backend's age wants.
    pub key: Option<ApiKey>,
    /// Headers of the client that the backend's own records want.
    pub passed_on: HeaderMap,
}

impl Backend {
    /// The backend that is configured.
    pub fn new(config: &config::Config) -> Self {
        let limits = &config.limits;
        Self {
            url: config.backend.url.clone(),
            limits: Limits {
                connect: limits.connect,
                probe: limits.probe,
                response_head: limits.response_head,
                capabilities: limits.capabilities,
                body: limits.event_bytes,
            },
            knowledge: Knowledge::default(),
        }
    }

    /// Where it is.
    pub fn url(&self) -> &BackendUrl {
        &self.url
    }

    /// How long to wait for it.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let address = (self.url.host(), self.url.port());
        let connected = tokio::time::timeout(self.limits.connect, TcpStream::connect(address)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(ConnectError::Failed { url: self.url.clone(), source }),
            Err(_) => {
                return Err(ConnectError::TimedOut { url: self.url.clone(), limit: self.limits.connect });
            }
        };
        // Commands are tiny, and waiting for more of them is waiting for nothing.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// A request for `target` (path and query) as this bridge makes it.
    fn request(&self, method: Method, target: &str, identity: &Identity) -> Result<Request<()>, http::Error> {
        let mut request = Request::builder().method(method).uri(target).body(())?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.url.authority())?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(key) = &identity.key {
            let mut value = HeaderValue::from_str(key.expose())?;
            value.set_sensitive(true);
            headers.insert(API_KEY, value);
        }
        for (name, value) in &identity.passed_on {
            headers.append(name, value.clone());
        }
        Ok(request)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}
