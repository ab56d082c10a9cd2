//! What a backend reports of the syncs that run on it.

use super::{Backend, RequestIdentity};
use crate::core::domain::outcome::Cause;
use crate::telemetry;

/// Where releases since 0.0.11 report whether a full update runs.
const ACTIVE: &str = "/sync/active";

impl Backend {
    /// Whether it may report that a full update runs now: an answer that cannot be read may, and a backend that does
    /// not answer, or refuses to, reports none.
    pub async fn reports_full_update(&self, identity: &RequestIdentity) -> bool {
        match self.stored_endpoints(ACTIVE, identity).await {
            Ok(answer) => answer.is_some_and(|answer| answer["active"] == true),
            Err(refusal) if refusal.cause == Cause::BackendLost => {
                telemetry::ReportUnreadable { path: ACTIVE, refusal: &refusal }.emit();
                true
            }
            Err(_) => false,
        }
    }
}
