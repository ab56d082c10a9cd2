//! Why a request was refused, and with which status.

use std::fmt;

/// A request that is refused before anybody acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status of the answer. A 405 needs an `Allow` beside it.
    pub status: u16,
    /// Why, in one word.
    pub reason: RejectReason,
    /// What was wrong and what to do, in one sentence. It never repeats what the client sent: that may
    /// be a secret. Names that the bridge knows may stand in it.
    pub detail: String,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Its first line is no request line.
    RequestLine,
    /// Its method is `CONNECT`, and there are no tunnels here.
    Method,
    /// Its target has a form or a byte that it may not have.
    Target,
    /// Its target is too long.
    TargetTooLong,
    /// Its version is neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// One of its lines ends with something else than CR LF.
    LineEnd,
    /// One of its header lines goes on in the next line.
    Folding,
    /// The name of a header is none.
    HeaderName,
    /// The value of a header has a byte that it may not have.
    HeaderValue,
    /// Its head has too many bytes.
    HeadTooLarge,
    /// It has too many headers.
    TooManyHeaders,
    /// It has no host, several, or one that is none.
    Host,
    /// Its target names another host than its `Host`.
    Authority,
    /// Its `Connection` names an end-to-end header, or what can be no header.
    Connection,
    /// HTTP/2 does not know one of its headers.
    ConnectionSpecific,
    /// It has several `PayloadPart-Length`, or one that is no number.
    ContentLength,
    /// Its `Transfer-Encoding` is not `chunked`, once.
    TransferEncoding,
    /// It has a `Transfer-Encoding`, and is HTTP/1.0, which knows none.
    TransferEncodingInHttp10,
    /// It has both a `PayloadPart-Length` and a `Transfer-Encoding`.
    TwoLengths,
    /// It expects something else than `100-continue`.
    Expectation,
    /// A chunk of its body is malformed.
    Chunk,
    /// A trailer says something that belongs into the head.
    Trailer,
    /// There are too many trailers, or too many bytes of them.
    TrailersTooLarge,
    /// It has a body where none belongs.
    Body,
    /// Its head did not come in time.
    SlowHead,
    /// A piece of its body did not come in time.
    SlowBody,
    /// It has a larger body than it may have.
    BodyTooLarge,
    /// Its body did not come to its end.
    BodyBroken,
}

impl RejectReason {
    /// Every reason.
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

    /// The word for it in logs and metrics.
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

    /// The HTTP status of an answer to it.
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
    /// Of the body of a request that is on its way already; `why` is a sentence.
    pub fn body(reason: RejectReason, why: impl Into<String>) -> Self {
        Self::new(reason, why)
    }

    /// The head of a request did not come in time. The guard has no clock: whoever has one says it.
    pub fn slow_head() -> Self {
        Self::new(
            RejectReason::SlowHead,
            "The head of the request was not whole in time (limits.client_head).",
        )
    }

    /// The target of a request has a fragment, which no client sends.
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
            assert!((400..600).contains(&reason.status()));
        }
    }
}
