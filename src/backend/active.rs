//! The activity that a backend reports.

use super::{Backend, RequestIdentity};
use crate::core::domain::outcome::Cause;
use crate::telemetry;

/// The path at which releases since 0.0.11 report whether a full update runs.
const ACTIVE: &str = "/sync/active";

impl Backend {
    /// Returns whether the backend may be running a full update. An unreadable response counts as yes; a refusal, or
    /// no response, counts as no.
    pub async fn reports_full_update(&self, identity: &RequestIdentity) -> bool {
        match self.get_json(ACTIVE, identity).await {
            Ok(answer) => answer.is_some_and(|answer| answer["active"] == true),
            Err(refusal) if refusal.cause == Cause::BackendLost => {
                telemetry::ReportUnreadable { path: ACTIVE, refusal: &refusal }.emit();
                true
            }
            Err(_) => false,
        }
    }
}
