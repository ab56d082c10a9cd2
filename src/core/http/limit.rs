//! The limits on concurrent use by clients.

use core::net::{IpAddr, Ipv6Addr};

use crate::core::text::string_enum::string_enum;

string_enum! {
    /// A limit that a client can exceed.
    pub enum Limit {
        /// All connections.
        Connections = "connections",
        /// The connections of one address.
        ConnectionsPerAddress = "connections_per_address",
        /// All proxied requests.
        Requests = "requests",
        /// The proxied requests of one address.
        RequestsPerAddress = "requests_per_address",
        /// All streams and tunnels.
        Streams = "streams",
        /// The streams and tunnels of one address.
        StreamsPerAddress = "streams_per_address",
        /// The streams and tunnels with one API key.
        StreamsPerKey = "streams_per_key",
    }
}

impl Limit {
    /// The status of the answer when the limit is exceeded: 503 if the bridge is full, 429 if one client uses too much.
    pub const fn status(self) -> u16 {
        match self {
            Self::Connections | Self::Requests | Self::Streams => 503,
            Self::ConnectionsPerAddress
            | Self::RequestsPerAddress
            | Self::StreamsPerAddress
            | Self::StreamsPerKey => 429,
        }
    }

    /// What exceeds the limit, and where to change it.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Connections => "Too many connections (limits.connections).",
            Self::ConnectionsPerAddress => {
                "Too many connections from your address (limits.connections_per_address)."
            }
            Self::Requests => "Too many concurrent requests (limits.requests).",
            Self::RequestsPerAddress => {
                "Too many concurrent requests from your address (limits.requests_per_address)."
            }
            Self::Streams => "Too many streams and tunnels (limits.streams).",
            Self::StreamsPerAddress => {
                "Too many streams and tunnels from your address (limits.streams_per_address)."
            }
            Self::StreamsPerKey => "Too many streams and tunnels with your API key (limits.streams_per_key).",
        }
    }
}

/// The address that limits count for `address`: an IPv4 address itself, an IPv6 address cut to its first `ipv6_prefix`
/// bits. A customer or machine usually has a whole IPv6 network. It could otherwise use a new address for each
/// connection and evade every limit.
pub fn limited_as(address: IpAddr, ipv6_prefix: usize) -> IpAddr {
    let prefix = u32::try_from(ipv6_prefix).unwrap_or(u32::MAX);
    let host_bits = u128::BITS.saturating_sub(prefix);
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_an_ipv4_address_for_itself() {
        let counted_by = |prefix, address: &str| limited_as(address.parse().unwrap(), prefix).to_string();
        let counted = |address| counted_by(64, address);
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:2::"), counted("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted_by(48, "2001:db8:1:2::1"), "2001:db8:1::");
        assert_eq!(counted_by(128, "2001:db8:1:2::1"), "2001:db8:1:2::1");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
