//! Connections to a backend, and what is known of it.
//!
//! Every request of the stream path has a connection of its own: nothing that one run does to it, a
//! cut in the middle above all, can reach another. What passes through shares a pool.

mod breaker;
mod capabilities;
mod checkup;
mod exchange;
mod forward;
mod link;
mod shield;
mod socket;
mod upload;

use std::fmt;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::config::{self, BackendUrl, Limits};
use crate::core::credential::ApiKey;
use crate::tls::TlsError;

pub use capabilities::{KEY_STATUS, Knowledge};
pub use checkup::{Glimpse, Silence};
pub use exchange::{Exchange, Passed, RequestError, reason};
pub use forward::{ForwardError, Tunnel};
pub use link::{ConnectError, Link};
pub use shield::{Answer, Known, Lesson, Question, Shield};
pub use socket::{OpenError, Opened, open};
pub use upload::UploadError;

use forward::Pool;
use link::Dialer;

/// The header that carries the key since 0.0.7.
pub const API_KEY: HeaderName = HeaderName::from_static("x-proxbox-api-key");

/// What this bridge calls itself.
const AGENT: &str = concat!("proxbox-bridge/", env!("CARGO_PKG_VERSION"));

/// One backend.
#[derive(Debug)]
pub struct Backend {
    config: config::Backend,
    dialer: Arc<Dialer>,
    pool: Pool,
    /// What it can do, as far as it is known.
    pub knowledge: Knowledge,
    /// What it need not be asked.
    pub shield: Shield,
}

/// What a request carries besides its path.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The key.
    pub key: Option<ApiKey>,
    /// Headers of the client that the backend's own records want.
    pub passed_on: HeaderMap,
}

impl Backend {
    /// The backend that is configured.
    ///
    /// # Errors
    ///
    /// What is wrong with the files that its certificate is checked by.
    pub fn new(config: config::Backend) -> Result<Self, TlsError> {
        let dialer = Arc::new(Dialer::new(&config)?);
        let pool = Pool::new(Arc::clone(&dialer), config.limits.pool_idle);
        Ok(Self { config, dialer, pool, knowledge: Knowledge::default(), shield: Shield::default() })
    }

    /// How it is configured.
    pub fn config(&self) -> &config::Backend {
        &self.config
    }

    /// Where it is.
    pub fn url(&self) -> &BackendUrl {
        &self.config.url
    }

    /// The limits that are in force for it.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Connects to it and hangs up: a backend that is busy with a sync takes connections, and answers nothing.
    ///
    /// # Errors
    ///
    /// Why it cannot be reached.
    pub async fn touch(&self) -> Result<(), ConnectError> {
        self.dialer.connect().await.map(drop)
    }

    /// A request for `target` (path and query) as this bridge makes it.
    fn request(&self, method: Method, target: &str, identity: &Identity) -> Result<Request<()>, http::Error> {
        let mut request = Request::builder().method(method).uri(target).body(())?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.config.url.authority())?);
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
        self.config.url.fmt(f)
    }
}
