//! Requests of clients, passed on as they are.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::TRANSFER_ENCODING;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tower_service::Service;

use super::connect::{Dialer, HasResponded, Link};
use super::connect_error::ConnectError;
use super::exchange::{RequestError, describe_failure};
use super::upload::{Upload, UploadError, UploadProgress};
use super::{Backend, BackendResponse};
use crate::core::remote::Remote;
use crate::deadline::timeout_at;
use crate::tls::ConnectionUse;

/// The body of a request that is passed on.
type RequestBody = UnsyncBoxBody<Bytes, UploadError>;

/// How much of an answer is read before the client takes it, in bytes; the head of an answer must fit.
const BUFFER: usize = 64 * 1024;
/// How many idle connections are kept at most.
const IDLE: usize = 32;

/// Why there is no answer to pass back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForwardError {
    /// The remote could not be reached. Nothing was sent.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// The connection broke before an answer came; the request may have done its work.
    #[error("The connection broke before {remote} answered ({why}).")]
    Broken {
        /// What did not answer.
        remote: Remote,
        /// Why, and what to do.
        why: String,
    },
    /// The client's own body ended the request.
    #[error("The body of the request ended it: {0}.")]
    Upload(UploadError),
    /// No answer began in time.
    #[error("It did not begin to answer within {0} (limits.response_head).")]
    TimedOut(humantime::FormattedDuration),
}

/// A connection that the backend has switched to another protocol.
#[derive(Debug)]
pub struct Tunnel {
    /// The bytes.
    pub upgraded: Upgraded,
    /// The task that moves them; it ends with the tunnel.
    pub connection: JoinSet<()>,
}

/// Connections that are kept for the next request.
#[derive(Debug)]
pub(super) struct Pool(Client<Connector, RequestBody>);

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>, idle: Duration) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .http1_max_buf_size(BUFFER)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle)
            .pool_max_idle_per_host(if idle.is_zero() { 0 } else { IDLE })
            // A request that provably was not sent, because the connection from the pool was closed.
            .retry_canceled_requests(true)
            // The client's own, or the one that belongs to its `:authority`.
            .set_host(false);
        Self(builder.build(Connector(dialer)))
    }
}

impl Backend {
    /// Passes `request` on, its path, query, headers and body unchanged, and waits for the head of the
    /// answer.
    ///
    /// # Errors
    ///
    /// See [`ForwardError`].
    pub async fn forward<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ForwardError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (mut parts, body) = request.into_parts();
        // The form of the target that goes to an origin server, also where a client sent another.
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let scheme = if self.url().is_tls() { "https" } else { "http" };
        let target = Uri::builder().scheme(scheme).authority(self.url().authority()).path_and_query(target);
        let remote = self.remote();
        parts.uri =
            target.build().map_err(|error| ForwardError::Broken { remote, why: error.to_string() })?;
        parts.version = Version::HTTP_11;
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // hyper leaves out such a body of GET and HEAD unless it is told not to.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let (progress, limits) = (UploadProgress::default(), self.limits());
        let body = Upload::new(body, limits, progress.clone());
        let mut request = Request::from_parts(parts, body.boxed_unsync());
        let connection = capture_connection(&mut request);
        let response = async {
            let mut response = self.pool.0.request(request).await.map_err(|error| self.failure(error))?;
            response.extensions_mut().remove::<HasResponded>().inspect(HasResponded::note);
            if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
                // Behind the answer to an exception that nobody caught, uvicorn closes the connection without having
                // said that it will. The next request would be lost on it, and is never sent twice.
                connection.connection_metadata().as_ref().inspect(|connection| connection.poison());
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.broken("it switched protocols, and nobody had asked it to".to_owned()));
            }
            Ok(response)
        };
        let mut response = self.await_response_head(response, &progress).await?;
        // What version the backend speaks is between it and the bridge.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }

    /// Passes on a request to switch to another protocol, on a connection of its own, and waits for the head
    /// of the answer.
    ///
    /// # Errors
    ///
    /// See [`ForwardError`].
    pub async fn upgrade(&self, mut request: Request<()>) -> Result<BackendResponse, ForwardError> {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
        *request.version_mut() = Version::HTTP_11;
        let request = request.map(|()| Empty::<Bytes>::new());
        let response = async {
            let (response, connection) = self.dispatch(request).await.map_err(|error| match error {
                RequestError::Connect(error) => self.unreachable(error),
                error => self.broken(error.to_string()),
            })?;
            Ok(BackendResponse::new(response, connection))
        };
        self.await_response_head(response, &UploadProgress::default()).await
    }

    /// Waits for `answered` as long as the backend may take for the head of its answer. It has that time
    /// anew with every piece of the request that it takes.
    async fn await_response_head<T>(
        &self,
        response: impl Future<Output = Result<T, ForwardError>>,
        progress: &UploadProgress,
    ) -> Result<T, ForwardError> {
        let limit = self.limits().response_head;
        let mut response = std::pin::pin!(response);
        loop {
            let deadline = progress.last() + limit;
            match timeout_at(deadline, &mut response).await {
                Ok(response) => return response,
                Err(_) if progress.last() + limit > deadline => {}
                Err(_) => return Err(ForwardError::TimedOut(humantime::format_duration(limit))),
            }
        }
    }

    fn failure(&self, error: legacy::Error) -> ForwardError {
        let source = error.source();
        if let Some(connect) = source.and_then(|source| source.downcast_ref::<ConnectError>()) {
            return self.unreachable(connect.clone());
        }
        let Some(hyper) = source.and_then(|source| source.downcast_ref::<hyper::Error>()) else {
            return self.broken(error.to_string());
        };
        match hyper.source().and_then(|body| body.downcast_ref::<UploadError>()) {
            Some(upload) => ForwardError::Upload(*upload),
            None => self.broken(describe_failure(self.remote(), hyper, self.url(), connection_use(&error))),
        }
    }

    /// Whoever comes back may be another one.
    fn unreachable(&self, error: ConnectError) -> ForwardError {
        self.capabilities_cache.invalidate();
        ForwardError::Unreachable(error)
    }

    fn broken(&self, why: String) -> ForwardError {
        self.capabilities_cache.invalidate();
        ForwardError::Broken { remote: self.remote(), why }
    }
}

impl BackendResponse {
    /// The connection itself, once the backend has switched protocols.
    ///
    /// # Errors
    ///
    /// If it breaks while it is switching.
    pub async fn tunnel(self) -> Result<Tunnel, hyper::Error> {
        let (upgraded, connection) = self.upgraded().await?;
        Ok(Tunnel { upgraded, connection })
    }
}

/// What the connection of a request that failed has brought before.
fn connection_use(error: &legacy::Error) -> ConnectionUse {
    let mut extras = Extensions::new();
    error.connect_info().inspect(|connected| connected.get_extras(&mut extras));
    extras.get().map_or(ConnectionUse::Fresh, HasResponded::connection_use)
}

/// What the pool makes its connections with.
#[derive(Clone, Debug)]
struct Connector(Arc<Dialer>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<TokioIo<Link>, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = Arc::clone(&self.0);
        Box::pin(async move { dialer.connect().await.map(TokioIo::new) })
    }
}
