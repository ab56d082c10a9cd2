//! The Prometheus metrics. Their labels come from closed sets, and every series is exposed from the start.

pub(super) mod family;
mod labels;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::Cause;
use crate::core::http::guard::RejectReason;
use crate::core::http::limit::Limit;
use crate::core::wire::traffic::FrameType;
use family::{MetricFactory, PerLabel};
pub(super) use labels::{
    ChannelLabel, NetboxRuleLabel, ObjectResult, OutcomeLabel, ReloadResult, ShimLabel, Status,
};
pub use labels::{Circuit, ConnectResult, Listener, ResumeSource, Route, Surface, WatcherDeparture};

/// The metrics of this process.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub(super) struct Metrics {
    registry: Registry,
    pub(super) jobs: JobMetrics,
    pub(super) frames: FrameMetrics,
    pub(super) streams: StreamMetrics,
    pub(super) front: FrontMetrics,
    pub(super) backends: BackendFamilies,
    pub(super) ledger: LedgerMetrics,
    pub(super) process: ProcessMetrics,
}

/// Metrics of jobs.
pub(super) struct JobMetrics {
    pub(super) running: PerLabel<Kind, IntGauge>,
    pub(super) waiting: IntGauge,
    pub(super) wait: Histogram,
    pub(super) ended: PerLabel<Kind, PerLabel<OutcomeLabel, IntCounter>>,
    pub(super) duration: PerLabel<Kind, Histogram>,
    pub(super) last_success: PerLabel<Kind, Gauge>,
    pub(super) frame_age: Gauge,
    pub(super) objects: PerLabel<ObjectResult, IntCounter>,
}

/// Metrics of the frames that backends send and of those that jobs write.
pub(super) struct FrameMetrics {
    pub(super) received: PerLabel<ChannelLabel, PerLabel<FrameType, IntCounter>>,
    pub(super) written: PerLabel<ChannelLabel, PerLabel<FrameType, IntCounter>>,
    pub(super) dropped: IntCounter,
    pub(super) unreadable: IntCounter,
    pub(super) terminals: PerLabel<ChannelLabel, IntCounter>,
}

/// Metrics of watchers and their streams.
pub(super) struct StreamMetrics {
    pub(super) heartbeats: IntCounter,
    pub(super) attaches: IntCounter,
    pub(super) resumes: PerLabel<ResumeSource, IntCounter>,
    pub(super) gaps: IntCounter,
    pub(super) gap_frames: IntCounter,
    pub(super) watchers: PerLabel<Surface, IntGauge>,
    pub(super) lag: IntGauge,
    pub(super) departures: PerLabel<WatcherDeparture, IntCounter>,
}

/// Metrics of the listeners.
pub(super) struct FrontMetrics {
    pub(super) requests: PerLabel<Route, PerLabel<Status, IntCounter>>,
    pub(super) refusals: PerLabel<Cause, IntCounter>,
    pub(super) shims: PerLabel<ShimLabel, IntCounter>,
    pub(super) rejections: PerLabel<RejectReason, IntCounter>,
    pub(super) over_limit: PerLabel<Limit, IntCounter>,
    pub(super) connections: PerLabel<Listener, IntGauge>,
    pub(super) accepted: PerLabel<Listener, IntCounter>,
    pub(super) handshake_failures: IntCounter,
    pub(super) tunnels: IntGauge,
    pub(super) certificate_expiry: Gauge,
}

/// Metrics of each backend. The names of backends are a closed set until the configuration changes.
pub(super) struct BackendFamilies {
    pub(super) up: IntGaugeVec,
    pub(super) info: IntGaugeVec,
    pub(super) connects: IntCounterVec,
    pub(super) circuit: IntGaugeVec,
    pub(super) last_success: GaugeVec,
    pub(super) netbox_requests: IntCounterVec,
}

/// Metrics of the ledger, and of the logs of jobs in memory.
pub(super) struct LedgerMetrics {
    pub(super) available: IntGauge,
    pub(super) commit: Histogram,
    pub(super) commit_failures: IntCounter,
    pub(super) shed: IntCounter,
    pub(super) overdue: IntCounter,
    pub(super) lost: IntCounter,
    pub(super) damaged: IntCounter,
    pub(super) cleaning_held: IntGauge,
    pub(super) log_bytes: IntGauge,
    pub(super) log_bytes_limit: IntGauge,
}

/// Metrics of the process.
pub(super) struct ProcessMetrics {
    pub(super) reloads: PerLabel<ReloadResult, IntCounter>,
    pub(super) reloaded: Gauge,
    pub(super) draining: IntGauge,
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let make = MetricFactory(&registry);
        let metrics = Self {
            jobs: JobMetrics::new(&make),
            frames: FrameMetrics::new(&make),
            streams: StreamMetrics::new(&make),
            front: FrontMetrics::new(&make),
            backends: BackendFamilies::new(&make),
            ledger: LedgerMetrics::new(&make),
            process: ProcessMetrics::new(&make),
            registry,
        };
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            // Its names begin with `process_` and cannot collide with those above.
            let _ = metrics.registry.register(Box::new(process));
        }
        metrics
    }
}

impl JobMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        let ended = make.counter_vector(
            "jobs_total",
            "Jobs that ended, by outcome, cause and source of the failure.",
            &["kind", "outcome", "cause", "source"],
        );
        Self {
            running: make.gauges("jobs_running", "Jobs that are driving their backend."),
            waiting: make.gauge("jobs_waiting", "Jobs that are waiting for their turn."),
            wait: make.histogram(
                "job_wait_seconds",
                "Time that jobs waited for their turn, for those that got it.",
                &[1.0, 10.0, 60.0, 300.0, 1800.0],
            ),
            ended: PerLabel::new(|kind: Kind| {
                PerLabel::new(|ending: OutcomeLabel| {
                    let [outcome, cause, source] = ending.values();
                    ended.with_label_values(&[kind.as_str(), outcome, cause, source])
                })
            }),
            duration: make.histograms(
                "job_duration_seconds",
                "Time from the start of a job, when it begins to drive its backend, to its end.",
                &[10.0, 60.0, 600.0, 3600.0],
            ),
            last_success: make.seconds_by(
                "job_last_success_timestamp_seconds",
                "Time of the last completed job in the ledger; 0 if there is none.",
            ),
            frame_age: make.seconds(
                "job_frame_age_seconds",
                "Longest time since the last frame from the backend of a running job; 0 if no job runs.",
            ),
            objects: make.counters("objects_total", "Objects of jobs that ended, by result."),
        }
    }
}

impl FrameMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            received: make.counters_by_two("backend_frames_total", "Frames received from backends."),
            written: make.counters_by_two("frames_total", "Frames written to the logs of jobs."),
            dropped: make.counter(
                "backend_events_dropped_total",
                "Events of backends that were dropped because clients do not need them, duplicates included.",
            ),
            unreadable: make
                .counter("backend_events_unreadable_total", "Events of backends that could not be parsed."),
            terminals: make.counters(
                "terminals_written_total",
                "Final events that the bridge wrote because the backend sent none.",
            ),
        }
    }
}

impl StreamMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            heartbeats: make.counter("heartbeats_total", "Heartbeat comments sent on idle streams."),
            attaches: make.counter("attaches_total", "Clients that attached to a running job."),
            resumes: make.counters(
                "resumes_total",
                "Streams resumed after Last-Event-ID, by source of the remaining events.",
            ),
            gaps: make.counter(
                "gaps_total",
                "Gaps in streams: a watcher missed events that were evicted from the log.",
            ),
            gap_frames: make.counter(
                "gap_frames_total",
                "Events that watchers missed because they were evicted from the log.",
            ),
            watchers: make.gauges("watchers", "Clients that are watching a job."),
            lag: make.gauge("watcher_lag_frames", "Number of events that the slowest watcher is behind."),
            departures: make.counters(
                "watchers_dropped_total",
                "Watchers that disconnected or were dropped before the end of their stream.",
            ),
        }
    }
}

impl FrontMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            requests: make
                .counters_by_two("http_requests_total", "Requests answered, by route and status class."),
            refusals: make.counters(
                "refusals_total",
                "Requests that the bridge refused on behalf of the backend, or because of it, by cause.",
            ),
            shims: {
                let shims = make.counter_vector(
                    "shims_total",
                    "Requests that the backend's release cannot answer unchanged, by shim and action of the bridge.",
                    &["shim", "action"],
                );
                PerLabel::new(|shimming: ShimLabel| shims.with_label_values(&shimming.values()))
            },
            rejections: make.counters(
                "rejections_total",
                "Malformed or ambiguous requests that were rejected, by reason.",
            ),
            over_limit: make.counters(
                "over_limit_total",
                "Connections, requests and streams refused because a limit was reached.",
            ),
            connections: make.gauges("connections", "Open client connections."),
            accepted: make.counters("connections_total", "Client connections accepted."),
            handshake_failures: make
                .counter("tls_handshake_failures_total", "TLS handshakes with clients that failed."),
            tunnels: make.gauge("tunnels", "Open WebSockets, the bridge's own /ws included."),
            certificate_expiry: make.seconds(
                "certificate_expiry_timestamp_seconds",
                "Expiry time of the certificate for clients; 0 without TLS.",
            ),
        }
    }
}

impl BackendFamilies {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            up: make.gauge_vector(
                "backend_up",
                "1 if the last connection attempt to the backend succeeded, 0 if it failed.",
                &["backend"],
            ),
            info: make.gauge_vector(
                "backend_info",
                "1, with the detected version and /ws dialect of the backend as labels.",
                &["backend", "version", "dialect"],
            ),
            connects: make.counter_vector(
                "backend_connects_total",
                "Connection attempts to the backend, by result.",
                &["backend", "result"],
            ),
            circuit: make.gauge_vector(
                "backend_circuit_state",
                "1 for the current state of the backend's circuit breaker, 0 for the others.",
                &["backend", "state"],
            ),
            last_success: make.seconds_vector(
                "backend_last_success_timestamp_seconds",
                "Time of the last completed job on the backend in the ledger; 0 if there is none.",
                &["backend"],
            ),
            netbox_requests: make.counter_vector(
                "netbox_requests_total",
                "Requests of the backend to NetBox through backend.netbox_listen, by the rule that changed them.",
                &["backend", "rule"],
            ),
        }
    }
}

impl LedgerMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            available: make.gauge("ledger_available", "1 if the ledger can be written, 0 if not."),
            commit: make.histogram(
                "ledger_commit_seconds",
                "Time to write one batch to the ledger.",
                &[0.005, 0.025, 0.1, 0.5, 2.5],
            ),
            commit_failures: make.counter(
                "ledger_commit_failures_total",
                "Failed attempts to write a batch to the ledger. The batch is kept and retried.",
            ),
            shed: make.counter(
                "ledger_entries_shed_total",
                "Pending records and logs discarded because too many were waiting to be written.",
            ),
            overdue: make.counter(
                "ledger_records_overdue_total",
                "Records of jobs that were not written within limits.ledger.",
            ),
            lost: make.counter(
                "ledger_files_lost_total",
                "Times that a file of the ledger was deleted or replaced while the bridge had it open.",
            ),
            damaged: make.counter(
                "ledger_rows_damaged_total",
                "Rows of the ledger that could not be read and were skipped, each counted once.",
            ),
            cleaning_held: make.gauge(
                "ledger_cleaning_held",
                "1 if cleaning of the ledger is suspended because the clock jumped, 0 if not.",
            ),
            log_bytes: make.gauge(
                "log_bytes",
                "Memory used by the logs of jobs, including frames being sent to watchers, in bytes.",
            ),
            log_bytes_limit: make.gauge(
                "log_bytes_limit",
                "Limit on the memory used by the logs of jobs (limits.all_logs_bytes), in bytes.",
            ),
        }
    }
}

impl ProcessMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        let build =
            make.gauge_vector("build_info", "1, with the version of the bridge as label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            reloads: make.counters("reloads_total", "Attempts to reload the configuration, by result."),
            reloaded: make.seconds(
                "reload_last_success_timestamp_seconds",
                "Time of the last successful load of the configuration.",
            ),
            draining: make.gauge("draining", "1 if the bridge is draining and starts no new job, 0 if not."),
        }
    }
}

/// The gauges that are read at each scrape, because no event updates them.
#[derive(Clone, Copy, Debug, Default)]
pub struct GaugeReadings {
    /// The longest time since the last frame from the backend of a running job, in seconds.
    pub frame_age: f64,
    /// The number of events that the slowest watcher is behind.
    pub lag: u64,
    /// The memory used by the logs of jobs, in bytes.
    pub log_bytes: usize,
    /// The limit on that memory, in bytes.
    pub log_bytes_limit: usize,
}

/// All metrics, with the gauges of `reading`, in the Prometheus text format (version 0.0.4).
pub fn text(reading: &GaugeReadings) -> Vec<u8> {
    let GaugeReadings { frame_age, lag, log_bytes, log_bytes_limit } = *reading;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    METRICS.jobs.frame_age.set(frame_age);
    METRICS.streams.lag.set(whole(lag));
    METRICS.ledger.log_bytes.set(whole(log_bytes as u64));
    METRICS.ledger.log_bytes_limit.set(whole(log_bytes_limit as u64));
    let mut text = Vec::new();
    // Writing to memory does not fail, and these families are well-formed.
    let _ = TextEncoder::new().encode(&METRICS.registry.gather(), &mut text);
    text
}
