//! The headers of a request in combination: its length, host and connection.

use super::authority::{Authority, decimal};
use super::rejection::{RejectReason, Rejection};
use super::target::AbsoluteForm;
use crate::core::http::headers::elements;

/// The maximum body length that hyper counts, in bytes.
const BODY_BYTES: u64 = u64::MAX - 2;

/// Names that a `Connection` may always contain.
const CONNECTION_OPTIONS: [&str; 8] = [
    "close", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection",
    "http2-settings",
];

/// Headers of HTTP/1 connections, which HTTP/2 forbids (RFC 9113, section 8.2.2). `TE: trailers` is allowed.
const HTTP_1_FIELDS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Headers that a `Connection` must not name. Named headers are not forwarded (RFC 9110, section 7.6.1). The bridge and
/// the backend rely on these headers, and a client could remove those that a proxy in front has set.
const END_TO_END: [&str; 15] = [
    "authorization", "cache-control", "cookie", "expect", "forwarded", "host", "last-event-id",
    "max-forwards", "origin", "range", "traceparent", "tracestate", "via", "x-real-ip", "x-request-id",
];
/// Prefixes of more such headers.
const END_TO_END_BEGIN: [&str; 7] =
    ["accept", "content-", "if-", "proxy-auth", "sec-", "x-forwarded-", "x-proxbox-"];

/// An HTTP version, as far as the rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

/// The framing of the bytes after a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// A body of this many bytes.
    Sized(u64),
    /// A chunked body.
    Chunked,
    /// Unchecked bytes.
    Opaque,
}

/// The headers of a request so far.
#[derive(Debug)]
pub(super) struct HeaderFields {
    version: HttpVersion,
    /// The scheme and authority in the request target.
    absolute: Option<AbsoluteForm>,
    has_host: bool,
    content_length: Option<u64>,
    is_chunked: bool,
    /// Only a GET can upgrade from HTTP/1, as WebSocket requires (RFC 6455, section 4.1).
    may_upgrade: bool,
    upgrades: bool,
}

impl HeaderFields {
    /// Creates an empty set of headers.
    pub(super) fn new(version: HttpVersion, method: &[u8], absolute: Option<AbsoluteForm>) -> Self {
        Self {
            version,
            absolute,
            has_host: false,
            content_length: None,
            is_chunked: false,
            // HTTP/1.0 has no upgrades.
            may_upgrade: version == HttpVersion::Http11 && method == b"GET",
            upgrades: false,
        }
    }

    /// Adds the next header.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Rejection> {
        let (is_http2, value) = (self.version == HttpVersion::Http2, trim(value));
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("host") {
            self.add_host(value)
        } else if is("content-length") {
            self.add_content_length(value)
        } else if is("expect") {
            check_expect(value)
        } else if is_http2 {
            let is_allowed = is("te") && value.eq_ignore_ascii_case(b"trailers");
            if is_allowed || !HTTP_1_FIELDS.into_iter().any(is) {
                return Ok(());
            }
            let detail =
                "The request has a header of HTTP/1 connections that HTTP/2 has none of; leave it out.";
            Err(Rejection::new(RejectReason::ConnectionSpecific, detail))
        } else if is("transfer-encoding") {
            self.add_transfer_encoding(value)
        } else if is("connection") {
            check_connection(value)
        } else {
            self.upgrades |= is("upgrade") && self.may_upgrade && is_opaque_upgrade(value);
            Ok(())
        }
    }

    fn add_host(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let refused = |detail: &str| Err(Rejection::new(RejectReason::Host, detail));
        if self.has_host {
            return refused("The request has more than one Host; send one.");
        }
        self.has_host = true;
        let Some(host) = Authority::parse(value) else {
            return refused("The Host is not HOST or HOST:PORT; send one of these.");
        };
        if self.absolute.as_ref().is_some_and(|absolute| !absolute.is_for(&host)) {
            let detail = "The target names another host than the Host does; send the same in both.";
            return Err(Rejection::new(RejectReason::Authority, detail));
        }
        Ok(())
    }

    fn add_content_length(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let refused = |detail: &str| Err(Rejection::new(RejectReason::ContentLength, detail));
        if self.is_chunked {
            return Err(two_lengths());
        }
        if self.content_length.is_some() {
            return refused("The request has more than one Content-Length; send one.");
        }
        match content_length(value) {
            Some(length) => self.content_length = Some(length),
            None => return refused("The Content-Length is no number of bytes; send decimal digits only."),
        }
        Ok(())
    }

    fn add_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if self.version == HttpVersion::Http10 {
            let detail = "HTTP/1.0 has no Transfer-Encoding; send a Content-Length, or use HTTP/1.1.";
            return Err(Rejection::new(RejectReason::TransferEncodingInHttp10, detail));
        }
        if self.content_length.is_some() {
            return Err(two_lengths());
        }
        if value.contains(&b'\t') {
            let detail = "The Transfer-Encoding has a control character; leave it out.";
            return Err(Rejection::new(RejectReason::HeaderValue, detail));
        }
        if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
            let detail =
                "The only Transfer-Encoding that is taken is chunked, once; use it or a Content-Length.";
            return Err(Rejection::new(RejectReason::TransferEncoding, detail));
        }
        self.is_chunked = true;
        Ok(())
    }

    /// Ends the headers and returns the framing of the bytes after them.
    pub(super) fn end(&self) -> Result<Framing, Rejection> {
        let needs_host = match self.version {
            HttpVersion::Http10 => false,
            HttpVersion::Http11 => true,
            HttpVersion::Http2 => self.absolute.is_none(),
        };
        if needs_host && !self.has_host {
            return Err(Rejection::new(
                RejectReason::Host,
                "The request does not say its host; send a Host.",
            ));
        }
        if self.upgrades {
            return Ok(Framing::Opaque);
        }
        if self.is_chunked {
            return Ok(Framing::Chunked);
        }
        Ok(Framing::Sized(self.content_length.unwrap_or(0)))
    }
}

/// The value of a `Content-Length`.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    decimal(value).filter(|length| *length <= BODY_BYTES)
}

fn check_connection(value: &[u8]) -> Result<(), Rejection> {
    let is = |option: &[u8], name: &str| option.eq_ignore_ascii_case(name.as_bytes());
    let begins = |option: &[u8], start: &str| option.get(..start.len()).is_some_and(|begin| is(begin, start));
    let is_own = |option: &&[u8]| CONNECTION_OPTIONS.iter().any(|name| is(option, name));
    for option in elements(value).filter(|option| !is_own(option)) {
        let name = END_TO_END.iter().find(|name| is(option, name)).map(|name| (*name).to_owned());
        let family =
            || END_TO_END_BEGIN.iter().find(|start| begins(option, start)).map(|start| format!("{start}*"));
        let detail = if !option.iter().copied().all(is_token) {
            "The Connection names what can be no header; send a list of names.".to_owned()
        } else if let Some(name) = name.or_else(family) {
            format!("The Connection names the end-to-end header {name}; remove it from Connection.")
        } else {
            continue;
        };
        return Err(Rejection::new(RejectReason::Connection, detail));
    }
    Ok(())
}

fn check_expect(value: &[u8]) -> Result<(), Rejection> {
    if value.eq_ignore_ascii_case(b"100-continue") {
        return Ok(());
    }
    Err(Rejection::new(
        RejectReason::Expectation,
        "The only expectation that is met is 100-continue; send no other.",
    ))
}

/// The rejection of a body with two lengths (RFC 9112, section 6.3).
fn two_lengths() -> Rejection {
    let detail = "The request has a Content-Length and a Transfer-Encoding; send one of them.";
    Rejection::new(RejectReason::TwoLengths, detail)
}

/// Whether an `Upgrade` leaves HTTP/1. The bridge never offers an upgrade to HTTP/2, so that one changes no framing.
pub(super) fn is_opaque_upgrade(upgrade: &[u8]) -> bool {
    elements(upgrade).any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// Trims spaces and tabs (`OWS` in RFC 9110, section 5.6.3).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The characters of names (`tchar` in RFC 9110, section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0u8;
        while byte < 0x80 {
            table[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
}
