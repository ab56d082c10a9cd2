//! What clients may ask without the backend being asked anew, and what they may not ask at all.

use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;

use super::front::Visit;
use super::passthrough::{inbound, outbound};
use super::{Bridge, key_of};
use crate::backend::{API_KEY, Answer, ForwardError, Question};
use crate::core::credential::ApiKey;
use crate::job::held_back;
use crate::respond::{self, Body};

/// Cheap questions that everybody asks all the time.
const CHEAP: [&str; 3] = ["/", "/version", "/health"];
/// The longest answer to one of them that serves several, in bytes.
const ANSWER: usize = 256 * 1024;
/// What backends answer without a key, so that a bad one is no failed attempt.
const OPEN: [&str; 7] =
    ["/", "/docs", "/redoc", "/openapi.json", "/health", "/auth/register-key", "/auth/bootstrap-status"];
const OPEN_BELOW: &str = "/static/";
/// What makes keys right that were wrong.
const REGISTER: &str = "/auth/register-key";
const KEYS: &str = "/auth/keys";
/// How much of a refusal is read, in bytes.
const REFUSAL: usize = 64 * 1024;
/// The longest time, in seconds, for which a backend is obeyed that wants no more requests.
const LONGEST_WAIT: u64 = 600;

/// Whether an answer to this question may serve several.
pub(super) fn is_cheap(parts: &Parts) -> bool {
    parts.method == Method::GET && CHEAP.contains(&parts.uri.path())
}

/// The answer to a question for which the backend is not asked, if that is so.
pub(super) fn hold_back(bridge: &Bridge, visit: &Visit, parts: &Parts) -> Option<Response<Body>> {
    if is_open(parts.uri.path()) {
        return None;
    }
    let key = key_of(&parts.headers);
    let hash = key.as_ref().map(|key| bridge.registry.key_hash(key));
    let known = visit.backend.shield.knows(Some(visit.forwarded.client), hash)?;
    Some(respond::refused(&held_back(key.is_some(), &known)))
}

/// The backend's answer to a cheap question, which may be one that somebody else has got. `None` is an answer
/// that is too long to serve several.
pub(super) async fn shared(
    bridge: &Bridge,
    visit: &Visit,
    parts: &Parts,
) -> Result<Option<Response<Body>>, ForwardError> {
    let backend = &visit.backend;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let mut asker = Vec::new();
    for name in
        [API_KEY, http::header::AUTHORIZATION, http::header::HOST, http::header::ACCEPT, http::header::ORIGIN]
    {
        for value in parts.headers.get_all(name) {
            asker.extend_from_slice(value.as_bytes());
            asker.push(b'\n');
        }
        asker.push(b'\n');
    }
    let ask = async {
        let mut request = http::Request::new(Empty::new());
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = parts.headers.clone();
        outbound(request.headers_mut());
        let (mut head, body) = backend.forward(request).await?.into_parts();
        inbound(&mut head.headers);
        match Limited::new(body, ANSWER).collect().await {
            Ok(body) => Ok(Some(Answer { head, body: body.to_bytes() })),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(None),
            Err(error) => Err(ForwardError::Broken(error.to_string())),
        }
    };
    let answer = backend.shield.answer(Question { target, asker }, backend.limits().coalesce, ask).await?;
    let key = key_of(&parts.headers);
    Ok(answer.map(|Answer { head, body }| {
        note_refusal(bridge, visit, key.as_ref(), (head.status, parts.uri.path()), &body);
        Response::from_parts(head, respond::whole(body))
    }))
}

/// Heeds what the backend's answer to `key` and `parts` says of the next one.
pub(super) async fn heed(
    bridge: &Bridge,
    visit: &Visit,
    key: Option<&ApiKey>,
    (method, path): (&Method, &str),
    response: Response<Incoming>,
) -> Response<Body> {
    let shield = &visit.backend.shield;
    let status = response.status();
    if status.is_success() && !method.is_safe() && (path == REGISTER || path.starts_with(KEYS)) {
        shield.keys_changed();
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let wait = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        if let Some(wait) = wait.map(|wait: u64| wait.min(LONGEST_WAIT)) {
            shield.limited(visit.forwarded.client, std::time::Duration::from_secs(wait));
        }
    }
    if status != StatusCode::UNAUTHORIZED || is_open(path) {
        return response.map(respond::passed);
    }
    let (head, body) = response.into_parts();
    let Ok(body) = Limited::new(body, REFUSAL).collect().await else {
        return respond::said(status, "The backend refused the request.", "Its reason could not be read.");
    };
    let body = body.to_bytes();
    note_refusal(bridge, visit, key, (status, path), &body);
    Response::from_parts(head, respond::whole(body))
}

/// Remembers `key` if the backend has refused it.
fn note_refusal(
    bridge: &Bridge,
    visit: &Visit,
    key: Option<&ApiKey>,
    (status, path): (StatusCode, &str),
    body: &[u8],
) {
    // Not that there is no key yet: that is no failed attempt.
    let is_attempt = [&b"Invalid API key"[..], b"API key required"]
        .iter()
        .any(|said| memchr::memmem::find(body, said).is_some());
    if status == StatusCode::UNAUTHORIZED && is_attempt && !is_open(path) {
        let hash = key.map(|key| bridge.registry.key_hash(key));
        visit.backend.shield.refused(hash, visit.backend.limits().refused_key);
    }
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || path.starts_with(OPEN_BELOW)
}
