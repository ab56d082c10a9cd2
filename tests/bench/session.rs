//! Sessions without time limits, for measurements of what events cost.

use std::time::Duration;

use proxbox_bridge::core::run::normalizer::NormalizerOptions;
use proxbox_bridge::core::run::plan::{Leg, RunPlan};
use proxbox_bridge::core::run::session::{PendingRun, Session, SessionLimits, SessionOutput, SessionSetup};
use proxbox_bridge::core::upstream::dialect::Dialect;

/// Starts the session of a run with one leg.
pub(crate) fn start(leg: Leg, dialect: Dialect, out: &mut SessionOutput) -> Session {
    let long = Duration::from_secs(3600);
    let setup = SessionSetup {
        endpoint: leg.endpoint,
        plan: RunPlan { legs: vec![leg], skipped: Vec::new() },
        options: NormalizerOptions::default(),
        limits: SessionLimits {
            accept_wait: long,
            response_head: long,
            idle: long,
            total: long,
            settle: long,
            settle_total: long,
            retry_after: 30,
            event_bytes: 1 << 20,
        },
        release: None,
        dialect: Some(dialect),
        credential: None,
        run_id: "0123456789".to_owned(),
        notices: Vec::new(),
        guests: Vec::new(),
    };
    PendingRun::new(setup.endpoint.kind, setup.options.clone()).drive(setup, out)
}
