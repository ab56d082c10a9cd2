//! Where the bridge listens, and whether clients come in there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The addresses that are listened on, with what went wrong there last, and when.
#[derive(Debug, Default)]
pub struct Doors(Mutex<Known>);

type Known = BTreeMap<(&'static str, SocketAddr), Option<(String, Instant)>>;

/// How long what went wrong counts. What is wrong still goes wrong again before that; and when it is over, nobody
/// may come whose connection would tell.
const COUNTS: Duration = Duration::from_secs(1);

impl Doors {
    /// The listener of `key` is open at `address`.
    pub fn open(&self, key: &'static str, address: SocketAddr) {
        self.doors().insert((key, address), None);
    }

    /// It is closed.
    pub fn close(&self, key: &'static str, address: SocketAddr) {
        self.doors().remove(&(key, address));
    }

    /// A connection could not be accepted there, for this reason.
    pub fn fail(&self, key: &'static str, address: SocketAddr, reason: String) {
        if let Some(known) = self.doors().get_mut(&(key, address)) {
            *known = Some((reason, Instant::now()));
        }
    }

    /// What is wrong, if something is.
    pub fn problem(&self) -> Option<String> {
        let doors = self.doors();
        let problem = doors.iter().find_map(|((key, address), problem)| {
            let (reason, _) = problem.as_ref().filter(|(_, at)| at.elapsed() < COUNTS)?;
            Some(format!("{key} ({address}) accepts no connections: {reason}"))
        });
        let none = || doors.is_empty().then(|| "nothing is listened on".to_owned());
        problem.or_else(none)
    }

    fn doors(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_door_that_nobody_could_come_in_by_is_open_again_although_nobody_comes() {
        let (doors, address) = (Doors::default(), "127.0.0.1:8800".parse().unwrap());
        assert_eq!(doors.problem().as_deref(), Some("nothing is listened on"));
        doors.open("listen", address);
        assert_eq!(doors.problem(), None);
        doors.fail("listen", address, "too many open files".to_owned());
        advance(COUNTS / 2).await;
        let problem = doors.problem().unwrap();
        assert_eq!(problem, "listen (127.0.0.1:8800) accepts no connections: too many open files");
        doors.fail("listen", address, "too many open files".to_owned());
        advance(COUNTS / 2).await;
        assert!(doors.problem().is_some(), "it goes wrong still");
        advance(COUNTS / 2).await;
        assert_eq!(doors.problem(), None);
    }
}
