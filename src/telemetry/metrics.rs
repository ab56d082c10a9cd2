//! The numbers that Prometheus asks for. Their labels come from closed sets, and every series is there
//! from the start.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::core::guard::Reason;
use crate::core::kind::Kind;
use crate::core::limit::Limit;
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
    /// `proxbox_bridge_rejections_total`.
    pub(super) rejections: IntCounterVec,
    /// `proxbox_bridge_over_limit_total`.
    pub(super) over_limit: IntCounterVec,
    /// `proxbox_bridge_reloads_total`.
    pub(super) reloads: IntCounterVec,
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
    fn new() -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("proxbox_bridge");
        let registry = Registry::new();
        let metrics = Self {
            running: kept(&registry, IntGauge::with_opts(opts("jobs_running", "Jobs that run now."))),
            attaches: kept(
                &registry,
                IntCounter::with_opts(opts(
                    "attaches_total",
                    "Clients that came to a job that was there already.",
                )),
            ),
            records_overdue: kept(
                &registry,
                IntCounter::with_opts(opts(
                    "ledger_records_overdue_total",
                    "Records of jobs that were not written within limits.ledger.",
                )),
            ),
            jobs: kept(
                &registry,
                IntCounterVec::new(opts("jobs_total", "Jobs that have ended."), &["kind", "outcome"]),
            ),
            refusals: kept(
                &registry,
                IntCounterVec::new(
                    opts(
                        "refusals_total",
                        "Requests that were refused in the place of the backend, or because of it.",
                    ),
                    &["cause"],
                ),
            ),
            rejections: kept(
                &registry,
                IntCounterVec::new(
                    opts("rejections_total", "Requests that were rejected for what they were."),
                    &["reason"],
                ),
            ),
            over_limit: kept(
                &registry,
                IntCounterVec::new(
                    opts("over_limit_total", "Connections and streams that were one too many."),
                    &["limit"],
                ),
            ),
            reloads: kept(
                &registry,
                IntCounterVec::new(
                    opts("reloads_total", "Times that the configuration was to be read again."),
                    &["result"],
                ),
            ),
            dropped: kept(
                &registry,
                IntCounter::with_opts(opts(
                    "backend_events_dropped_total",
                    "Events of backends that no reader needs, second accounts of the same thing included.",
                )),
            ),
            unreadable: kept(
                &registry,
                IntCounter::with_opts(opts(
                    "backend_events_unreadable_total",
                    "Events of backends that could not be read.",
                )),
            ),
            ledger_available: kept(
                &registry,
                IntGauge::with_opts(opts(
                    "ledger_available",
                    "Whether the record of jobs can be written (1) or not (0).",
                )),
            ),
            ledger_commit_failures: kept(
                &registry,
                IntCounter::with_opts(opts(
                    "ledger_commit_failures_total",
                    "Attempts to write the record of jobs that failed. What they held is kept and tried again.",
                )),
            ),
            ledger_entries_shed: kept(
                &registry,
                IntCounter::with_opts(opts(
                    "ledger_entries_shed_total",
                    "Records, or logs of jobs, that were given up because too many waited to be written.",
                )),
            ),
            registry,
        };
        for kind in Kind::all() {
            for outcome in Outcome::ALL {
                metrics.jobs.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        for reason in Reason::ALL {
            metrics.rejections.with_label_values(&[reason.as_str()]);
        }
        for limit in Limit::ALL {
            metrics.over_limit.with_label_values(&[limit.as_str()]);
        }
        for result in ["success", "failure"] {
            metrics.reloads.with_label_values(&[result]);
        }
        for cause in Cause::ALL {
            metrics.refusals.with_label_values(&[cause.as_str()]);
        }
        metrics
    }
}

/// What was `made`, also in the hands of `registry`.
// The names and labels are constants, valid and different: `every_metric_can_be_made` holds it.
#[allow(clippy::expect_used, reason = "constants, held by a test")]
fn kept<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("valid");
    registry.register(Box::new(metric.clone())).expect("different");
    metric
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
            "proxbox_bridge_rejections_total{reason=\"two_lengths\"} ",
            "proxbox_bridge_over_limit_total{limit=\"streams\"} ",
            "proxbox_bridge_reloads_total{result=\"failure\"} ",
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
