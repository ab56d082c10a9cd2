//! Asking the backend in a client's place, with the client's headers.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Response, StatusCode, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use zeroize::Zeroizing;

use crate::core::domain::refusal::compressed;
use crate::core::http::headers::content_encoding;
use crate::core::remote::Remote;
use crate::core::secret::append;
use crate::proxy::Proxy;
use crate::proxy::coalesce::PERSONAL;
use crate::proxy::request::Visit;
use crate::proxy::{headers, passthrough};
use crate::respond::{self, Body, BoxError};

/// The longest answer that is read as a whole, in bytes: a list of some 50,000 guests.
const ANSWER: usize = 32 * 1024 * 1024;

/// What the bridge asks the backend for.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: &'a str,
    /// JSON.
    pub(super) body: Option<Bytes>,
}

impl<'a> Question<'a> {
    pub(super) const fn get(target: &'a str) -> Self {
        Self { method: Method::GET, target, body: None }
    }
}

/// The backend's answer to `question`, asked as the client of `parts` would ask it.
pub(super) async fn ask(
    proxy: &Proxy,
    visit: &Visit,
    parts: &Parts,
    question: Question<'_>,
) -> Response<Body> {
    let Ok(target) = question.target.parse::<PathAndQuery>() else {
        let detail = format!("The path {:?} cannot be asked for.", question.target);
        return respond::said(StatusCode::BAD_REQUEST, "This request is refused.", &detail);
    };
    let mut parts = parts.clone();
    parts.method = question.method;
    parts.uri = Uri::from(target);
    readable(&mut parts);
    headers::without_body(&mut parts.headers);
    let body = match question.body {
        None => Bytes::new(),
        Some(body) => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            body
        }
    };
    passthrough::answer(proxy, visit, parts, Full::new(body)).await
}

/// The backend's answer to a GET as it came. A 404 that something compressed is asked for again, to be read.
pub(super) async fn passed(proxy: &Proxy, visit: &Visit, parts: &Parts, body: Incoming) -> Response<Body> {
    let response = passthrough::answer(proxy, visit, parts.clone(), body).await;
    let is_unreadable = content_encoding(response.headers()).is_some();
    if response.status() != StatusCode::NOT_FOUND || !is_unreadable {
        return response;
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    ask(proxy, visit, parts, Question::get(target)).await
}

/// Makes the answer to the request of `parts` one that can be read and changed.
pub(super) fn readable(parts: &mut Parts) {
    for name in &PERSONAL {
        parts.headers.remove(name);
    }
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// The bytes of `body`, if they are no more than `most`. They are zeroed when they are dropped: rows that are pushed,
/// and those that old backends answer with, hold secrets.
pub(super) async fn read<B>(mut body: B, most: usize) -> Result<Bytes, BoxError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    BoxError: From<B::Error>,
{
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(format!("it has more than {most} bytes").into());
        }
        append(&mut bytes, &data);
    }
    Ok(Bytes::from_owner(bytes))
}

/// An answer that was read as a whole.
pub(crate) async fn whole(response: Response<Body>) -> Result<(response::Parts, Bytes), Response<Body>> {
    whole_of(Remote::Backend, response).await
}

/// An answer of `remote` that was read as a whole.
pub(crate) async fn whole_of(
    remote: Remote,
    response: Response<Body>,
) -> Result<(response::Parts, Bytes), Response<Body>> {
    let (head, body) = response.into_parts();
    let refused = |detail: &str| {
        let message = format!("The answer of {remote} could not be read.");
        respond::said(StatusCode::BAD_GATEWAY, &message, detail)
    };
    if let Some(encoding) = content_encoding(&head.headers) {
        return Err(refused(&compressed(remote, encoding)));
    }
    match read(body, ANSWER).await {
        Ok(body) => Ok((head, body)),
        Err(error) => Err(refused(&format!("The answer of {remote} to this was not taken: {error}."))),
    }
}

/// `head` with another `body`.
pub(crate) fn answer(mut head: response::Parts, body: Bytes) -> Response<Body> {
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, respond::whole(body))
}
