//! Forwarding of client requests.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::TRANSFER_ENCODING;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;
use tower_service::Service;

use super::connect::{Dialer, HasResponded, Link};
use super::connect_error::ConnectError;
use super::exchange::{RequestError, describe_failure};
use super::upload::{Upload, UploadError, UploadProgress};
use super::{Backend, BackendResponse};
use crate::core::remote::Remote;
use crate::deadline::timeout_at;
use crate::tls::ConnectionUse;

/// The body of a forwarded request.
type RequestBody = UnsyncBoxBody<Bytes, UploadError>;

/// How much of a response is buffered before the client reads it, in bytes. The head must fit.
const BUFFER: usize = 64 * 1024;
/// The maximum number of idle connections.
const IDLE: usize = 32;

/// Why there is no response to forward.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForwardError {
    /// The remote could not be reached. No request was sent.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// The connection broke before a response arrived. The request may have been executed.
    #[error("The connection broke before {remote} answered ({why}).")]
    Broken {
        /// The remote.
        remote: Remote,
        /// The cause and the remedy.
        why: String,
    },
    /// The body of the client failed.
    #[error("The body of the request ended it: {0}.")]
    Upload(UploadError),
    /// No response head arrived in time.
    #[error("It did not begin to answer within {0} (limits.response_head).")]
    TimedOut(humantime::FormattedDuration),
}

/// Connections kept alive for later requests.
#[derive(Debug)]
pub(super) struct Pool(Client<Connector, RequestBody>);

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        let idle = dialer.config.limits.pool_idle;
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .http1_max_buf_size(BUFFER)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle)
            .pool_max_idle_per_host(if idle.is_zero() { 0 } else { IDLE })
            // Retries only requests that were certainly not sent, because the pooled connection was closed.
            .retry_canceled_requests(true)
            // The request keeps the client's `Host`, or the one from its `:authority`.
            .set_host(false);
        Self(builder.build(Connector(dialer)))
    }
}

impl Backend {
    /// Forwards `request` with its path, query, headers and body unchanged, and waits for the response head.
    pub async fn forward<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ForwardError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (mut parts, body) = request.into_parts();
        // The origin form of the target, even if the client used another.
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let scheme = if self.url().is_tls() { "https" } else { "http" };
        let target = Uri::builder().scheme(scheme).authority(self.url().authority()).path_and_query(target);
        let unfit =
            |error: http::Error| ForwardError::Broken { remote: self.remote(), why: error.to_string() };
        parts.uri = target.build().map_err(unfit)?;
        parts.version = Version::HTTP_11;
        self.request_readable(&mut parts.headers);
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // hyper omits such a body of GET and HEAD without this header.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let (progress, limits) = (UploadProgress::new(Instant::now().into()), self.limits());
        let body = Upload::new(body, limits, progress.clone());
        let mut request = Request::from_parts(parts, body.boxed_unsync());
        let connection = capture_connection(&mut request);
        let response = async {
            let sent = Instant::now();
            let mut response = self.pool.0.request(request).await.map_err(|error| self.failure(error))?;
            self.metrics.response_arrived(sent.elapsed());
            self.note_status(response.status());
            response.extensions_mut().remove::<HasResponded>().inspect(HasResponded::note);
            if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
                // After an unhandled exception uvicorn closes the connection without announcing it. The next request
                // on it would be lost, and is never retried.
                connection.connection_metadata().as_ref().inspect(|connection| connection.poison());
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.broken("it switched protocols without an upgrade request".to_owned()));
            }
            Ok(response)
        };
        let mut response = self.await_response_head(response, &progress).await?;
        // The HTTP version of the backend applies to its own connection only.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }

    /// Forwards an upgrade request on a connection of its own, and waits for the response head.
    pub async fn upgrade(&self, mut request: Request<()>) -> Result<BackendResponse, ForwardError> {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
        *request.version_mut() = Version::HTTP_11;
        self.request_readable(request.headers_mut());
        let response = async {
            self.dispatch(request).await.map_err(|error| match error {
                RequestError::Connect(error) => self.unreachable(error),
                error => self.broken(error.to_string()),
            })
        };
        self.await_response_head(response, &UploadProgress::new(Instant::now().into())).await
    }

    /// Waits for `response` within the time limit for a response head. The limit restarts with every chunk of the
    /// request that the backend reads.
    async fn await_response_head<T>(
        &self,
        response: impl Future<Output = Result<T, ForwardError>>,
        progress: &UploadProgress,
    ) -> Result<T, ForwardError> {
        let limit = self.limits().response_head;
        let mut response = std::pin::pin!(response);
        loop {
            let deadline = *progress.lock() + limit;
            match timeout_at(deadline, &mut response).await {
                Ok(response) => return response,
                Err(_) if *progress.lock() + limit > deadline => {}
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

    /// After an outage the backend may be another release.
    fn unreachable(&self, error: ConnectError) -> ForwardError {
        self.capabilities_cache.invalidate();
        ForwardError::Unreachable(error)
    }

    fn broken(&self, why: String) -> ForwardError {
        self.capabilities_cache.invalidate();
        ForwardError::Broken { remote: self.remote(), why }
    }
}

/// The earlier use of a failed request's connection.
fn connection_use(error: &legacy::Error) -> ConnectionUse {
    let mut extras = Extensions::new();
    error.connect_info().inspect(|connected| connected.get_extras(&mut extras));
    extras.get().map_or(ConnectionUse::Fresh, HasResponded::connection_use)
}

/// The connector of the pool.
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
