//! The reasons for rejecting a request, and their statuses.

use crate::core::text::string_enum::string_enum;

/// A rejected request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Rejection {
    /// The HTTP status of the answer. A 405 also needs an `Allow`.
    pub status: u16,
    /// The reason, for logs and metrics.
    pub reason: RejectReason,
    /// The error and its remedy, in one sentence. It never repeats the client's input, which may be a secret. It may
    /// contain names that the bridge knows.
    pub detail: String,
}

string_enum! {
    /// The reason of a rejection.
    pub enum RejectReason {
        /// The first line is not a request line.
        RequestLine = "request_line",
        /// The method is `CONNECT`, which is not supported.
        Method = "method",
        /// The target has an invalid form or byte.
        Target = "target",
        /// The target is too long.
        TargetTooLong = "target_too_long",
        /// The version is neither HTTP/1.0 nor HTTP/1.1.
        Version = "version",
        /// A line does not end with CR LF.
        LineEnd = "line_end",
        /// A header line is folded.
        Folding = "folding",
        /// A header name is invalid.
        HeaderName = "header_name",
        /// A header value has an invalid byte.
        HeaderValue = "header_value",
        /// The head has too many bytes.
        HeadTooLarge = "head_too_large",
        /// There are too many headers.
        TooManyHeaders = "too_many_headers",
        /// The host is missing, repeated or invalid.
        Host = "host",
        /// The target and `Host` name different hosts.
        Authority = "authority",
        /// The `Connection` names an end-to-end header or an invalid name.
        Connection = "connection",
        /// A header is not allowed in HTTP/2.
        ConnectionSpecific = "connection_specific",
        /// The `Content-Length` is repeated or not a number.
        ContentLength = "content_length",
        /// The `Transfer-Encoding` is not exactly one `chunked`.
        TransferEncoding = "transfer_encoding",
        /// The request is HTTP/1.0 and has a `Transfer-Encoding`, which that version lacks.
        TransferEncodingInHttp10 = "transfer_encoding_in_http_1_0",
        /// There are a `Content-Length` and a `Transfer-Encoding`.
        TwoLengths = "two_lengths",
        /// The `Expect` is not `100-continue`.
        Expectation = "expectation",
        /// A chunk of the body is malformed.
        Chunk = "chunk",
        /// A trailer is only allowed as a header.
        Trailer = "trailer",
        /// There are too many trailers, or they are too large.
        TrailersTooLarge = "trailers_too_large",
        /// The request must not have a body.
        Body = "body",
        /// The head did not arrive in time.
        SlowHead = "slow_head",
        /// A part of the body did not arrive in time.
        SlowBody = "slow_body",
        /// The body is too large.
        BodyTooLarge = "body_too_large",
        /// The body is incomplete.
        BodyBroken = "body_broken",
        /// The request has come back to the bridge that sent it.
        Loop = "loop",
    }
}

impl RejectReason {
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
            Self::Loop => 508,
            _ => 400,
        }
    }
}

impl Rejection {
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

    /// The rejection for `reason`. `detail` is a sentence.
    pub fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { status: reason.status(), reason, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_label_of_its_own_with_a_status() {
        use RejectReason::*;
        let statuses = [
            (405, &[Method][..]),
            (408, &[SlowHead, SlowBody]),
            (413, &[BodyTooLarge]),
            (414, &[TargetTooLong]),
            (417, &[Expectation]),
            (431, &[HeadTooLarge, TooManyHeaders, TrailersTooLarge]),
            (501, &[TransferEncoding]),
            (505, &[Version]),
            (508, &[Loop]),
        ];
        for (at, reason) in RejectReason::ALL.into_iter().enumerate() {
            let name = reason.as_str();
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert_eq!(RejectReason::ALL.iter().position(|other| other.as_str() == name), Some(at), "{name}");
            let status = statuses.iter().find(|(_, reasons)| reasons.contains(&reason));
            assert_eq!(reason.status(), status.map_or(400, |(status, _)| *status), "{name}");
            assert_eq!(Rejection::new(reason, "why").to_string(), "why");
        }
    }
}
