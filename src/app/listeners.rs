//! The open listeners and their accept errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The listener that a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientListener {
    /// The one that backends without their own share (`listen`).
    Shared,
    /// The one of a single backend (`backend.listen`), with the configured address.
    Dedicated(SocketAddr),
}

/// The key that configures the listener for the clients of all backends without their own.
pub const LISTEN: &str = "listen";
/// The key that configures the listener for the clients of a single backend.
pub const BACKEND_LISTEN: &str = "backend.listen";
/// The key that configures the listener of a backend in front of NetBox.
pub const NETBOX_LISTEN: &str = "backend.netbox_listen";

/// The open listeners, by the key and the address in the configuration.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<BTreeMap<(&'static str, SocketAddr), OpenListener>>);

#[derive(Debug)]
struct OpenListener {
    /// Its address: in the configuration, port 0 stands for any port.
    address: SocketAddr,
    /// The last accept error, and its time.
    error: Option<(String, Instant)>,
}

/// How long an accept error is reported. A persistent failure recurs within this time. The recovery has no event of its
/// own: there may be no connection to accept.
const ERROR_TTL: Duration = Duration::from_secs(1);

impl Listeners {
    /// Adds the listener that is configured at `configured` and open at `address`.
    pub fn open(&self, key: &'static str, configured: SocketAddr, address: SocketAddr) {
        self.0.lock().insert((key, configured), OpenListener { address, error: None });
    }

    /// Removes a closed listener.
    pub fn close(&self, key: &'static str, configured: SocketAddr) {
        self.0.lock().remove(&(key, configured));
    }

    /// Records that a connection could not be accepted.
    pub fn fail(&self, key: &'static str, configured: SocketAddr, reason: String) {
        if let Some(listener) = self.0.lock().get_mut(&(key, configured)) {
            listener.error = Some((reason, Instant::now()));
        }
    }

    /// The address of the NetBox listener that is configured at `configured`.
    pub fn netbox_address(&self, configured: SocketAddr) -> SocketAddr {
        self.address(NETBOX_LISTEN, configured)
    }

    /// The address of the listener that `key` configures at `configured`.
    pub fn address(&self, key: &'static str, configured: SocketAddr) -> SocketAddr {
        self.0.lock().get(&(key, configured)).map_or(configured, |listener| listener.address)
    }

    /// The current problem, if there is one.
    pub fn problem(&self) -> Option<String> {
        let listeners = self.0.lock();
        let problem = listeners.iter().find_map(|((key, _), OpenListener { address, error })| {
            let (reason, _) = error.as_ref().filter(|(_, at)| at.elapsed() < ERROR_TTL)?;
            Some(format!("{key} ({address}) accepts no connections: {reason}"))
        });
        let none = || listeners.is_empty().then(|| "no listener is open".to_owned());
        problem.or_else(none)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_accept_error_of_a_listener_expires_without_a_new_connection() {
        let (listeners, address) = (Listeners::default(), "127.0.0.1:8800".parse().unwrap());
        assert_eq!(listeners.problem().as_deref(), Some("no listener is open"));
        listeners.open("listen", address, address);
        assert_eq!(listeners.problem(), None);
        listeners.fail("listen", address, "too many open files".to_owned());
        advance(ERROR_TTL / 2).await;
        let problem = listeners.problem().unwrap();
        assert_eq!(problem, "listen (127.0.0.1:8800) accepts no connections: too many open files");
        listeners.fail("listen", address, "too many open files".to_owned());
        advance(ERROR_TTL / 2).await;
        assert!(listeners.problem().is_some(), "it goes wrong still");
        advance(ERROR_TTL / 2).await;
        assert_eq!(listeners.problem(), None);
    }
}
