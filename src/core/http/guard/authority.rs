//! Hosts and ports (RFC 3986, section 3.2).

use std::borrow::Cow;

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            name if name.eq_ignore_ascii_case(b"http") => Some(Self::Http),
            name if name.eq_ignore_ascii_case(b"https") => Some(Self::Https),
            _ => None,
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A host with an optional port.
#[derive(Clone, Debug)]
pub(super) struct Authority<'a> {
    host: Cow<'a, [u8]>,
    port: Option<u16>,
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
            [b':', digits @ ..] => Some(number(digits)?),
            _ => return None,
        };
        is_host(host).then_some(Self { host: Cow::Borrowed(host), port })
    }

    /// Whether both are the same host and port for the scheme `scheme`.
    pub(super) fn is_same(&self, other: &Authority<'_>, scheme: Scheme) -> bool {
        let port = |authority: &Authority<'_>| authority.port.unwrap_or(scheme.port());
        self.host.eq_ignore_ascii_case(&other.host) && port(self) == port(other)
    }

    pub(super) fn into_owned(self) -> Authority<'static> {
        Authority { host: Cow::Owned(self.host.into_owned()), port: self.port }
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

fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
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
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "a:b",
            "a:-1",
            "a:65536",
            "a:80:80",
            "a%41",
            "ä",
            "[]",
            "[::1",
            "::1",
            "[::1]80",
            "[a]",
            "[::1]]",
            "[::1%25eth0]",
            "a?b",
            "a#b",
            "a\\b",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_default_port_is_as_good_as_none() {
        let same = |a: &str, b: &str, scheme| parse(a).unwrap().is_same(&parse(b).unwrap(), scheme);
        assert!(same("A.example:80", "a.Example", Scheme::Http));
        assert!(same("a:443", "a:", Scheme::Https));
        assert!(same("a:0443", "a", Scheme::Https));
        assert!(!same("a:443", "a", Scheme::Http));
        assert!(!same("a", "a.", Scheme::Http));
        assert!(!same("a:8800", "a", Scheme::Http));
    }
}
