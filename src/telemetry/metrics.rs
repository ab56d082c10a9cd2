//! The numbers that Prometheus asks for. Their labels come from closed sets, and every series is there
//! from the start.

use std::sync::LazyLock;

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::core::kind::Kind;
use crate::core::outcome::{Cause, Outcome};

/// The metrics of this process.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub(super) struct Metrics {
    registry: Registry,
    /// `proxbox_bridge_jobs_running`.
    pub(super) running: IntGauge,
    /// `proxbox_bridge_attaches_total`.
    pub(super) attaches: IntCounter,
    /// `proxbox_bridge_ledger_records_overdue_total`.
    pub(super) records_overdue: IntCounter,
    /// `proxbox_bridge_jobs_total`.
    pub(super) jobs: IntCounterVec,
    /// `proxbox_bridge_refusals_total`.
    pub(super) refusals: IntCounterVec,
    /// `proxbox_bridge_backend_events_dropped_total`.
    pub(super) dropped: IntCounter,
    /// `proxbox_bridge_backend_events_unreadable_total`.
    pub(super) unreadable: IntCounter,
    /// `proxbox_bridge_ledger_available`.
    pub(super) ledger_available: IntGauge,
    /// `proxbox_bridge_ledger_commit_failures_total`.
    pub(super) ledger_commit_failures: IntCounter,
    /// `proxbox_bridge_ledger_entries_shed_total`.
    pub(super) ledger_entries_shed: IntCounter,
}

impl Metrics {
    // The names and labels below are constants, valid and different: `every_metric_can_be_made` holds it.
    #[allow(clippy::expect_used, reason = "constants, held by a test")]
    fn new() -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("proxbox_bridge");
        let metrics = Self {
            registry: Registry::new(),
            running: IntGauge::with_opts(opts("jobs_running", "Jobs that run now.")).expect("valid"),
            attaches: IntCounter::with_opts(opts(
                "attaches_total",
                "Clients that came to a job that was there already.",
            ))
            .expect("valid"),
            records_overdue: IntCounter::with_opts(opts(
                "ledger_records_overdue_total",
                "Records of jobs that were not written within limits.ledger.",
            ))
            .expect("valid"),
            jobs: IntCounterVec::new(opts("jobs_total", "Jobs that have ended."), &["kind", "outcome"])
                .expect("valid"),
            refusals: IntCounterVec::new(
                opts("refusals_total", "Requests for a stream that were refused before it began."),
                &["cause"],
            )
            .expect("valid"),
            dropped: IntCounter::with_opts(opts(
                "backend_events_dropped_total",
                "Events of backends that no reader needs, second accounts of the same thing included.",
            ))
            .expect("valid"),
            unreadable: IntCounter::with_opts(opts(
                "backend_events_unreadable_total",
                "Events of backends that could not be read.",
            ))
            .expect("valid"),
            ledger_available: IntGauge::with_opts(opts(
                "ledger_available",
                "Whether the record of jobs can be written (1) or not (0).",
            ))
            .expect("valid"),
            ledger_commit_failures: IntCounter::with_opts(opts(
                "ledger_commit_failures_total",
                "Attempts to write the record of jobs that failed. What they held is kept and tried again.",
            ))
            .expect("valid"),
            ledger_entries_shed: IntCounter::with_opts(opts(
                "ledger_entries_shed_total",
                "Records, or logs of jobs, that were given up because too many waited to be written.",
            ))
            .expect("valid"),
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.running.clone())).expect("valid");
        registry.register(Box::new(metrics.attaches.clone())).expect("valid");
        registry.register(Box::new(metrics.records_overdue.clone())).expect("valid");
        registry.register(Box::new(metrics.jobs.clone())).expect("valid");
        registry.register(Box::new(metrics.refusals.clone())).expect("valid");
        registry.register(Box::new(metrics.dropped.clone())).expect("valid");
        registry.register(Box::new(metrics.unreadable.clone())).expect("valid");
        registry.register(Box::new(metrics.ledger_available.clone())).expect("valid");
        registry.register(Box::new(metrics.ledger_commit_failures.clone())).expect("valid");
        registry.register(Box::new(metrics.ledger_entries_shed.clone())).expect("valid");
        for kind in Kind::all() {
            for outcome in Outcome::ALL {
                metrics.jobs.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        for cause in Cause::ALL {
            metrics.refusals.with_label_values(&[cause.as_str()]);
        }
        metrics
    }
}

/// Everything, in the text format of Prometheus (version 0.0.4).
pub fn text() -> Vec<u8> {
    let mut text = Vec::new();
    // Writing to memory does not fail, and these families are well-formed.
    let _ = TextEncoder::new().encode(&METRICS.registry.gather(), &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_can_be_made_and_every_series_is_there_from_the_start() {
        let text = String::from_utf8(text()).unwrap();
        for line in [
            "proxbox_bridge_jobs_running ",
            "proxbox_bridge_attaches_total ",
            "proxbox_bridge_ledger_records_overdue_total ",
            "proxbox_bridge_jobs_total{kind=\"devices\",outcome=\"timed_out\"} ",
            "proxbox_bridge_jobs_total{kind=\"sdn\",outcome=\"completed\"} ",
            "proxbox_bridge_refusals_total{cause=\"key_refused\"} ",
            "proxbox_bridge_backend_events_dropped_total ",
            "proxbox_bridge_backend_events_unreadable_total ",
            "proxbox_bridge_ledger_available ",
            "proxbox_bridge_ledger_commit_failures_total ",
            "proxbox_bridge_ledger_entries_shed_total ",
        ] {
            assert!(text.lines().any(|known| known.starts_with(line)), "{line} in {text}");
        }
    }
}
