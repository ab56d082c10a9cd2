//! Who a client is, and what the backend is told of it.
//!
//! Backends count failed attempts for each client by `X-Forwarded-For`, so what stands there must be true:
//! only proxies that are trusted may say it (`trusted_proxies`).

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What others than trusted proxies have no business to say, and the bridge does not say itself.
const CLAIMS: [HeaderName; 6] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-real-ip"),
];

/// What is known of where a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Forwarded {
    /// The address of the client itself, as far as trusted proxies tell it.
    pub(super) client: IpAddr,
    is_trusted: bool,
    chain: Option<HeaderValue>,
    proto: HeaderValue,
    host: Option<HeaderValue>,
}

impl Forwarded {
    /// Where a request with `headers` for `host` comes from, whose connection is from `peer`.
    pub(super) fn of(
        peer: IpAddr,
        is_tls: bool,
        host: Option<&str>,
        headers: &HeaderMap,
        trusted: &[IpNet],
    ) -> Self {
        let is_trusted_address = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let is_trusted = is_trusted_address(&peer);
        let told: Vec<&str> = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).collect();
        let mut chain = if is_trusted { told.join(", ") } else { String::new() };
        let mut client = peer;
        // From the nearest to the farthest: what one that is not trusted says is not believed any more.
        for hop in chain.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
            let Some(address) = address(hop) else { break };
            client = address;
            if !is_trusted_address(&address) {
                break;
            }
        }
        if !chain.is_empty() {
            chain.push_str(", ");
        }
        chain.push_str(&peer.to_string());
        let kept = |name| headers.get(name).filter(|_| is_trusted).cloned();
        let own = HeaderValue::from_static(if is_tls { "https" } else { "http" });
        Self {
            client,
            is_trusted,
            chain: HeaderValue::from_str(&chain).ok(),
            proto: kept(PROTO).unwrap_or(own),
            host: kept(HOST).or_else(|| HeaderValue::from_str(host?).ok()),
        }
    }

    /// Tells the backend, in `headers`.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if !self.is_trusted {
            for claim in CLAIMS {
                headers.remove(claim);
            }
        }
        for (name, value) in [(FOR, &self.chain), (PROTO, &Some(self.proto.clone())), (HOST, &self.host)] {
            match value {
                Some(value) => headers.insert(name, value.clone()),
                None => headers.remove(name),
            };
        }
    }
}

/// The address in one part of `X-Forwarded-For`, which may have a port.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(hop, |(bare, _)| bare);
    let without_port = || bare.rsplit_once(':').and_then(|(bare, _)| bare.parse().ok());
    let parsed: Option<IpAddr> = bare.parse().ok().or_else(without_port);
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, claimed: &[(&'static str, &'static str)]) -> (String, HeaderMap) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in claimed {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let forwarded = Forwarded::of(peer.parse().unwrap(), false, Some("bridge:8800"), &headers, &trusted);
        forwarded.tell(&mut headers);
        (forwarded.client.to_string(), headers)
    }

    #[test]
    fn what_a_stranger_claims_is_replaced() {
        let (client, headers) = told(
            "192.0.2.1",
            &[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("forwarded", "for=10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
            ],
        );
        assert_eq!(client, "192.0.2.1");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "bridge:8800");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn the_client_is_the_nearest_that_no_trusted_proxy_is() {
        for (peer, chain, client) in [
            ("10.0.0.1", "198.51.100.7, 10.9.9.9", "198.51.100.7"),
            ("10.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
            ("10.0.0.1", "198.51.100.7:5000", "198.51.100.7"),
            ("10.0.0.1", "unknown", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.7, unknown, 10.1.1.1", "10.1.1.1"),
            ("::1", "10.2.2.2", "10.2.2.2"),
        ] {
            let (told_client, headers) = told(peer, &[("x-forwarded-for", chain)]);
            assert_eq!(told_client, client, "{chain}");
            assert_eq!(headers["x-forwarded-for"], format!("{chain}, {peer}").as_str());
        }
        let (client, headers) = told("10.0.0.1", &[("x-forwarded-proto", "https"), ("x-real-ip", "1.2.3.4")]);
        assert_eq!(
            (client.as_str(), &headers["x-forwarded-for"]),
            ("10.0.0.1", &HeaderValue::from_static("10.0.0.1"))
        );
        assert_eq!(
            (&headers["x-forwarded-proto"], &headers["x-real-ip"]),
            (&HeaderValue::from_static("https"), &HeaderValue::from_static("1.2.3.4"))
        );
    }
}
