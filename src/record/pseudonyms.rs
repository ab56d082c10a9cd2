//! Pseudonyms: the same one for the same original in a run, and unrelated ones in another run.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The sort of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    VirtualMachine,
    Node,
    Cluster,
    Storage,
    Host,
    User,
    Tag,
    /// A description or a comment.
    Text,
    Other,
    /// Made of the name of another object: `web01-disks`.
    Derived,
}

impl NameKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::VirtualMachine => "vm",
            Self::Node => "node",
            Self::Cluster => "cluster",
            Self::Storage => "storage",
            Self::Host => "host",
            Self::User => "user",
            Self::Tag => "tag",
            Self::Text => "text",
            Self::Other | Self::Derived => "name",
        }
    }
}

/// The pseudonyms of a run. They are keyed hashes: the key is random, and lost when the run ends.
#[derive(Debug, Default)]
pub(super) struct Pseudonyms {
    key: RandomState,
    known: HashMap<String, String>,
    used: HashSet<String>,
}

impl Pseudonyms {
    /// The pseudonym of a name.
    pub(super) fn name(&mut self, name: &str, kind: NameKind) -> String {
        self.unique(name, |hash| format!("{}-{:08x}", kind.prefix(), hash >> 32))
    }

    /// The pseudonym of an address, from the ranges for benchmarks and documentation. Addresses that identify no host stay.
    pub(super) fn address(&mut self, address: IpAddr) -> String {
        let original = address.to_string();
        match address {
            _ if address.is_loopback() || address.is_unspecified() => original,
            // A netmask, or the broadcast address.
            IpAddr::V4(address) if address.octets()[0] == 255 => original,
            IpAddr::V4(_) => self.unique(&original, |hash| {
                let [.., b, c, d] = hash.to_be_bytes();
                Ipv4Addr::new(198, 18 + (b & 1), c, d).to_string()
            }),
            IpAddr::V6(_) => self.unique(&original, |hash| {
                let [a, b, c, d] = [48, 32, 16, 0].map(|shift| (hash >> shift) as u16);
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, a, b, c, d).to_string()
            }),
        }
    }

    /// The pseudonym of a MAC address or a fingerprint with this separator. That of an address is a locally administered
    /// one.
    pub(super) fn octets(&mut self, octets: &str, separator: char) -> String {
        let is_upper = octets.bytes().any(|byte| byte.is_ascii_uppercase());
        let original: String = octets.to_ascii_lowercase().replace(separator, ":");
        let count = original.split(':').count();
        let known = self.unique(&original, |hash| {
            let octets = hash.to_be_bytes();
            let octets = octets.iter().cycle().take(count - 1).map(|octet| format!(":{octet:02x}"));
            format!("02{}", octets.collect::<String>())
        });
        let known = known.replace(':', separator.encode_utf8(&mut [0; 4]));
        if is_upper { known.to_ascii_uppercase() } else { known }
    }

    /// The pseudonym of a hexadecimal number in the id of a task, with as many digits.
    pub(super) fn number(&mut self, number: &str) -> String {
        let (digits, is_upper) = (number.len(), number.bytes().any(|byte| byte.is_ascii_uppercase()));
        // A name may have the same digits.
        let known = self.unique(&format!("#{}", number.to_ascii_lowercase()), |hash| {
            format!("{hash:016x}").chars().cycle().take(digits).collect()
        });
        if is_upper { known.to_ascii_uppercase() } else { known }
    }

    /// The pseudonym that `make` derives from a hash, which no other original has.
    fn unique(&mut self, original: &str, make: impl Fn(u64) -> String) -> String {
        if let Some(known) = self.known.get(original) {
            return known.clone();
        }
        let mut attempt = 0_u32;
        let pseudonym = loop {
            let pseudonym = make(self.key.hash_one((original, attempt)));
            if self.used.insert(pseudonym.clone()) {
                break pseudonym;
            }
            attempt += 1;
        };
        self.known.insert(original.to_owned(), pseudonym.clone());
        pseudonym
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_original_has_the_same_pseudonym_and_another_one_in_another_run() {
        let (mut one, mut other) = (Pseudonyms::default(), Pseudonyms::default());
        let name = one.name("web01", NameKind::VirtualMachine);
        assert!(name.starts_with("vm-") && one.name("web01", NameKind::VirtualMachine) == name);
        assert_ne!(one.name("web02", NameKind::VirtualMachine), name);
        assert_ne!(other.name("web01", NameKind::VirtualMachine), name);
        let address = one.address([10, 0, 0, 1].into());
        assert!(address.starts_with("198.1") && one.address([10, 0, 0, 1].into()) == address);
        assert_eq!(one.address([127, 0, 0, 1].into()), "127.0.0.1");
        assert!(one.address("fe80::1".parse().unwrap()).starts_with("2001:db8::"));
        let mac = one.octets("BC:24:11:00:68:00", ':');
        assert!(mac.starts_with("02:") && mac.len() == 17 && mac == mac.to_ascii_uppercase());
        assert_eq!(one.octets("bc-24-11-00-68-00", '-'), mac.to_ascii_lowercase().replace(':', "-"));
    }

    #[test]
    fn no_two_originals_share_a_pseudonym() {
        let mut pseudonyms = Pseudonyms::default();
        let addresses =
            (0..3000_u32).map(|number| pseudonyms.address(Ipv4Addr::from(0x0A00_0001 + number).into()));
        assert_eq!(addresses.collect::<HashSet<_>>().len(), 3000);
    }
}
