//! The forms of a request target (RFC 9112, section 3.2).

use super::HeadLimits;
use super::authority::Authority;
use super::rejection::{RejectReason, Rejection};

/// The maximum length of an [`http::Uri`] in bytes.
const URI_BYTES: usize = 65_534;

/// The host and port of a target in absolute form, or of an HTTP/2 request.
#[derive(Clone, Debug)]
pub(super) struct AbsoluteForm {
    host: Vec<u8>,
    port: u16,
    default_port: u16,
}

impl AbsoluteForm {
    /// Parses the authority of a URL whose scheme has this default port.
    pub(super) fn parse(default_port: u16, authority: &[u8]) -> Result<Self, Rejection> {
        let Authority { host, port } = Authority::parse(authority).ok_or_else(|| {
            invalid_target("The target is a URL whose host is none, or with a user; send HOST or HOST:PORT.")
        })?;
        Ok(Self { host: host.to_vec(), port: port.unwrap_or(default_port), default_port })
    }

    /// Whether `host`, the `Host` of the request, is the same host and port.
    pub(super) fn is_for(&self, host: &Authority<'_>) -> bool {
        self.host.eq_ignore_ascii_case(host.host) && self.port == host.port.unwrap_or(self.default_port)
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
pub(super) fn parse(
    method: &[u8],
    target: &[u8],
    bounds: &HeadLimits,
) -> Result<Option<AbsoluteForm>, Rejection> {
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
    let default_port = default_port(&target[..colon])?;
    let rest = &target[colon + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !path.is_empty() {
        check_path(method, path)?;
    }
    AbsoluteForm::parse(default_port, authority).map(Some)
}

/// The default port of a URL with `scheme`.
pub(super) fn default_port(scheme: &[u8]) -> Result<u16, Rejection> {
    match scheme {
        scheme if scheme.eq_ignore_ascii_case(b"http") => Ok(80),
        scheme if scheme.eq_ignore_ascii_case(b"https") => Ok(443),
        _ => Err(invalid_target("The target is a URL of another scheme than http and https; use http.")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_port_is_as_good_as_none() {
        for (scheme, authority, host, is_same) in [
            ("http", "A.example:80", "a.Example", true),
            ("HTTPS", "a:443", "a:", true),
            ("https", "a:0443", "a", true),
            ("http", "a:443", "a", false),
            ("http", "a", "a.", false),
            ("http", "a:8800", "a", false),
        ] {
            let default_port = default_port(scheme.as_bytes()).unwrap();
            let [one, other] = [(authority, host), (host, authority)].map(|(authority, host)| {
                let absolute = AbsoluteForm::parse(default_port, authority.as_bytes()).unwrap();
                absolute.is_for(&Authority::parse(host.as_bytes()).unwrap())
            });
            assert_eq!((one, other), (is_same, is_same), "{scheme}://{authority} {host}");
        }
    }
}
