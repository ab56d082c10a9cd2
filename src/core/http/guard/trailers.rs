//! What may stand behind the last chunk (RFC 9112, section 7.1.2).

use http::HeaderName;

use super::HeadLimits;
use super::head::header_line;
use super::lines::{LineFault, bad_ending};
use super::rejection::{RejectReason, Rejection};

/// Bytes that hyper takes, the empty line at the end included.
const HYPER_BYTES: usize = 16 * 1024 - 1;

/// What may not come that late (RFC 9110, section 6.5.1): it decides where a message ends, where it goes,
/// who sent it, or how to read a body that is over by then.
const NAMES: [&str; 27] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-proxbox-api-key",
    "x-real-ip",
];

/// The trailers of a body, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    count: usize,
}

impl Trailers {
    /// Takes the next line, and says whether it was the end.
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
            let detail = "A trailer says what only the head of a request can say; send it there.";
            return Err(Rejection::new(RejectReason::Trailer, detail));
        }
        Ok(false)
    }
}

/// Whether a trailer of this name may be passed on.
pub fn is_trailer(name: &HeaderName) -> bool {
    !NAMES.contains(&name.as_str())
}

/// How many bytes trailers may have, their line endings and the empty line included.
pub(super) fn max_bytes(bounds: &HeadLimits) -> usize {
    bounds.head_bytes.min(HYPER_BYTES)
}

/// What to say about lines that are none.
pub(super) fn rejection_for(fault: LineFault) -> Rejection {
    match fault {
        LineFault::Ending => bad_ending(),
        LineFault::Full => too_large(),
    }
}

fn too_large() -> Rejection {
    Rejection::new(RejectReason::TrailersTooLarge, "The body has too many trailers; send fewer.")
}
