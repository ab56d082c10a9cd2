//! What a backend reports of the syncs that run on it.

use super::{Backend, Identity};

/// Where releases since 0.0.11 report whether a full update runs.
const ACTIVE: &str = "/sync/active";

impl Backend {
    /// Whether it reports that a full update runs now. A backend that does not answer reports none.
    pub async fn reports_full_update(&self, identity: &Identity) -> bool {
        let answer = self.stored(ACTIVE, identity).await;
        answer.is_ok_and(|answer| answer.is_some_and(|answer| answer["active"] == true))
    }
}
