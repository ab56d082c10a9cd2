//! What tells one backend from another.
//!
//! Two syncs at once can make most objects of both fail, so what counts is the backend that they run on, and not
//! the text of a URL: `localhost` and `127.0.0.1` lead to the same one, and so may the URL before a reload and the
//! one after it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::lookup_host;

use crate::config::{self, BackendUrl};

/// Which backend a sync runs on, by its name and by where it is. Clones learn of new addresses together.
#[derive(Clone, Debug)]
pub struct BackendId(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: BackendUrl,
    /// None of a backend that only its URL is known of.
    configured: Option<Configured>,
    /// Those that the host of the URL had at the last lookup.
    addresses: ArcSwap<Vec<SocketAddr>>,
}

/// What the configuration calls a backend. A backend without `backend.name` is named after its URL, so that after
/// a change of the URL only its listener and its host names tell that it is the same.
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
    /// The backend that `config` configures.
    pub fn new(config: &config::Backend) -> Self {
        let config::Backend { name, listen, hosts, .. } = config;
        let configured = Configured { name: name.clone(), listen: *listen, hosts: hosts.clone() };
        Self::with_config(config.url.clone(), Some(configured))
    }

    /// The backend at `url`, whatever it is called.
    pub fn from_url(url: BackendUrl) -> Self {
        Self::with_config(url, None)
    }

    fn with_config(url: BackendUrl, configured: Option<Configured>) -> Self {
        let literal: Option<IpAddr> = url.host().parse().ok();
        let addresses = literal.map(|address| comparable(SocketAddr::new(address, url.port())));
        let addresses = ArcSwap::from_pointee(addresses.into_iter().collect());
        Self(Arc::new(Inner { url, configured, addresses }))
    }

    /// Looks up the addresses of its host, each once. They are remembered until the next lookup that succeeds.
    ///
    /// # Errors
    ///
    /// What the system says of a name that it does not know.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let url = &self.0.url;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in lookup_host((url.host(), url.port())).await? {
            // A hosts file may say so twice.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            self.0.addresses.store(Arc::new(addresses.iter().copied().map(comparable).collect()));
        }
        Ok(addresses)
    }

    /// Whether any address of its host is known.
    pub fn has_address(&self) -> bool {
        !self.0.addresses.load().is_empty()
    }

    /// Whether both stand for one backend: they have the same name, listener and host names, URL, or address.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.has_name_of(other) || self.is_at(other)
    }

    /// Whether both are one backend of the configuration at one place, so that a job on the one is a job on the other.
    /// A backend that has moved to another address is not.
    pub fn is_identical(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.has_name_of(other) && self.is_at(other))
    }

    fn has_name_of(&self, other: &Self) -> bool {
        match (&self.0.configured, &other.0.configured) {
            (Some(one), Some(two)) => one.is(&two.name, two.listen, &two.hosts),
            _ => false,
        }
    }

    /// Whether both have the same URL or address, whatever they are called.
    pub fn is_at(&self, other: &Self) -> bool {
        self.0.url == other.0.url || self.0.shares_address(&other.0)
    }

    /// The one of `backends` that configures it: the one with its name, or else with its listener and host names.
    pub fn configured_in<'a>(&self, backends: &'a [config::Backend]) -> Option<&'a config::Backend> {
        let own = self.0.configured.as_ref()?;
        let named = backends.iter().find(|backend| backend.name == own.name);
        let same = |backend: &&config::Backend| own.is(&backend.name, backend.listen, &backend.hosts);
        named.or_else(|| backends.iter().find(same))
    }
}

impl Inner {
    fn shares_address(&self, other: &Self) -> bool {
        let (own, others) = (self.addresses.load(), other.addresses.load());
        own.iter().any(|address| others.contains(address)) && !self.may_be_virtual_host_beside(other)
    }

    /// Whether both may be virtual hosts of one reverse proxy. Backends do not listen on ports 80 and 443
    /// themselves.
    fn may_be_virtual_host_beside(&self, other: &Self) -> bool {
        let host = |url: &BackendUrl| url.host().trim_end_matches('.').to_owned();
        let is_name = |url: &BackendUrl| url.has_default_port() && url.host().parse::<IpAddr>().is_err();
        is_name(&self.url) && is_name(&other.url) && host(&self.url) != host(&other.url)
    }
}

/// `address`, in the one form that it is compared in: a listener on all addresses takes connections to both loopback
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

    /// The backends of a configuration with two blocks, which begin with `one` and `other`.
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
