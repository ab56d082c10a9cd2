//! The forms of a request target (RFC 9112, section 3.2).

use super::HeadLimits;
use super::authority::{Authority, Scheme};
use super::rejection::{RejectReason, Rejection};

/// The maximum length of an [`http::Uri`] in bytes.
const URI_BYTES: usize = 65_534;

/// The scheme and authority of a target in absolute form, or of an HTTP/2 request.
#[derive(Clone, Debug)]
pub(super) struct AbsoluteForm<'a> {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority<'a>,
}

impl AbsoluteForm<'_> {
    pub(super) fn into_owned(self) -> AbsoluteForm<'static> {
        AbsoluteForm { scheme: self.scheme, authority: self.authority.into_owned() }
    }
}

/// Rejects `CONNECT`: a proxy for one backend opens no tunnels.
pub(super) fn check_method(method: &[u8]) -> Result<(), Rejection> {
    if method == b"CONNECT" {
        return Err(Rejection::new(RejectReason::Method, "There are no tunnels here; do not use CONNECT."));
    }
    Ok(())
}

/// Checks the target of a request line. Returns its scheme and authority, if any.
pub(super) fn parse<'a>(
    method: &[u8],
    target: &'a [u8],
    bounds: &HeadLimits,
) -> Result<Option<AbsoluteForm<'a>>, Rejection> {
    if target.len() > longest(bounds) {
        return Err(too_long(bounds));
    }
    if matches!(target, [b'/' | b'*', ..]) {
        check_path(method, target)?;
        return Ok(None);
    }
    let Some(colon) = target.windows(3).position(|window| window == b"://") else {
        return Err(invalid_target("The target is neither a path nor a whole URL; send a path."));
    };
    let scheme = scheme(&target[..colon])?;
    let rest = &target[colon + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !path.is_empty() {
        check_path(method, path)?;
    }
    Ok(Some(AbsoluteForm { scheme, authority: parse_host(authority)? }))
}

/// Parses the scheme of a URL.
pub(super) fn scheme(scheme: &[u8]) -> Result<Scheme, Rejection> {
    Scheme::from_name(scheme)
        .ok_or_else(|| invalid_target("The target is a URL of another scheme than http and https; use http."))
}

/// Parses the host and port of a URL.
pub(super) fn parse_host(authority: &[u8]) -> Result<Authority<'_>, Rejection> {
    Authority::parse(authority).ok_or_else(|| {
        invalid_target("The target is a URL whose host is none, or with a user; send HOST or HOST:PORT.")
    })
}

/// Checks a path with its query, or `*`. The bytes that an [`http::Uri`] accepts are allowed, except those above 0x7F.
pub(super) fn check_path(method: &[u8], path: &[u8]) -> Result<(), Rejection> {
    if path.starts_with(b"*") {
        return match (path, method) {
            (b"*", b"OPTIONS") => Ok(()),
            _ => Err(invalid_target("The target * is for OPTIONS only; send a path.")),
        };
    }
    let mut in_query = false;
    for &byte in path {
        match byte {
            b'#' => return Err(Rejection::fragment()),
            b'?' => in_query = true,
            b'<' | b'>' => return Err(unescaped()),
            b'"' if in_query => return Err(unescaped()),
            b'`' if !in_query => return Err(unescaped()),
            0x21..=0x7e => {}
            _ => return Err(unescaped()),
        }
    }
    Ok(())
}

/// The rejection of a target that is too long.
pub(super) fn too_long(bounds: &HeadLimits) -> Rejection {
    let detail = format!("The target has more than {} bytes; send a shorter one.", longest(bounds));
    Rejection::new(RejectReason::TargetTooLong, detail)
}

fn longest(bounds: &HeadLimits) -> usize {
    bounds.target_bytes.min(URI_BYTES)
}

fn unescaped() -> Rejection {
    invalid_target("The target has a byte that stands in no URL; write it as %XX.")
}

pub(super) fn invalid_target(detail: &str) -> Rejection {
    Rejection::new(RejectReason::Target, detail)
}
