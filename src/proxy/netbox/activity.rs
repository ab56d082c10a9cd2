//! What backends have sent to NetBox through their listeners since the bridge started.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::locked;
use crate::core::compat::{Shim, ShimAction};
use crate::ledger::Timestamp;
use crate::telemetry::RuleApplied;

/// The requests of each backend, by its URL.
#[derive(Debug, Default)]
pub(super) struct Activities(Mutex<HashMap<String, Activity>>);

/// The requests at the listener of one backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    /// When the last one was answered that had the backend's own token.
    pub(crate) last: Option<Timestamp>,
    /// How many no rule has changed.
    pub(crate) unchanged: u64,
    /// How many each rule has changed.
    pub(crate) changed: HashMap<Shim, u64>,
}

impl Activities {
    /// A request at the listener of the backend at `url` was answered, and changed by `rules`. Returns which of them have
    /// changed none before.
    pub(super) fn count(
        &self,
        url: &str,
        is_of_backend: bool,
        rules: &[(Shim, ShimAction)],
    ) -> Vec<RuleApplied> {
        let mut all = locked(&self.0);
        let activity = all.entry(url.to_owned()).or_default();
        if is_of_backend {
            activity.last = Some(Timestamp::now());
        }
        if rules.is_empty() {
            activity.unchanged += 1;
        }
        let apply = |(shim, action): &(Shim, ShimAction)| {
            let count = activity.changed.entry(*shim).or_default();
            *count += 1;
            RuleApplied { shim: *shim, action: *action, is_first: *count == 1 }
        };
        rules.iter().map(apply).collect()
    }

    /// Forgets the requests of other backends than those at `urls`.
    pub(super) fn retain(&self, urls: &HashSet<String>) {
        locked(&self.0).retain(|url, _| urls.contains(url));
    }

    /// The requests of the backend at `url`.
    pub(super) fn of(&self, url: &str) -> Activity {
        locked(&self.0).get(url).cloned().unwrap_or_default()
    }
}
