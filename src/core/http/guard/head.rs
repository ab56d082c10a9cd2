//! Request lines and header lines (RFC 9112, sections 3 and 5).

use super::HeadLimits;
use super::fields::{Framing, HeaderFields, HttpVersion, is_token, trim};
use super::lines::{LineFault, bad_ending};
use super::rejection::{RejectReason, Rejection};
use super::target;

/// The maximum length of an [`http::HeaderName`] in bytes. hyper cannot handle longer names.
const NAME_BYTES: usize = 65_535;

/// A head so far.
#[derive(Debug, Default)]
pub(super) struct RequestHead {
    /// The headers so far. `None` before the request line.
    fields: Option<HeaderFields>,
    /// The number of headers so far.
    count: usize,
}

/// The rejection of a head with too many headers.
pub(super) fn too_many(bounds: &HeadLimits) -> Rejection {
    let detail = format!("The request has more than {} headers; send fewer.", bounds.header_count);
    Rejection::new(RejectReason::TooManyHeaders, detail)
}

impl RequestHead {
    /// Parses the next line. Returns the framing after the head if it was the last line.
    pub(super) fn line(&mut self, line: &[u8], bounds: &HeadLimits) -> Result<Option<Framing>, Rejection> {
        let Some(fields) = &mut self.fields else {
            self.fields = Some(request_line(line, bounds)?);
            return Ok(None);
        };
        if line.is_empty() {
            return fields.end().map(Some);
        }
        self.count += 1;
        if self.count > bounds.header_count {
            return Err(too_many(bounds));
        }
        let (name, value) = header_line(line)?;
        fields.add(name, value)?;
        Ok(None)
    }

    /// The rejection for a line fault. `held` is the text before it.
    pub(super) fn rejection_for(&self, fault: LineFault, held: &[u8], bounds: &HeadLimits) -> Rejection {
        match fault {
            LineFault::Ending => bad_ending(),
            LineFault::Full if self.fields.is_none() && held.contains(&b' ') => target::too_long(bounds),
            LineFault::Full => {
                let detail =
                    format!("The head of the request has more than {} bytes; send fewer.", bounds.head_bytes);
                Rejection::new(RejectReason::HeadTooLarge, detail)
            }
        }
    }
}

/// Parses `METHOD TARGET HTTP/1.x`.
fn request_line(line: &[u8], bounds: &HeadLimits) -> Result<HeaderFields, Rejection> {
    let malformed = || {
        let detail = "The first line is not METHOD TARGET HTTP/1.1 with single spaces; send it like that.";
        Rejection::new(RejectReason::RequestLine, detail)
    };
    let mut spaces = memchr::memchr_iter(b' ', line);
    let first = spaces.next().ok_or_else(malformed)?;
    let last = spaces.next_back().ok_or_else(malformed)?;
    let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
    if target.is_empty() || !method.iter().copied().all(is_token) {
        return Err(malformed());
    }
    let version = match version {
        b"HTTP/1.1" => HttpVersion::Http11,
        b"HTTP/1.0" => HttpVersion::Http10,
        _ if version.starts_with(b"HTTP/") => {
            let detail = "The version is neither HTTP/1.0 nor HTTP/1.1; use one of them.";
            return Err(Rejection::new(RejectReason::Version, detail));
        }
        _ => return Err(malformed()),
    };
    target::check_method(method)?;
    let absolute = target::parse(method, target, bounds)?;
    Ok(HeaderFields::new(version, method, absolute))
}

/// Splits a header or trailer line.
pub(super) fn header_line(line: &[u8]) -> Result<(&[u8], &[u8]), Rejection> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        let detail =
            "A header line begins with a space or continues in the next line; write each in one line.";
        return Err(Rejection::new(RejectReason::Folding, detail));
    }
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    if name.ends_with(b" ") || name.ends_with(b"\t") {
        let detail = "A space stands between the name of a header and its colon; leave it out.";
        return Err(Rejection::new(RejectReason::HeaderName, detail));
    }
    let Some(value) = value.strip_prefix(b":") else {
        return Err(Rejection::new(
            RejectReason::HeaderName,
            "A header line has no colon; write NAME: VALUE.",
        ));
    };
    if name.is_empty() || !name.iter().copied().all(is_token) {
        let detail =
            "The name of a header is empty or has a byte that no name has; use letters, digits and hyphens.";
        return Err(Rejection::new(RejectReason::HeaderName, detail));
    }
    if name.len() > NAME_BYTES {
        let detail = "The name of a header is too long; send a shorter one.";
        return Err(Rejection::new(RejectReason::HeadTooLarge, detail));
    }
    if value.iter().copied().any(is_control) {
        let detail = "The value of a header has a control character; leave it out.";
        return Err(Rejection::new(RejectReason::HeaderValue, detail));
    }
    Ok((name, trim(value)))
}

/// Characters that are invalid in a value: every control character except the tab.
pub(super) const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}
