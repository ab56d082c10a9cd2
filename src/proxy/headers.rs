//! Header changes between two connections: hop-by-hop fields, and forms specific to HTTP/2.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, Version};
use percent_encoding::percent_decode_str;

use super::credentials::request_key;
use crate::backend::API_KEY;
use crate::core::http::headers::{Pseudonym, RESPONSE_VIA, accepts_trailers, strip_hop_by_hop};

/// Rewrites the headers of a request of `version` for the backend.
pub(super) fn outbound(headers: &mut HeaderMap, version: Version, pseudonym: &Pseudonym) {
    if let Some(value) = request_key(headers).and_then(|key| key.header().ok()) {
        // Plugins up to 0.0.10 send the key in a form that no backend has ever read.
        if headers.insert(API_KEY, value).is_none() {
            headers.remove(AUTHORIZATION);
        }
    }
    hop_by_hop(headers, version, pseudonym);
}

/// Replaces the hop-by-hop fields of a request of `version` by those for the next connection, and adds `Via`.
pub(super) fn hop_by_hop(headers: &mut HeaderMap, version: Version, pseudonym: &Pseudonym) {
    // `trailers` is the only value of `TE` that the bridge supports as well.
    let takes_trailers = accepts_trailers(headers, version);
    strip_hop_by_hop(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    pseudonym.append_to(headers, version);
}

/// Removes the fields that announce a body, for a request that is sent without one. Otherwise the backend would read
/// the next request as the body.
pub(super) fn without_body(headers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, TRAILER, EXPECT] {
        headers.remove(name);
    }
}

/// Rewrites the headers of a response for the client.
pub(super) fn inbound(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.append(VIA, RESPONSE_VIA);
}

/// Rewrites an HTTP/2 request in the form of HTTP/1.1.
pub(crate) fn as_http_1(parts: &mut Parts) {
    if !parts.headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    if parts.version == Version::HTTP_2 {
        let crumbs: Vec<&[u8]> = parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if crumbs.len() > 1
            && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
        {
            parts.headers.insert(COOKIE, cookie);
        }
    }
}

/// The path for routing, decoded. Backends decode it as well (ASGI decodes once, including `%2F`), and no sync and no
/// change of keys may bypass the bridge.
pub(super) fn decoded_path(uri: &Uri) -> Cow<'_, str> {
    match uri.path() {
        path if path.contains('%') => percent_decode_str(path).decode_utf8_lossy(),
        path => Cow::Borrowed(path),
    }
}
