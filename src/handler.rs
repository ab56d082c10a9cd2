//! What is served: one module for each surface.

pub mod admin;
pub mod passthrough;
pub mod streams;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::backend::{API_KEY, Backend};
use crate::config::Config;
use crate::core::credential::ApiKey;
use crate::core::kind::Endpoint;
use crate::respond::Body;

/// Everything that serves clients.
#[derive(Debug)]
pub struct Bridge {
    config: Config,
    backend: Arc<Backend>,
    /// Turns true when the bridge stops.
    stop: watch::Receiver<bool>,
}

impl Bridge {
    /// A bridge in front of the backend that `config` names. Its jobs end when `stop` turns true.
    pub fn new(config: Config, stop: watch::Receiver<bool>) -> Self {
        let backend = Arc::new(Backend::new(&config));
        Self { config, backend, stop }
    }

    /// Answers a client.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match Endpoint::at(request.uri().path()) {
            Some(endpoint) => streams::answer(self, endpoint, request).await,
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
