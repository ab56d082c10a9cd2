//! Which addresses count as one client.

use std::net::{IpAddr, Ipv6Addr};

/// How many bits of an IPv6 address name its network. One customer or one machine has a whole `/64`, so that it
/// could otherwise take another address for each connection and never meet a limit.
pub const IPV6_PREFIX: u32 = 64;

/// The address by which limits count `address`: an IPv4 address itself, and the network of an IPv6 address.
pub fn limited_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (u128::BITS - IPV6_PREFIX))).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_an_ipv4_address_for_itself() {
        let counted = |address: &str| limited_as(address.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("2001:db8:1:2::"), counted("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
