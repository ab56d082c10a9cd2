//! Groups client addresses for limits.

use core::net::{IpAddr, Ipv6Addr};

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
