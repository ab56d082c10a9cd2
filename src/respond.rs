//! From what happened to HTTP answers: status, headers and body, in one place.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use serde::Serialize;

use crate::core::domain::refusal::{self, Refusal};
use crate::core::http::limit::Limit;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Whatever ends a body that is passed on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

const LIMIT_MESSAGE: &str = "There is too much at once.";
/// After how many seconds there may be room again.
const RETRY_AFTER_SECONDS: &str = "5";

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The head of a stream (R2, R14), with `body` behind it.
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
    let body = match &refusal.body {
        refusal::RefusalBody::Bridge { message, detail } => message_body(message, detail),
        refusal::RefusalBody::Backend(body) => Bytes::copy_from_slice(body),
    };
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = json(status, body);
    if let Some(value) = refusal.retry_after.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// There is nothing to say, and nothing will come: an `EventSource` does not ask again.
pub fn no_content() -> Response<Body> {
    json_response(StatusCode::NO_CONTENT, Bytes::new())
}

/// The connection goes on as something else, which `headers` name.
pub fn switching(headers: HeaderMap) -> Response<Body> {
    let mut response = json_response(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    *response.headers_mut() = headers;
    response
}

/// An answer in our own words: a JSON object with `message` and `detail`.
pub fn message(status: StatusCode, message: &str, detail: &str) -> Response<Body> {
    json(status, message_body(message, detail))
}

/// The answer to a method that a path does not know.
pub fn method_not_allowed(methods: &'static str) -> Response<Body> {
    let detail = format!("This path knows {methods}.");
    let mut response = message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.", &detail);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// `value` as JSON.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = json_response(status, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `value`, written as JSON.
pub fn object(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => json(status, Bytes::from(body)),
        // Only what cannot happen to our own types: a map whose keys are no text.
        Err(error) => {
            message(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be written.", &error.to_string())
        }
    }
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
}

/// A body that is known.
pub fn full(body: Bytes) -> Body {
    if body.is_empty() {
        Empty::new().map_err(unreachable_error).boxed_unsync()
    } else {
        Full::new(body).map_err(unreachable_error).boxed_unsync()
    }
}

/// A body that is known, and whose length is not told.
pub fn chunked(body: Bytes) -> Body {
    StreamBody::new(stream::iter([Ok(Frame::data(body))])).boxed_unsync()
}

/// The body of an answer of a backend.
pub fn forwarded<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// `response` as the answer to HEAD: with the length that its body has, and without the body.
pub fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().filter(|_| !response.body().is_end_stream());
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| full(Bytes::new()))
}

/// An answer to one who has too much.
pub fn limit_exceeded(limit: Limit) -> Response<Body> {
    let status = StatusCode::from_u16(limit.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = message(status, LIMIT_MESSAGE, limit.detail());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

/// The whole answer, in HTTP/1.1, to a client whose connection is one too many.
pub fn raw_limit_exceeded(limit: Limit) -> String {
    let status = StatusCode::from_u16(limit.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let body = String::from_utf8_lossy(&message_body(LIMIT_MESSAGE, limit.detail())).into_owned();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn unreachable_error(never: Infallible) -> BoxError {
    match never {}
}

fn message_body(message: &str, detail: &str) -> Bytes {
    serde_json::json!({ "message": message, "detail": detail }).to_string().into()
}
