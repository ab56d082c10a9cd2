//! The address of the client, and the forwarding headers for the backend.
//!
//! Backends count failed attempts per client by `X-Forwarded-For`, so its value must be reliable: only trusted
//! proxies may set it (`trusted_proxies`).
//!
//! A proxy appends to the chain that it received, so a chain is read from the right. An unreadable element comes from
//! an unknown sender, and so does everything to its left: the forwarded chain starts after it. Newer backends ignore
//! a chain with any invalid element, and count all clients as one.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use ipnet::IpNet;

use crate::core::http::headers::list;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The forwarding headers that only trusted proxies may set, and that the bridge does not set itself.
const FORWARDING_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-real-ip"),
];

/// The length of most addresses, with a separator, in bytes.
const ADDRESS_BYTES: usize = 16;

/// The origin of a request.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    /// The address of the client, according to the trusted proxies.
    pub(crate) client: IpAddr,
    is_trusted: bool,
    chain: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
    proto: HeaderValue,
    host: Option<HeaderValue>,
}

impl Forwarded {
    /// Derives the origin of a request with `headers` for `host`, on a connection from `peer`.
    pub(crate) fn from_request(
        peer: IpAddr,
        scheme: &Scheme,
        host: Option<&str>,
        headers: &HeaderMap,
        trusted: &[IpNet],
    ) -> Self {
        let is_trusted_address = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let is_trusted = is_trusted_address(&peer);
        // From the nearest hop to the farthest.
        let mut chain = vec![peer];
        if is_trusted {
            chain.extend(list(headers, &FOR).rev().map_while(address));
        }
        // Elements to the left of an untrusted address are ignored.
        let client = chain.iter().find(|address| !is_trusted_address(address)).or(chain.last());
        let client = client.copied().unwrap_or(peer);
        let trusted_header = |name| if is_trusted { closest(headers, &name) } else { None };
        let own = HeaderValue::from_static(if *scheme == Scheme::HTTPS { "https" } else { "http" });
        Self {
            client,
            is_trusted,
            chain: joined(&chain),
            forwarded: if is_trusted { forwarded(headers) } else { None },
            proto: trusted_header(PROTO).unwrap_or(own),
            host: trusted_header(HOST).or_else(|| HeaderValue::from_str(host?).ok()),
        }
    }

    /// The host that the client requested, according to the nearest proxy if that is trusted.
    pub(crate) fn host(&self) -> Option<&str> {
        self.host.as_ref()?.to_str().ok()
    }

    /// The scheme of the client's request, according to the nearest proxy if that is trusted.
    pub(crate) fn scheme(&self) -> &str {
        self.proto.to_str().unwrap_or("http")
    }

    /// Sets the forwarding headers for the backend.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        let claims = FORWARDING_HEADERS.map(|claim| {
            let value = if self.is_trusted { closest(headers, &claim) } else { None };
            (claim, value)
        });
        let own = [
            (FOR, self.chain.clone()),
            (FORWARDED, self.forwarded.clone()),
            (PROTO, Some(self.proto.clone())),
            (HOST, self.host.clone()),
        ];
        for (name, value) in claims.into_iter().chain(own) {
            match value {
                Some(value) => headers.insert(name, value),
                None => headers.remove(name),
            };
        }
    }
}

/// The last element of a header, written by the nearest proxy; `None` if it is unreadable.
fn closest(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let last = list(headers, name).next_back().filter(|element| is_text(element))?;
    HeaderValue::from_bytes(last).ok()
}

/// The readable elements of `Forwarded` (RFC 7239) from trusted proxies. Their values contain no comma, so that an
/// unterminated quote cannot hide later elements.
fn forwarded(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_whole = |element: &[u8]| element.iter().filter(|byte| **byte == b'"').count() % 2 == 0;
    let elements = list(headers, &FORWARDED).rev();
    let readable = elements.take_while(|element| is_text(element) && is_whole(element));
    joined(&readable.map(String::from_utf8_lossy).collect::<Vec<_>>())
}

/// Joins a list that was read from the right in its original order; `None` if it is empty.
fn joined(elements: &[impl Display]) -> Option<HeaderValue> {
    let mut text = String::with_capacity(ADDRESS_BYTES * elements.len());
    for element in elements.iter().rev() {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{element}");
    }
    if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
}

/// Returns whether it contains only visible ASCII characters and spaces.
fn is_text(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// The address in one element of `X-Forwarded-For`, which may have a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?;
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(hop, |(bare, _)| bare);
    let without_port = || bare.rsplit_once(':').and_then(|(bare, _)| bare.parse().ok());
    let parsed: Option<IpAddr> = bare.parse().ok().or_else(without_port);
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and values that a client sends.
    type Claimed<'a> = &'a [(&'static str, &'a [u8])];
    /// Names, and all their values.
    type Expected<'a> = &'a [(&'a str, &'a [&'a str])];

    /// The address of the client, and the headers for the backend.
    fn forwarded_headers(peer: &str, claimed: Claimed<'_>) -> (String, HeaderMap) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in claimed {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let peer = peer.parse().unwrap();
        let forwarded = Forwarded::from_request(peer, &Scheme::HTTP, Some("bridge:8800"), &headers, &trusted);
        forwarded.apply(&mut headers);
        (forwarded.client.to_string(), headers)
    }

    /// Checks that the headers of `names` are exactly these.
    fn assert_headers(headers: &HeaderMap, expected: Expected<'_>) {
        for (name, values) in expected {
            assert_eq!(headers.get_all(*name).iter().collect::<Vec<_>>(), *values, "{name}");
        }
    }

    #[test]
    fn the_headers_of_an_untrusted_client_are_replaced() {
        let claimed: [(_, &[u8]); 5] = [
            ("x-forwarded-for", b"10.0.0.1"),
            ("x-forwarded-proto", b"https"),
            ("x-forwarded-host", b"evil"),
            ("forwarded", b"for=10.0.0.1"),
            ("x-real-ip", b"10.0.0.1"),
        ];
        let (client, headers) = forwarded_headers("192.0.2.1", &claimed);
        assert_eq!((client.as_str(), headers.len()), ("192.0.2.1", 3));
        assert_headers(
            &headers,
            &[
                ("x-forwarded-for", &["192.0.2.1"]),
                ("x-forwarded-proto", &["http"]),
                ("x-forwarded-host", &["bridge:8800"]),
            ],
        );
    }

    #[test]
    fn the_client_is_the_nearest_that_no_trusted_proxy_is() {
        for (peer, lines, client, forwarded) in [
            (
                "10.0.0.1",
                &[&b"198.51.100.7, 10.9.9.9"[..]][..],
                "198.51.100.7",
                "198.51.100.7, 10.9.9.9, 10.0.0.1",
            ),
            ("10.0.0.1", &[b"1.1.1.1, 198.51.100.7"], "198.51.100.7", "1.1.1.1, 198.51.100.7, 10.0.0.1"),
            ("10.0.0.1", &[b"[2001:db8::7]:443"], "2001:db8::7", "2001:db8::7, 10.0.0.1"),
            ("10.0.0.1", &[b"198.51.100.7:5000"], "198.51.100.7", "198.51.100.7, 10.0.0.1"),
            ("10.0.0.1", &[b"unknown"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &[b"198.51.100.7, unknown, 10.1.1.1"], "10.1.1.1", "10.1.1.1, 10.0.0.1"),
            ("::1", &[b"10.2.2.2"], "10.2.2.2", "10.2.2.2, ::1"),
            ("10.0.0.1", &[], "10.0.0.1", "10.0.0.1"),
            // A proxy appended to the value of an unknown sender.
            ("10.0.0.1", &[b"caf\xe9, 198.51.100.7"], "198.51.100.7", "198.51.100.7, 10.0.0.1"),
            (
                "10.0.0.1",
                &[b"1.1.1.1, \xff, 198.51.100.7, 10.9.9.9"],
                "198.51.100.7",
                "198.51.100.7, 10.9.9.9, 10.0.0.1",
            ),
            ("10.0.0.1", &[b"\xff", b"198.51.100.7"], "198.51.100.7", "198.51.100.7, 10.0.0.1"),
            ("10.0.0.1", &[b"<script>, , 198.51.100.7,"], "198.51.100.7", "198.51.100.7, 10.0.0.1"),
            // The nearest element is unreadable: the client is unknown beyond the last trusted proxy.
            ("10.0.0.1", &[b"198.51.100.7, \xff"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &[b"198.51.100.7, \xff, 10.9.9.9"], "10.9.9.9", "10.9.9.9, 10.0.0.1"),
        ] {
            let claimed: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let (told_client, headers) = forwarded_headers(peer, &claimed);
            let shown = lines.concat().escape_ascii().to_string();
            assert_eq!(told_client, client, "{shown}");
            assert_eq!(headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), [forwarded], "{shown}");
        }
    }

    #[test]
    fn only_readable_values_of_trusted_proxies_are_forwarded() {
        let cases: [(Claimed<'_>, Expected<'_>); 5] = [
            (
                &[("x-forwarded-proto", b"https"), ("x-real-ip", b"1.2.3.4")],
                &[("x-forwarded-proto", &["https"]), ("x-real-ip", &["1.2.3.4"])],
            ),
            (
                &[
                    ("forwarded", b"for=1.1.1.1, for=\"caf\xe9\", for=198.51.100.7;proto=https"),
                    ("forwarded", b"for=\"[2001:db8::7]:443\""),
                    ("x-forwarded-proto", b"https\xff"),
                    ("x-forwarded-host", b"caf\xe9.example"),
                    ("x-real-ip", b"\xff"),
                    ("x-forwarded-port", b"443"),
                ],
                &[
                    ("forwarded", &["for=198.51.100.7;proto=https, for=\"[2001:db8::7]:443\""]),
                    ("x-forwarded-proto", &["http"]),
                    ("x-forwarded-host", &["bridge:8800"]),
                    ("x-real-ip", &[]),
                    ("x-forwarded-port", &["443"]),
                ],
            ),
            // Of several values, the nearest proxy's.
            (
                &[
                    ("x-forwarded-proto", b"ftp"),
                    ("x-forwarded-proto", b"caf\xe9, https"),
                    ("x-forwarded-host", b"evil.example, bridge.example"),
                    ("x-real-ip", b"1.1.1.1"),
                    ("x-real-ip", b"198.51.100.7"),
                    ("x-forwarded-port", b"443, \xff"),
                ],
                &[
                    ("x-forwarded-proto", &["https"]),
                    ("x-forwarded-host", &["bridge.example"]),
                    ("x-real-ip", &["198.51.100.7"]),
                    ("x-forwarded-port", &[]),
                ],
            ),
            (&[("forwarded", b"for=\"open, for=198.51.100.7")], &[("forwarded", &["for=198.51.100.7"])]),
            (&[("forwarded", b"\xff")], &[("forwarded", &[])]),
        ];
        for (claimed, expected) in cases {
            assert_headers(&forwarded_headers("10.0.0.1", claimed).1, expected);
        }
    }
}
