//! What is served: one module for each surface.

pub mod admin;
pub mod passthrough;
pub mod streams;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::config::Config;
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
