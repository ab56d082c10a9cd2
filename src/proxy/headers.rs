//! What changes in a request or an answer between two connections: headers of one hop, and forms that only HTTP/2 has.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, Version};
use percent_encoding::percent_decode_str;

use super::credentials::request_key;
use crate::backend::API_KEY;
use crate::core::http::headers::{VIA_HTTP_1, accepts_trailers, strip_hop_by_hop};

const VIA_HTTP_1_0: HeaderValue = HeaderValue::from_static("1.0 proxbox-bridge");
const VIA_HTTP_2: HeaderValue = HeaderValue::from_static("2.0 proxbox-bridge");

/// What the backend is sent of the headers of a request, which came in `version`.
pub(super) fn outbound(headers: &mut HeaderMap, version: Version) {
    if let Some(value) = request_key(headers).and_then(|key| key.header().ok()) {
        // Plugins up to 0.0.10 send it in a form that no backend has ever read.
        if headers.insert(API_KEY, value).is_none() {
            headers.remove(AUTHORIZATION);
        }
    }
    hop_by_hop(headers, version);
}

/// Replaces what `headers`, which came in `version`, say of the connection to the client by what is true of the next one.
pub(super) fn hop_by_hop(headers: &mut HeaderMap, version: Version) {
    // Of all that `TE` may say, this alone is true of the bridge too.
    let takes_trailers = accepts_trailers(headers, version);
    strip_hop_by_hop(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.append(
        VIA,
        match version {
            Version::HTTP_2 => VIA_HTTP_2,
            Version::HTTP_10 => VIA_HTTP_1_0,
            _ => VIA_HTTP_1,
        },
    );
}

/// Takes out of `headers` what announces a body, for a request that goes on without one: what is announced and
/// does not come is made up of the next request.
pub(super) fn without_body(headers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, TRAILER, EXPECT] {
        headers.remove(name);
    }
}

/// What the client is sent of the headers of an answer.
pub(super) fn inbound(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.append(VIA, VIA_HTTP_1);
}

/// Writes a request of HTTP/2 as backends know it.
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

/// The path by which a request is told from others. Backends look at it when it is decoded (ASGI decodes once, `%2F`
/// included), and neither a sync nor a change of keys may go past the bridge.
pub(super) fn decoded_path(uri: &Uri) -> Cow<'_, str> {
    percent_decode_str(uri.path()).decode_utf8_lossy()
}
