//! Where the bridge listens, and whether clients come in there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The address that a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientListener {
    /// The one of all backends that have none of their own (`listen`).
    Shared,
    /// The one of a single backend (`backend.listen`), as it is configured.
    Dedicated(SocketAddr),
}

/// The addresses that are listened on, with what went wrong there last, and when.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<ListenerErrors>);

type ListenerErrors = BTreeMap<(&'static str, SocketAddr), Option<(String, Instant)>>;

/// How long what went wrong counts. What is wrong still goes wrong again before that; and when it is over, nobody
/// may come whose connection would tell.
const ERROR_TTL: Duration = Duration::from_secs(1);

impl Listeners {
    /// The listener of `key` is open at `address`.
    pub fn open(&self, key: &'static str, address: SocketAddr) {
        self.locked().insert((key, address), None);
    }

    /// It is closed.
    pub fn close(&self, key: &'static str, address: SocketAddr) {
        self.locked().remove(&(key, address));
    }

    /// A connection could not be accepted there, for this reason.
    pub fn fail(&self, key: &'static str, address: SocketAddr, reason: String) {
        if let Some(known) = self.locked().get_mut(&(key, address)) {
            *known = Some((reason, Instant::now()));
        }
    }

    /// What is wrong, if something is.
    pub fn problem(&self) -> Option<String> {
        let listeners = self.locked();
        let problem = listeners.iter().find_map(|((key, address), problem)| {
            let (reason, _) = problem.as_ref().filter(|(_, at)| at.elapsed() < ERROR_TTL)?;
            Some(format!("{key} ({address}) accepts no connections: {reason}"))
        });
        let none = || listeners.is_empty().then(|| "nothing is listened on".to_owned());
        problem.or_else(none)
    }

    fn locked(&self) -> MutexGuard<'_, ListenerErrors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_door_that_nobody_could_come_in_by_is_open_again_although_nobody_comes() {
        let (listeners, address) = (Listeners::default(), "127.0.0.1:8800".parse().unwrap());
        assert_eq!(listeners.problem().as_deref(), Some("nothing is listened on"));
        listeners.open("listen", address);
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
