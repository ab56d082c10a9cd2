//! The Prometheus metrics. Their labels come from closed sets, and every series is exposed from the start.

pub(super) mod family;
pub(super) mod jobs;
mod labels;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};

use crate::core::domain::channel::Channel;
use crate::core::domain::outcome::Cause;
use crate::core::http::guard::RejectReason;
use crate::core::http::limit::Limit;
use crate::core::wire::traffic::FrameType;
use family::{MetricFactory, PerLabel};
pub use jobs::GaugeGuard;
pub use labels::{Circuit, ConnectResult, Listener, ResumeSource, Route, Surface, WatcherDeparture};
pub(super) use labels::{NetboxRule, NotificationResult, ObjectResult, ReloadResult, ShimLabel, Status};

/// The buckets for durations of jobs and their time in the queue, up to the default of `limits.total`.
const JOB_DURATIONS: &[f64] =
    &[10.0, 60.0, 300.0, 600.0, 1200.0, 1800.0, 2700.0, 3600.0, 7200.0, 14_400.0, 21_600.0];
/// The buckets for times to the head of a response.
const HEAD_DURATIONS: &[f64] = &[0.01, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Defines the metrics in groups. An entry is the HELP text as a doc comment, the field with its type, and the method of
/// [`MetricFactory`] with the name of the metric.
macro_rules! metrics {
    ($(
        $(#[doc = $group_doc:literal])+
        $group:ident: $Group:ident {
            $( $(#[doc = $help:literal])+ $field:ident: $type:ty = $make:ident($name:literal $(, $more:expr)?); )+
        }
    )+) => {
        pub(super) struct Metrics {
            registry: Registry,
            $( pub(super) $group: $Group, )+
        }

        $(
            $(#[doc = $group_doc])+
            pub(super) struct $Group { $( $(#[doc = $help])+ pub(super) $field: $type, )+ }
        )+

        impl Metrics {
            fn new() -> Self {
                let registry = Registry::new();
                let make = MetricFactory(&registry);
                Self {
                    $( $group: $Group {
                        $( $field: make.$make($name, concat!($($help),+).trim_ascii() $(, $more)?), )+
                    }, )+
                    registry,
                }
            }
        }
    };
}

metrics! {
    /// Metrics of jobs, most of them by backend. The names of backends are a closed set until the configuration changes.
    jobs: JobMetrics {
        /// Jobs that are driving their backend.
        running: IntGaugeVec = gauge_vector("jobs_running", &["backend", "kind"]);
        /// Jobs that are queued.
        waiting: IntGaugeVec = gauge_vector("jobs_waiting", &["backend"]);
        /// Time that jobs were queued, for those that started.
        wait: HistogramVec = histogram_vector("job_wait_seconds", (&["backend"], JOB_DURATIONS));
        /// Jobs that ended, by outcome, cause and source of the failure. A pair of kind and cause exists once it occurred.
        ended: IntCounterVec = counter_vector("jobs_total", &["backend", "kind", "outcome", "cause", "source"]);
        /// Time from the start of a job, when it begins to drive its backend, to its end.
        duration: HistogramVec = histogram_vector("job_duration_seconds", (&["backend"], JOB_DURATIONS));
        /// Duration of the last job of the kind that completed since the bridge started; 0 if there is none.
        last_duration: GaugeVec = seconds_vector("job_last_duration_seconds", &["backend", "kind"]);
        /// Time of the last sync of the whole inventory that completed; 0 if there is none.
        last_success: GaugeVec = seconds_vector("job_last_success_timestamp_seconds", &["backend", "kind"]);
        /// Longest time since the last frame from the backend of a running job; 0 if no job runs.
        frame_age: GaugeVec = seconds_vector("job_frame_age_seconds", &["backend"]);
        /// Objects of jobs that ended, by result.
        objects: IntCounterVec = counter_vector("objects_total", &["backend", "result"]);
    }

    /// Metrics of the frames that backends send and of those that jobs write.
    frames: FrameMetrics {
        /// Frames received from backends.
        received: PerLabel<Option<Channel>, PerLabel<FrameType, IntCounter>> = counters_by_two("backend_frames_total");
        /// Frames written to the logs of jobs.
        written: PerLabel<Option<Channel>, PerLabel<FrameType, IntCounter>> = counters_by_two("frames_total");
        /// Events of backends that were dropped because clients do not need them, duplicates included.
        dropped: IntCounter = counter("backend_events_dropped_total");
        /// Events of backends that could not be parsed.
        unreadable: IntCounter = counter("backend_events_unreadable_total");
        /// Final events that the bridge wrote because the backend sent none.
        terminals: PerLabel<Option<Channel>, IntCounter> = counters("terminals_written_total");
    }

    /// Metrics of watchers and their streams.
    streams: StreamMetrics {
        /// Heartbeat comments sent on idle streams.
        heartbeats: IntCounter = counter("heartbeats_total");
        /// Clients that attached to a running job.
        attaches: IntCounter = counter("attaches_total");
        /// Streams resumed after Last-Event-ID, by source of the remaining events.
        resumes: PerLabel<ResumeSource, IntCounter> = counters("resumes_total");
        /// Gaps in streams: a watcher missed events that were evicted from the log.
        gaps: IntCounter = counter("gaps_total");
        /// Events that watchers missed because they were evicted from the log.
        gap_frames: IntCounter = counter("gap_frames_total");
        /// Clients that are watching a job.
        watchers: PerLabel<Surface, IntGauge> = gauges("watchers");
        /// Number of events that the slowest watcher is behind.
        lag: IntGauge = gauge("watcher_lag_frames");
        /// Watchers that disconnected or were dropped before the end of their stream.
        departures: PerLabel<WatcherDeparture, IntCounter> = counters("watchers_dropped_total");
    }

    /// Metrics of the listeners.
    front: FrontMetrics {
        /// Requests answered, by route and status class.
        requests: PerLabel<Route, PerLabel<Status, IntCounter>> = counters_by_two("http_requests_total");
        /// Time from a request to the head of its response, by route.
        latency: PerLabel<Route, Histogram> = histograms("http_request_duration_seconds", HEAD_DURATIONS);
        /// Requests without a response yet. Streams count until they begin.
        in_flight: PerLabel<Listener, IntGauge> = gauges("http_requests_in_flight");
        /// Requests that the bridge refused on behalf of the backend, or because of it, by cause.
        refusals: PerLabel<Cause, IntCounter> = counters("refusals_total");
        /// Requests that the backend's release cannot answer unchanged, by shim and action of the bridge.
        shims: PerLabel<ShimLabel, IntCounter> = shims("shims_total");
        /// Malformed or ambiguous requests that were rejected, by reason.
        rejections: PerLabel<RejectReason, IntCounter> = counters("rejections_total");
        /// Connections, requests and streams refused because a limit was reached.
        over_limit: PerLabel<Limit, IntCounter> = counters("over_limit_total");
        /// Open client connections.
        connections: PerLabel<Listener, IntGauge> = gauges("connections");
        /// Client connections accepted.
        accepted: PerLabel<Listener, IntCounter> = counters("connections_total");
        /// TLS handshakes with clients that failed.
        handshake_failures: IntCounter = counter("tls_handshake_failures_total");
        /// Open WebSockets, the bridge's own /ws included.
        tunnels: IntGauge = gauge("tunnels");
        /// Expiry time of the certificate for clients; 0 without TLS.
        certificate_expiry: Gauge = seconds("certificate_expiry_timestamp_seconds");
    }

    /// Metrics of each backend. The names of backends are a closed set until the configuration changes.
    backends: BackendFamilies {
        /// 1 if the last connection attempt to the backend succeeded, 0 if it failed.
        up: IntGaugeVec = gauge_vector("backend_up", &["backend"]);
        /// 1, with the detected version and /ws dialect of the backend as labels.
        info: IntGaugeVec = gauge_vector("backend_info", &["backend", "version", "dialect"]);
        /// Connection attempts to the backend, by result.
        connects: IntCounterVec = counter_vector("backend_connects_total", &["backend", "result"]);
        /// 1 for the current state of the backend's circuit breaker, 0 for the others.
        circuit: IntGaugeVec = gauge_vector("backend_circuit_state", &["backend", "state"]);
        /// Time from a request to the backend to the head of its response.
        response_head: HistogramVec = histogram_vector("backend_response_head_seconds", (&["backend"], HEAD_DURATIONS));
        /// Requests of the backend to NetBox through backend.netbox_listen, by the rule that changed them.
        netbox_requests: IntCounterVec = counter_vector("netbox_requests_total", &["backend", "rule"]);
    }

    /// Metrics of the ledger, and of the logs of jobs in memory.
    ledger: LedgerMetrics {
        /// 1 if the ledger can be written, 0 if not.
        available: IntGauge = gauge("ledger_available");
        /// Time to write one batch to the ledger.
        commit: Histogram = histogram("ledger_commit_seconds", &[0.005, 0.025, 0.1, 0.5, 2.5]);
        /// Failed attempts to write a batch to the ledger. The batch is kept and retried.
        commit_failures: IntCounter = counter("ledger_commit_failures_total");
        /// Pending records, logs and failed objects discarded because too many were waiting to be written.
        shed: IntCounter = counter("ledger_entries_shed_total");
        /// Records of jobs that were not written within limits.ledger.
        overdue: IntCounter = counter("ledger_records_overdue_total");
        /// Times that a file of the ledger was deleted or replaced while the bridge had it open.
        lost: IntCounter = counter("ledger_files_lost_total");
        /// Rows of the ledger that could not be read and were skipped, each counted once.
        damaged: IntCounter = counter("ledger_rows_damaged_total");
        /// 1 if cleaning of the ledger is suspended because the clock jumped, 0 if not.
        cleaning_held: IntGauge = gauge("ledger_cleaning_held");
        /// Memory used by the logs of jobs, including frames being sent to watchers, in bytes.
        log_bytes: IntGauge = gauge("log_bytes");
        /// Limit on the memory used by the logs of jobs (limits.all_logs_bytes), in bytes.
        log_bytes_limit: IntGauge = gauge("log_bytes_limit");
    }

    /// Metrics of notifications.
    notifications: NotificationMetrics {
        /// Notifications to the targets of `[[notify]]`: sent, attempts that failed, and dropped ones.
        results: PerLabel<NotificationResult, IntCounter> = counters("notifications_total");
    }

    /// Metrics of the process.
    process: ProcessMetrics {
        /// 1, with the version of the bridge as label.
        build: IntGauge = version("build_info");
        /// Attempts to reload the configuration, by result.
        reloads: PerLabel<ReloadResult, IntCounter> = counters("reloads_total");
        /// Time of the last successful load of the configuration.
        reloaded: Gauge = seconds("reload_last_success_timestamp_seconds");
        /// 1 if the bridge is draining and starts no new job, 0 if not.
        draining: IntGauge = gauge("draining");
        /// Asynchronous tasks that have not ended: some for each connection and job, and those of the process itself.
        tasks: IntGauge = gauge("tasks");
    }
}

impl MetricFactory<'_> {
    fn shims(&self, name: &str, help: &str) -> PerLabel<ShimLabel, IntCounter> {
        let shims = self.counter_vector(name, help, &["shim", "action"]);
        PerLabel::new(|ShimLabel { shim, action }| shims.with_label_values(&[shim.as_str(), action.as_str()]))
    }

    fn version(&self, name: &str, help: &str) -> IntGauge {
        self.gauge_vector(name, help, &["version"]).with_label_values(&[env!("CARGO_PKG_VERSION")])
    }
}

/// The metrics of this process.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let metrics = Metrics::new();
    metrics.process.build.set(1);
    #[cfg(target_os = "linux")]
    {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // Its names begin with `process_` and cannot collide with those above.
        let _ = metrics.registry.register(Box::new(process));
    }
    metrics
});

/// The gauges that are read at each scrape, because no event updates them.
#[derive(Clone, Copy, Debug, Default)]
pub struct GaugeReadings {
    /// The number of events that the slowest watcher is behind.
    pub lag: u64,
    /// The memory used by the logs of jobs, in bytes.
    pub log_bytes: usize,
    /// The limit on that memory, in bytes.
    pub log_bytes_limit: usize,
    /// The number of asynchronous tasks that have not ended.
    pub tasks: usize,
}

/// All metrics, with the gauges of `reading`, in the Prometheus text format (version 0.0.4).
pub fn text(reading: &GaugeReadings) -> Vec<u8> {
    let GaugeReadings { lag, log_bytes, log_bytes_limit, tasks } = *reading;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    METRICS.streams.lag.set(whole(lag));
    METRICS.ledger.log_bytes.set(whole(log_bytes as u64));
    METRICS.ledger.log_bytes_limit.set(whole(log_bytes_limit as u64));
    METRICS.process.tasks.set(whole(tasks as u64));
    let mut text = Vec::new();
    // Writing to memory does not fail, and these families are well-formed.
    let _ = jobs::expose(|| TextEncoder::new().encode(&METRICS.registry.gather(), &mut text));
    text
}
