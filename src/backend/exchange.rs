//! One request and its response, on a connection of its own.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::response::Parts;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyDataStream, Empty};
use hyper::upgrade::Upgraded;
use tokio::time::Instant;

use super::{Backend, ConnectError, RequestIdentity};
use crate::client::connection::{self, ClientBody};
use crate::core::domain::refusal::ErrorResponse;
use crate::core::http::headers::{content_encoding, is_event_stream};
use crate::core::http::url::BackendUrl;
use crate::core::remote::Remote;
use crate::core::wire::sse::sniff;
use crate::telemetry;
use crate::tls::{self, ConnectionUse};

/// The response head of a backend, and the connection that its body is read from. Dropping it closes the connection.
#[derive(Debug)]
pub struct BackendResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: ClientBody,
    /// The bytes of the body that were read to detect its type.
    peeked: Option<Bytes>,
    /// hyper's extensions, which hold the upgrade.
    extensions: Extensions,
}

/// Why there is no response head.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The backend could not be reached. No request was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before a response arrived.
    #[error("the connection broke before the backend answered ({})", describe_failure(Remote::Backend, .1, .0, ConnectionUse::Fresh))]
    Broken(BackendUrl, #[source] hyper::Error),
    /// The request is not valid HTTP.
    #[error("not a request that HTTP can carry ({0})")]
    Request(#[from] http::Error),
}

impl Backend {
    /// Sends a request without a body and waits for the response head. Only [`RequestError::Connect`] means that no
    /// request was sent.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        identity: &RequestIdentity,
    ) -> Result<BackendResponse, RequestError> {
        self.dispatch(self.request(method, target, identity)?).await
    }

    /// Sends `request` on a new connection and waits for the response head.
    pub(super) async fn dispatch(&self, request: Request<()>) -> Result<BackendResponse, RequestError> {
        let link = self.dialer.connect().await?;
        let sent = Instant::now();
        let response = connection::send(link, request.map(|()| Empty::<Bytes>::new())).await;
        let response = response.map_err(|error| RequestError::Broken(self.url().clone(), error))?;
        self.metrics.response_arrived(sent.elapsed());
        let (Parts { status, headers, extensions, .. }, body) = response.into_parts();
        self.note_status(status);
        Ok(BackendResponse { status, headers, body, peeked: None, extensions })
    }
}

impl BackendResponse {
    /// Returns whether the body is an event stream, by its `Content-Type` or by its first bytes. Fails if the body
    /// breaks before that is known.
    pub async fn is_event_stream(&mut self) -> Result<bool, hyper::Error> {
        if self.status != StatusCode::OK || self.content_encoding().is_some() {
            return Ok(false);
        }
        if is_event_stream(&self.headers) {
            return Ok(true);
        }
        let mut start = BytesMut::new();
        let is_stream = loop {
            if let Some(is_stream) = sniff::is_event_stream(&start, self.content_type()) {
                break is_stream;
            }
            match self.next_chunk().await {
                Some(piece) => start.extend_from_slice(&piece?),
                None => break false,
            }
        };
        self.peeked = Some(start.freeze());
        if is_stream {
            telemetry::StreamRecognized { content_type: self.content_type() }.emit();
        }
        Ok(is_stream)
    }

    /// The codings of the body, except for `identity`, the requested one.
    pub fn content_encoding(&self) -> Option<&str> {
        content_encoding(&self.headers)
    }

    /// The content type of the response.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok())
    }

    /// The response for the code that interprets errors; `body` is the one that was read.
    pub fn error_response<'a>(&'a self, body: &'a [u8]) -> ErrorResponse<'a> {
        ErrorResponse {
            status: self.status.as_u16(),
            retry_after: self.retry_after(),
            body,
            content_type: self.content_type(),
            content_encoding: self.content_encoding(),
        }
    }

    /// The response, to be forwarded. Its body holds the connection.
    pub fn into_response(self) -> Response<ClientBody> {
        let Self { status, headers, body, .. } = self;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// Reads the next chunk of the body; `None` at its clean end.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Reads the next chunk of the body, as [`BackendResponse::next_chunk`] does.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        match self.peeked.take().filter(|peeked| !peeked.is_empty()) {
            Some(peeked) => Poll::Ready(Some(Ok(peeked))),
            None => BodyDataStream::new(&mut self.body).poll_next_unpin(cx),
        }
    }

    /// Reads the body, cut to `limit` bytes.
    pub async fn body(&mut self, limit: usize) -> Result<Bytes, hyper::Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next_chunk().await {
            let piece = piece?;
            let room = limit - whole.len();
            whole.extend_from_slice(&piece[..piece.len().min(room)]);
            if whole.len() == limit {
                break;
            }
        }
        Ok(whole.freeze())
    }

    /// The `Retry-After` of the backend.
    pub fn retry_after(&self) -> Option<&str> {
        self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok())
    }

    /// The upgraded connection, once the backend has switched protocols. The error says that the connection broke
    /// during the switch.
    pub async fn upgraded(self) -> Result<Upgraded, hyper::Error> {
        self.body.upgraded(self.extensions).await
    }
}

/// Describes an error before the first byte of a response from `remote` at `url`. `connection_use` says whether the
/// connection was reused.
pub(super) fn describe_failure(
    remote: Remote,
    error: &hyper::Error,
    url: &BackendUrl,
    connection_use: ConnectionUse,
) -> String {
    if let Some(why) = tls::explain_unanswered(remote, error, connection_use) {
        return why;
    }
    let why = reason(error);
    if !url.is_tls() && connection_use == ConnectionUse::Fresh && is_answer_to_plain_http(error) {
        return format!("{why}; if it speaks TLS, write https:// in {}", remote.url_key());
    }
    why
}

/// Returns whether a TLS server may have answered plain HTTP: with an alert, or by closing the connection.
fn is_answer_to_plain_http(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let is_reset = source.is_some_and(|source| source.kind() == io::ErrorKind::ConnectionReset);
    is_reset || error.is_incomplete_message() || error.to_string() == "invalid HTTP version parsed"
}

/// The innermost cause of an error: the text of hyper is only "error reading a body". In TLS 1.3 a backend that
/// refuses the client certificate is detected here.
pub fn reason(error: &hyper::Error) -> String {
    if let Some(why) = tls::explain_tls(Remote::Backend, error) {
        return why;
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
