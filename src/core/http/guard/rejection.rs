//! The reasons for rejecting a request, and their statuses.

use std::fmt;

/// A rejected request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status of the answer. A 405 also needs an `Allow`.
    pub status: u16,
    /// The reason, for logs and metrics.
    pub reason: RejectReason,
    /// The error and its remedy, in one sentence. It never repeats the client's input, which may be a secret. It may
    /// contain names that the bridge knows.
    pub detail: String,
}

/// The reason of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The first line is not a request line.
    RequestLine,
    /// The method is `CONNECT`, which is not supported.
    Method,
    /// The target has an invalid form or byte.
    Target,
    /// The target is too long.
    TargetTooLong,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A line does not end with CR LF.
    LineEnd,
    /// A header line is folded.
    Folding,
    /// A header name is invalid.
    HeaderName,
    /// A header value has an invalid byte.
    HeaderValue,
    /// The head has too many bytes.
    HeadTooLarge,
    /// There are too many headers.
    TooManyHeaders,
    /// The host is missing, repeated or invalid.
    Host,
    /// The target and `Host` name different hosts.
    Authority,
    /// The `Connection` names an end-to-end header or an invalid name.
    Connection,
    /// A header is not allowed in HTTP/2.
    ConnectionSpecific,
    /// The `Content-Length` is repeated or not a number.
    ContentLength,
    /// The `Transfer-Encoding` is not exactly one `chunked`.
    TransferEncoding,
    /// The request is HTTP/1.0 and has a `Transfer-Encoding`, which that version lacks.
    TransferEncodingInHttp10,
    /// There are a `Content-Length` and a `Transfer-Encoding`.
    TwoLengths,
    /// The `Expect` is not `100-continue`.
    Expectation,
    /// A chunk of the body is malformed.
    Chunk,
    /// A trailer is only allowed as a header.
    Trailer,
    /// There are too many trailers, or they are too large.
    TrailersTooLarge,
    /// The request must not have a body.
    Body,
    /// The head did not arrive in time.
    SlowHead,
    /// A part of the body did not arrive in time.
    SlowBody,
    /// The body is too large.
    BodyTooLarge,
    /// The body is incomplete.
    BodyBroken,
}

impl RejectReason {
    /// All reasons.
    pub const ALL: [Self; 28] = [
        Self::RequestLine,
        Self::Method,
        Self::Target,
        Self::TargetTooLong,
        Self::Version,
        Self::LineEnd,
        Self::Folding,
        Self::HeaderName,
        Self::HeaderValue,
        Self::HeadTooLarge,
        Self::TooManyHeaders,
        Self::Host,
        Self::Authority,
        Self::Connection,
        Self::ConnectionSpecific,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::TransferEncodingInHttp10,
        Self::TwoLengths,
        Self::Expectation,
        Self::Chunk,
        Self::Trailer,
        Self::TrailersTooLarge,
        Self::Body,
        Self::SlowHead,
        Self::SlowBody,
        Self::BodyTooLarge,
        Self::BodyBroken,
    ];

    /// The name of the reason in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "version",
            Self::LineEnd => "line_end",
            Self::Folding => "folding",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::Host => "host",
            Self::Authority => "authority",
            Self::Connection => "connection",
            Self::ConnectionSpecific => "connection_specific",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http_1_0",
            Self::TwoLengths => "two_lengths",
            Self::Expectation => "expectation",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::Body => "body",
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyBroken => "body_broken",
        }
    }

    /// The HTTP status for this reason.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::SlowHead | Self::SlowBody => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyHeaders | Self::TrailersTooLarge => 431,
            Self::TransferEncoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}

impl Rejection {
    /// The rejection of a request whose head was already passed on. `why` is a sentence.
    pub fn body(reason: RejectReason, why: impl Into<String>) -> Self {
        Self::new(reason, why)
    }

    /// The head of a request did not arrive in time. The guard has no clock, so its caller reports this.
    pub fn slow_head() -> Self {
        Self::new(
            RejectReason::SlowHead,
            "The head of the request was not whole in time (limits.client_head).",
        )
    }

    /// The request target has a fragment, which HTTP does not allow.
    pub fn fragment() -> Self {
        Self::new(RejectReason::Target, "The target has a fragment; leave it out.")
    }

    pub(super) fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { status: reason.status(), reason, detail: detail.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_label_of_its_own() {
        for (at, reason) in RejectReason::ALL.into_iter().enumerate() {
            let word = reason.as_str();
            assert!(
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert_eq!(RejectReason::ALL.iter().position(|other| other.as_str() == word), Some(at), "{word}");
            let status = match reason {
                RejectReason::Method => 405,
                RejectReason::SlowHead | RejectReason::SlowBody => 408,
                RejectReason::BodyTooLarge => 413,
                RejectReason::TargetTooLong => 414,
                RejectReason::Expectation => 417,
                RejectReason::HeadTooLarge
                | RejectReason::TooManyHeaders
                | RejectReason::TrailersTooLarge => 431,
                RejectReason::TransferEncoding => 501,
                RejectReason::Version => 505,
                _ => 400,
            };
            assert_eq!(reason.status(), status, "{word}");
            assert_eq!(Rejection::new(reason, "why").to_string(), "why");
        }
    }
}
