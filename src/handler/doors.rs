//! Where the bridge listens, and whether clients come in there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The addresses that are listened on, with what is wrong with each, if something is.
#[derive(Debug, Default)]
pub struct Doors(Mutex<BTreeMap<(&'static str, SocketAddr), Option<String>>>);

impl Doors {
    /// The listener of `key` is open at `address`.
    pub fn open(&self, key: &'static str, address: SocketAddr) {
        self.doors().insert((key, address), None);
    }

    /// It is closed.
    pub fn close(&self, key: &'static str, address: SocketAddr) {
        self.doors().remove(&(key, address));
    }

    /// Nobody comes in there for this reason; or somebody came in.
    pub fn note(&self, key: &'static str, address: SocketAddr, problem: Option<String>) {
        if let Some(known) = self.doors().get_mut(&(key, address)) {
            *known = problem;
        }
    }

    /// What is wrong, if something is.
    pub fn problem(&self) -> Option<String> {
        let doors = self.doors();
        let problem = doors.iter().find_map(|((key, address), problem)| {
            let problem = problem.as_ref()?;
            Some(format!("{key} ({address}) accepts no connections: {problem}"))
        });
        let none = || doors.is_empty().then(|| "nothing is listened on".to_owned());
        problem.or_else(none)
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<(&'static str, SocketAddr), Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
