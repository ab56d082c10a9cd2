//! Hosts and ports (RFC 3986, section 3.2).

/// A host with an optional port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a [u8],
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `HOST` or `HOST:PORT`.
    ///
    /// A host consists of letters, digits, `-`, `.`, `_` and `~`, or is an IPv6 address in brackets. URLs permit more
    /// (`%41`, `!`, `,`), but no DNS name contains these, and backends may interpret them differently.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let split = match text {
            [b'[', rest @ ..] => memchr::memchr(b']', rest)? + 2,
            _ => memchr::memchr(b':', text).unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(split);
        let port = match port {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(decimal(digits)?.try_into().ok()?),
            _ => return None,
        };
        is_host(host).then_some(Self { host, port })
    }
}

fn is_host(host: &[u8]) -> bool {
    if let [b'[', address @ .., b']'] = host {
        let colons = address.iter().filter(|&&byte| byte == b':').count();
        // The maximum that http::Uri accepts, one more than an address has.
        return (2..=8).contains(&colons)
            && address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    !host.is_empty()
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// The number that consists of `digits`, of which there must be some.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    // `u64::from_str` accepts a leading plus sign.
    let digits = str::from_utf8(digits).ok()?;
    digits.parse().ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Authority<'_>> {
        Authority::parse(text.as_bytes())
    }

    #[test]
    fn only_what_can_be_a_host_is_one() {
        for text in
            ["a", "A.example.", "10.0.0.1:8800", "a_b-c:", "a:0", "a:65535", "[::1]", "[::ffff:10.0.0.1]:80"]
        {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "", ":80", "a b", "a,b", "a/b", "a@b", "a:b", "a:-1", "a:65536", "a:80:80", "a%41", "ä", "[]",
            "[::1", "::1", "[::1]80", "[a]", "[::1]]", "[::1%25eth0]", "a?b", "a#b", "a\\b",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
