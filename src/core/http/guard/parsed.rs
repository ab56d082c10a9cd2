//! The same rules for parsed requests, mainly of HTTP/2.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Method, Request};

use super::fields::{self, HeaderFields, HttpVersion};
use super::rejection::{RejectReason, Rejection};
use super::target::{self, AbsoluteForm};
use super::{HeadLimits, head};

/// Checks a parsed request of either version.
///
/// It cannot detect what a parser removes: line endings, a fragment, two lengths in HTTP/1. [`super::Guard`] checks
/// these.
///
/// # Errors
///
/// [`Rejection`] for the first violation.
pub fn check(parts: &Parts, bounds: &HeadLimits) -> Result<(), Rejection> {
    let version = match parts.version {
        http::Version::HTTP_10 => HttpVersion::Http10,
        http::Version::HTTP_11 => HttpVersion::Http11,
        http::Version::HTTP_2 => HttpVersion::Http2,
        _ => {
            let detail = "The version is none of HTTP/1.0, HTTP/1.1 and HTTP/2; use one of them.";
            return Err(Rejection::new(RejectReason::Version, detail));
        }
    };
    let method = parts.method.as_str().as_bytes();
    target::check_method(method)?;
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > bounds.target_bytes) {
        return Err(target::too_long(bounds));
    }
    if parts.headers.len() > bounds.header_count {
        return Err(head::too_many(bounds));
    }
    let mut fields = HeaderFields::new(version, method, target_of(parts, method)?);
    for (name, value) in &parts.headers {
        fields.add(name.as_str().as_bytes(), value.as_bytes())?;
    }
    fields.end().map(drop)
}

/// Whether the guard passes the connection of this request on unchecked. If the answer is not 101, the connection must
/// close with that answer.
pub fn may_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == http::Version::HTTP_11
        && request.method() == Method::GET
        && request
            .headers()
            .get_all(UPGRADE)
            .iter()
            .any(|upgrade| fields::is_opaque_upgrade(upgrade.as_bytes()))
}

/// Whether a request announces a body, with a `Transfer-Encoding` or a `Content-Length` other than 0. HTTP/2 may send a
/// body without announcing it.
pub fn announces_body(parts: &Parts) -> bool {
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    parts.headers.contains_key(TRANSFER_ENCODING)
        || lengths.any(|value| fields::content_length(value.as_bytes()) != Some(0))
}

/// The rejection of a request that takes no body and has one.
pub fn body_not_allowed() -> Rejection {
    Rejection::new(RejectReason::Body, "This request takes no body; send none.")
}

fn target_of(parts: &Parts, method: &[u8]) -> Result<Option<AbsoluteForm>, Rejection> {
    let uri = &parts.uri;
    if let Some(path) = uri.path_and_query() {
        target::check_path(method, path.as_str().as_bytes())?;
    }
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(None),
        (Some(scheme), Some(authority)) => {
            let default_port = target::default_port(scheme.as_bytes())?;
            AbsoluteForm::parse(default_port, authority.as_str().as_bytes()).map(Some)
        }
        _ => Err(target::invalid_target("The target is neither a path nor a whole URL; send a path.")),
    }
}
