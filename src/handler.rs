//! What is served: one module for each surface.

pub mod admin;
mod jobs;
pub mod passthrough;
pub mod streams;
mod sync;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use crate::backend::{API_KEY, Backend};
use crate::config::Config;
use crate::core::credential::ApiKey;
use crate::core::kind::Endpoint;
use crate::job::Registry;
use crate::ledger::Ledger;
use crate::respond::Body;

/// Everything that serves clients.
#[derive(Debug)]
pub struct Bridge {
    config: Arc<Config>,
    backend: Arc<Backend>,
    /// Its jobs.
    pub registry: Arc<Registry>,
}

impl Bridge {
    /// A bridge in front of the backend that `config` names, whose jobs are recorded in `ledger`.
    pub fn new(config: Config, ledger: Arc<dyn Ledger>) -> Self {
        let backend = Arc::new(Backend::new(&config));
        let config = Arc::new(config);
        let registry = Registry::new(Arc::clone(&config), ledger);
        Self { config, backend, registry }
    }

    /// Answers a client at `address`.
    pub async fn answer(&self, request: Request<Incoming>, address: IpAddr) -> Response<Body> {
        match Endpoint::at(request.uri().path()) {
            Some(endpoint) => streams::answer(self, endpoint, request, address).await,
            None => passthrough::answer(self, request).await,
        }
    }
}

/// The key that a client sent, in either of the forms that plugins have used.
fn key_of(headers: &HeaderMap) -> Option<ApiKey> {
    let named = || headers.get(API_KEY)?.to_str().ok()?.parse().ok();
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") { key.trim().parse().ok() } else { None }
    };
    named().or_else(bearer)
}
