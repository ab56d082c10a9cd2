//! The trailers after the last chunk (RFC 9112, section 7.1.2).

use http::HeaderName;

use super::HeadLimits;
use super::head::header_line;
use super::lines::{LineFault, bad_ending};
use super::rejection::{RejectReason, Rejection};

/// The maximum number of bytes that hyper accepts, including the final empty line.
const HYPER_BYTES: usize = 16 * 1024 - 1;

/// Fields that are not allowed as trailers (RFC 9110, section 6.5.1). They determine the framing, the route or the
/// sender of a message, or how to decode its body.
const NAMES: [&str; 27] = [
    "authorization", "cache-control", "connection", "content-encoding", "content-length", "content-range",
    "content-type", "cookie", "expect", "forwarded", "host", "http2-settings", "keep-alive", "max-forwards",
    "proxy-authorization", "proxy-connection", "range", "te", "trailer", "transfer-encoding", "upgrade",
    "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-proxbox-api-key", "x-real-ip",
];

/// The trailers of a body so far.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    count: usize,
}

impl Trailers {
    /// Parses the next line. Returns whether it was the last one.
    pub(super) fn line(&mut self, line: &[u8], bounds: &HeadLimits) -> Result<bool, Rejection> {
        if line.is_empty() {
            return Ok(true);
        }
        self.count += 1;
        if self.count > bounds.header_count {
            return Err(too_large());
        }
        let (name, _) = header_line(line)?;
        if NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
            let detail = "This field is not allowed in trailers; send it in the head of the request.";
            return Err(Rejection::new(RejectReason::Trailer, detail));
        }
        Ok(false)
    }
}

/// Whether a trailer of this name may be passed on.
pub fn is_trailer(name: &HeaderName) -> bool {
    !NAMES.contains(&name.as_str())
}

/// The maximum size of trailers in bytes, including line endings and the empty line.
pub(super) fn max_bytes(bounds: &HeadLimits) -> usize {
    bounds.head_bytes.min(HYPER_BYTES)
}

/// The rejection for a line fault.
pub(super) fn rejection_for(fault: LineFault) -> Rejection {
    match fault {
        LineFault::Ending => bad_ending(),
        LineFault::Full => too_large(),
    }
}

fn too_large() -> Rejection {
    Rejection::new(RejectReason::TrailersTooLarge, "The body has too many trailers; send fewer.")
}
