//! The identity of a backend.
//!
//! Two concurrent syncs on one backend can make most objects of both fail. So the identity is that of the backend,
//! and not the text of a URL: `localhost` and `127.0.0.1` are the same backend, and so may be the URLs before and
//! after a reload.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::lookup_host;

use crate::config::BackendConfig;
use crate::core::http::url::BackendUrl;

/// The identity of a backend, by its name and its location. Clones share updates of the addresses.
#[derive(Clone, Debug)]
pub struct BackendId(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: BackendUrl,
    /// `None` for a backend of which only the URL is known.
    configured: Option<Configured>,
    /// The addresses of the host at the last lookup.
    addresses: ArcSwap<Vec<SocketAddr>>,
}

/// The configured identity. A backend without `backend.name` is named after its URL; after a change of the URL, only
/// its listener and its host names identify it.
#[derive(Debug)]
struct Configured {
    name: String,
    listen: Option<SocketAddr>,
    hosts: Vec<String>,
}

impl Configured {
    fn is(&self, name: &str, listen: Option<SocketAddr>, hosts: &[String]) -> bool {
        self.name == name || (self.listen == listen && self.hosts == hosts)
    }
}

impl BackendId {
    /// The identity of the backend in `config`.
    pub fn new(config: &BackendConfig) -> Self {
        let (name, hosts) = (config.name.clone(), config.hosts.clone());
        Self::with_config(config.url.clone(), Some(Configured { name, listen: config.listen, hosts }))
    }

    /// The identity of the backend at `url`, whatever its name.
    pub fn from_url(url: BackendUrl) -> Self {
        Self::with_config(url, None)
    }

    fn with_config(url: BackendUrl, configured: Option<Configured>) -> Self {
        let literal: Option<IpAddr> = url.host().parse().ok();
        let addresses = literal.map(|address| comparable(SocketAddr::new(address, url.port())));
        let addresses = ArcSwap::from_pointee(addresses.into_iter().collect());
        Self(Arc::new(Inner { url, configured, addresses }))
    }

    /// Resolves the addresses of its host, without duplicates. They are kept until the next successful lookup.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let url = &self.0.url;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in lookup_host((url.host(), url.port())).await? {
            // A hosts file may contain duplicates.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            self.0.addresses.store(Arc::new(addresses.iter().copied().map(comparable).collect()));
        }
        Ok(addresses)
    }

    /// Returns whether an address of its host is known.
    pub fn has_address(&self) -> bool {
        !self.0.addresses.load().is_empty()
    }

    /// Returns whether both identify one backend: they share the name, the listener and host names, the URL, or an
    /// address.
    pub fn is_same(&self, other: &Self) -> bool {
        self.has_name_of(other) || self.is_at(other)
    }

    /// Returns whether both are one configured backend at one location, so that a job on the one is a job on the
    /// other. A backend that has moved to another address is not identical.
    pub fn is_identical(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.has_name_of(other) && self.is_at(other))
    }

    fn has_name_of(&self, other: &Self) -> bool {
        match (&self.0.configured, &other.0.configured) {
            (Some(one), Some(two)) => one.is(&two.name, two.listen, &two.hosts),
            _ => false,
        }
    }

    /// Returns whether both have the same URL or an address in common, whatever their names.
    pub fn is_at(&self, other: &Self) -> bool {
        self.0.url == other.0.url || self.0.shares_address(&other.0)
    }

    /// Finds its configuration in `backends`: by its name, or else by its listener and host names.
    pub fn configured_in<'a>(&self, backends: &'a [BackendConfig]) -> Option<&'a BackendConfig> {
        let own = self.0.configured.as_ref()?;
        let named = backends.iter().find(|backend| backend.name == own.name);
        let same = |backend: &&BackendConfig| own.is(&backend.name, backend.listen, &backend.hosts);
        named.or_else(|| backends.iter().find(same))
    }
}

impl Inner {
    fn shares_address(&self, other: &Self) -> bool {
        let (own, others) = (self.addresses.load(), other.addresses.load());
        own.iter().any(|address| others.contains(address)) && !self.may_be_virtual_host_beside(other)
    }

    /// Returns whether both may be virtual hosts of one reverse proxy. Backends themselves do not listen on ports 80
    /// and 443.
    fn may_be_virtual_host_beside(&self, other: &Self) -> bool {
        let host = |url: &BackendUrl| url.host().trim_end_matches('.').to_owned();
        let is_name = |url: &BackendUrl| url.has_default_port() && url.host().parse::<IpAddr>().is_err();
        is_name(&self.url) && is_name(&other.url) && host(&self.url) != host(&other.url)
    }
}

/// Normalises `address` for comparison: a listener on all addresses also accepts connections to both loopback
/// addresses.
fn comparable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flags};

    /// The identities of a configuration with two backends, whose tables begin with `one` and `other`.
    fn pair(one: &str, other: &str) -> [BackendId; 2] {
        let file =
            format!("[[backend]]\n{one}\nhosts = [\"one\"]\n[[backend]]\n{other}\nhosts = [\"other\"]\n");
        let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
        let config = Config::parse(&flags, [], |_| Ok(file.as_bytes().to_vec())).unwrap();
        [BackendId::new(&config.backends[0]), BackendId::new(&config.backends[1])]
    }

    fn urls(one: &str, other: &str) -> [BackendId; 2] {
        pair(&format!("url = \"{one}\""), &format!("url = \"{other}\""))
    }

    #[tokio::test]
    async fn two_urls_that_lead_to_one_address_are_one_backend() {
        for (one, other, is_same) in [
            ("http://127.0.0.1:8800", "http://localhost:8800", true),
            ("http://127.0.0.1:8800", "http://[::1]:8800", true),
            ("http://127.0.0.1:8800", "http://[::ffff:127.0.0.1]:8800", true),
            ("http://127.0.0.1:8800", "http://localhost:8801", false),
            ("http://127.0.0.1:8800", "http://127.0.0.2:8800", false),
            ("http://127.0.0.1", "http://localhost", true),
        ] {
            let [one_id, other_id] = urls(one, other);
            one_id.resolve().await.unwrap();
            other_id.resolve().await.unwrap();
            assert_eq!(one_id.is_same(&other_id), is_same, "{one} {other}");
            assert_eq!(other_id.is_same(&one_id), is_same, "{other} {one}");
        }
    }

    #[test]
    fn virtual_hosts_of_one_reverse_proxy_are_backends_of_their_own() {
        for (one, other, is_same) in [
            ("https://one.example", "https://other.example", false),
            ("https://one.example:8443", "https://other.example:8443", true),
            ("https://one.example", "https://ONE.example.", true),
        ] {
            let [one_id, other_id] = urls(one, other);
            for id in [&one_id, &other_id] {
                let address = SocketAddr::new([192, 0, 2, 1].into(), id.0.url.port());
                id.0.addresses.store(Arc::new(vec![address]));
            }
            assert_eq!(one_id.is_same(&other_id), is_same, "{one} {other}");
        }
    }

    #[test]
    fn a_backend_with_another_url_is_the_same_by_its_name_or_by_what_it_serves() {
        let [before, other] =
            pair("name = \"a\"\nurl = \"http://10.0.0.1:1\"", "url = \"http://10.0.0.2:1\"");
        let [after, other_after] =
            pair("name = \"a\"\nurl = \"http://10.0.0.9:1\"", "url = \"http://10.0.0.8:1\"");
        assert!(before.is_same(&after), "the name");
        assert!(other.is_same(&other_after), "the host names");
        assert!(!before.is_same(&other) && !before.is_same(&other_after));
        let [_, local] =
            pair("name = \"a\"\nurl = \"http://10.0.0.1:1\"", "url = \"http://[::ffff:10.0.0.2]:1\"");
        assert!(
            local.is_identical(&other) && !local.is_identical(&other_after),
            "the host names and the address"
        );
        assert!(!before.is_identical(&after), "it has moved");
        let alone = BackendId::from_url("http://10.0.0.1:1".parse().unwrap());
        assert!(alone.is_same(&before) && !alone.is_same(&after));
    }
}
