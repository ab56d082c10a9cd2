//! Constructors for HTTP responses: status, headers and body.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use serde::Serialize;

use crate::core::domain::error_code::ErrorCode;
use crate::core::domain::refusal::{self, Refusal};
use crate::core::http::limit::Limit;

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

const LIMIT_MESSAGE: &str = "Too many concurrent requests.";
/// The `Retry-After` of a response about a limit, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A `text/event-stream` response (R2, R14) with `body`.
pub fn stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

/// A refusal (R15).
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    refusal_response(refusal, None)
}

/// A refusal on the admin listener: its cause is its code.
pub fn coded_refusal(refusal: &Refusal) -> Response<Body> {
    refusal_response(refusal, Some(refusal.cause.as_str()))
}

fn refusal_response(refusal: &Refusal, code: Option<&str>) -> Response<Body> {
    let body = match &refusal.body {
        refusal::RefusalBody::Bridge { message, detail } => message_body(code, message, detail),
        refusal::RefusalBody::Backend(body) => Bytes::copy_from_slice(body),
    };
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = json(status, body);
    if let Some(value) = refusal.retry_after.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// 204: an `EventSource` does not reconnect after it.
pub fn no_content() -> Response<Body> {
    json_response(StatusCode::NO_CONTENT, Bytes::new())
}

/// 101: the connection switches to the protocol in `headers`.
pub fn switching(headers: HeaderMap) -> Response<Body> {
    let mut response = json_response(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    *response.headers_mut() = headers;
    response
}

/// A response of the bridge: a JSON object with `message` and `detail`.
pub fn message(status: StatusCode, message: &str, detail: &str) -> Response<Body> {
    json(status, message_body(None, message, detail))
}

/// An error of the bridge: a JSON object with `code`, `message` and `detail`.
pub fn error(status: StatusCode, code: ErrorCode, message: &str, detail: &str) -> Response<Body> {
    json(status, message_body(Some(code.as_str()), message, detail))
}

/// A response in the form of the errors of backends and of NetBox: a JSON object with `detail` alone.
pub fn detail(status: StatusCode, detail: &str) -> Response<Body> {
    object(status, &serde_json::json!({ "detail": detail }))
}

/// 403 for a request that a page of another site may have sent.
pub fn cross_site(detail: &str) -> Response<Body> {
    error(StatusCode::FORBIDDEN, ErrorCode::CrossSite, "Cross-site request refused.", detail)
}

/// 405 with `Allow`.
pub fn method_not_allowed(methods: &'static str) -> Response<Body> {
    let detail = format!("This path supports {methods}.");
    let mut response =
        error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, "Method not allowed.", &detail);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// A response with the JSON text `body`.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = json_response(status, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response with `value` serialized as JSON.
pub fn object(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => json(status, Bytes::from(body)),
        // Does not happen with the bridge's types: only maps whose keys are not strings fail.
        Err(why) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            "The response could not be serialized.",
            &why.to_string(),
        ),
    }
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
}

/// A complete body.
pub fn full(body: Bytes) -> Body {
    if body.is_empty() {
        Empty::new().map_err(unreachable_error).boxed_unsync()
    } else {
        Full::new(body).map_err(unreachable_error).boxed_unsync()
    }
}

/// A complete body without a `Content-Length`.
pub fn chunked(body: Bytes) -> Body {
    StreamBody::new(stream::iter([Ok(Frame::data(body))])).boxed_unsync()
}

/// The body of a backend's response.
pub fn forwarded<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// `response` as the response to HEAD: with the length of its body, without the body.
pub fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().filter(|_| !response.body().is_end_stream());
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| full(Bytes::new()))
}

/// The response to a client that exceeded `limit`.
pub fn limit_exceeded(limit: Limit) -> Response<Body> {
    let status = StatusCode::from_u16(limit.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = error(status, ErrorCode::LimitExceeded, LIMIT_MESSAGE, limit.detail());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

impl From<Limit> for Box<Response<Body>> {
    fn from(limit: Limit) -> Self {
        Box::new(limit_exceeded(limit))
    }
}

/// The bytes of an HTTP/1.1 response to a connection that exceeds `limit`.
pub fn raw_limit_exceeded(limit: Limit) -> String {
    let status = StatusCode::from_u16(limit.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let body = message_body(Some(ErrorCode::LimitExceeded.as_str()), LIMIT_MESSAGE, limit.detail());
    let body = String::from_utf8_lossy(&body).into_owned();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn unreachable_error(never: Infallible) -> BoxError {
    match never {}
}

fn message_body(code: Option<&str>, message: &str, detail: &str) -> Bytes {
    let mut body = serde_json::json!({ "message": message, "detail": detail });
    if let Some(code) = code {
        body["code"] = code.into();
    }
    body.to_string().into()
}
