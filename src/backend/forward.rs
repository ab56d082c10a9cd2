//! Forwarding of client requests.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::connect_error::ConnectError;
use super::exchange::{RequestError, describe_failure};
use super::pool::PoolError;
use super::response_body::ResponseBody;
use super::upload::{Upload, UploadError, UploadProgress};
use super::{Backend, BackendResponse};
use crate::core::remote::Remote;
use crate::deadline::timeout_at;

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

impl Backend {
    /// Forwards `request` with its path, query, headers and body unchanged, and waits for the response head.
    pub async fn forward<B>(&self, request: Request<B>) -> Result<Response<ResponseBody>, ForwardError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (mut parts, body) = request.into_parts();
        // The origin form of the target, even if the client used another.
        parts.uri = origin_form(&parts.uri);
        parts.version = Version::HTTP_11;
        self.request_readable(&mut parts.headers);
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // hyper omits such a body of GET and HEAD without this header.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let (progress, limits) = (UploadProgress::new(Instant::now().into()), self.limits());
        let body = Upload::new(body, limits, progress.clone());
        let request = Request::from_parts(parts, body.boxed_unsync());
        let response = async {
            let sent = Instant::now();
            let mut response = self.pool.send(request).await.map_err(|error| self.failure(error))?;
            self.metrics.response_arrived(sent.elapsed());
            self.note_status(response.status());
            if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
                // After an unhandled exception uvicorn closes the connection without announcing it. The next request
                // on it would be lost, and is never retried.
                response.body_mut().close_connection();
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
        *request.uri_mut() = origin_form(request.uri());
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

    fn failure(&self, error: PoolError) -> ForwardError {
        match error {
            PoolError::Connect(error) => self.unreachable(error),
            PoolError::Broken(error, connection_use) => {
                match error.source().and_then(|body| body.downcast_ref::<UploadError>()) {
                    Some(upload) => ForwardError::Upload(*upload),
                    None => self.broken(describe_failure(self.remote(), &error, self.url(), connection_use)),
                }
            }
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

/// The path and the query of `uri`.
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from)
}
