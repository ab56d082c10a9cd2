//! The numbers that Prometheus asks for. Their labels come from closed sets, and every series is there
//! from the start.

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
    ChannelLabel, NetboxRule, ObjectResult, OutcomeLabel, ReloadResult, ShimLabel, Status,
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

/// What runs, and what became of it.
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

/// What backends say, and what readers are given.
pub(super) struct FrameMetrics {
    pub(super) received: PerLabel<ChannelLabel, PerLabel<FrameType, IntCounter>>,
    pub(super) written: PerLabel<ChannelLabel, PerLabel<FrameType, IntCounter>>,
    pub(super) dropped: IntCounter,
    pub(super) unreadable: IntCounter,
    pub(super) terminals: PerLabel<ChannelLabel, IntCounter>,
}

/// Who reads it.
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

/// Where clients come in.
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

/// What is known of each backend. Their names are a closed set until the configuration changes.
pub(super) struct BackendFamilies {
    pub(super) up: IntGaugeVec,
    pub(super) info: IntGaugeVec,
    pub(super) connects: IntCounterVec,
    pub(super) circuit: IntGaugeVec,
    pub(super) last_success: GaugeVec,
    pub(super) netbox_requests: IntCounterVec,
}

/// Where jobs are recorded, and what is kept of them in memory.
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

/// The bridge as a process.
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
            // Its names are not those of anything above.
            let _ = metrics.registry.register(Box::new(process));
        }
        metrics
    }
}

impl JobMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        let ended = make.counter_vector(
            "jobs_total",
            "Jobs that have ended, by outcome, by why, and by whose doing it is.",
            &["kind", "outcome", "cause", "source"],
        );
        Self {
            running: make.gauges("jobs_running", "Jobs that drive their backend now."),
            waiting: make.gauge("jobs_waiting", "Jobs that wait for their turn."),
            wait: make.histogram(
                "job_wait_seconds",
                "How long jobs that got their turn have waited for it.",
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
                "How long jobs took from the moment that they began to drive their backend.",
                &[10.0, 60.0, 600.0, 3600.0],
            ),
            last_success: make.seconds_by(
                "job_last_success_timestamp_seconds",
                "When a job last completed, as the ledger has it; 0 if none has.",
            ),
            frame_age: make.seconds(
                "job_frame_age_seconds",
                "Since when the running job whose backend is silent for longest has heard nothing; 0 if none runs.",
            ),
            objects: make.counters("objects_total", "Objects of jobs that have ended, by what became of them."),
        }
    }
}

impl FrameMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            received: make.counters_by_two("backend_frames_total", "Frames that backends sent."),
            written: make.counters_by_two("frames_total", "Frames that were written for readers."),
            dropped: make.counter(
                "backend_events_dropped_total",
                "Events of backends that no reader needs, second accounts of the same thing included.",
            ),
            unreadable: make
                .counter("backend_events_unreadable_total", "Events of backends that could not be read."),
            terminals: make.counters(
                "terminals_written_total",
                "Ends of streams that the bridge had to write because the backend brought none.",
            ),
        }
    }
}

impl StreamMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            heartbeats: make.counter(
                "heartbeats_total",
                "Comments that were sent because nothing else was there to send.",
            ),
            attaches: make.counter("attaches_total", "Clients that came to a job that was there already."),
            resumes: make.counters(
                "resumes_total",
                "Clients that said which event they had seen, by where the rest came from.",
            ),
            gaps: make.counter("gaps_total", "Times that a reader came too late for events that are gone."),
            gap_frames: make.counter("gap_frames_total", "Events that were gone when a reader came to them."),
            watchers: make.gauges("watchers", "Clients that watch a job."),
            lag: make.gauge("watcher_lag_frames", "How many events the slowest watcher is behind."),
            departures: make
                .counters("watchers_dropped_total", "Clients that were gone before the end of their stream."),
        }
    }
}

impl FrontMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            requests: make.counters_by_two("http_requests_total", "Requests that were answered."),
            refusals: make.counters(
                "refusals_total",
                "Requests that were refused in the place of the backend, or because of it.",
            ),
            shims: {
                let shims = make.counter_vector(
                    "shims_total",
                    "Requests that the backend's release could not answer as they came, by gap and by what the \
                     bridge did.",
                    &["shim", "action"],
                );
                PerLabel::new(|shimming: ShimLabel| shims.with_label_values(&shimming.values()))
            },
            rejections: make.counters("rejections_total", "Requests that were rejected for what they were."),
            over_limit: make
                .counters("over_limit_total", "Connections, requests and streams that were one too many."),
            connections: make.gauges("connections", "Connections of clients that are open."),
            accepted: make.counters("connections_total", "Connections of clients that were accepted."),
            handshake_failures: make
                .counter("tls_handshake_failures_total", "TLS handshakes of clients that came to nothing."),
            tunnels: make.gauge("tunnels", "WebSockets that are open, the bridge's own included."),
            certificate_expiry: make.seconds(
                "certificate_expiry_timestamp_seconds",
                "When the certificate ends that clients are shown; 0 without TLS.",
            ),
        }
    }
}

impl BackendFamilies {
    fn new(make: &MetricFactory<'_>) -> Self {
        Self {
            up: make.gauge_vector(
                "backend_up",
                "Whether the backend could be reached when that was last tried (1) or not (0).",
                &["backend"],
            ),
            info: make.gauge_vector(
                "backend_info",
                "1, with what is known of the backend.",
                &["backend", "version", "dialect"],
            ),
            connects: make.counter_vector(
                "backend_connects_total",
                "Connections to the backend that were tried, by what came of it.",
                &["backend", "result"],
            ),
            circuit: make.gauge_vector(
                "backend_circuit_state",
                "1 for the state that the circuit breaker of the backend is in.",
                &["backend", "state"],
            ),
            last_success: make.seconds_vector(
                "backend_last_success_timestamp_seconds",
                "When a job on the backend last completed, as the ledger has it; 0 if none has.",
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
            available: make
                .gauge("ledger_available", "Whether the record of jobs can be written (1) or not (0)."),
            commit: make.histogram(
                "ledger_commit_seconds",
                "How long it took to write the record of jobs, one batch at a time.",
                &[0.005, 0.025, 0.1, 0.5, 2.5],
            ),
            commit_failures: make.counter(
                "ledger_commit_failures_total",
                "Attempts to write the record of jobs that failed. What they held is kept and tried again.",
            ),
            shed: make.counter(
                "ledger_entries_shed_total",
                "Records, or logs of jobs, that were given up because too many waited to be written.",
            ),
            overdue: make.counter(
                "ledger_records_overdue_total",
                "Records of jobs that were not written within limits.ledger.",
            ),
            lost: make.counter(
                "ledger_files_lost_total",
                "Times that a file of the record of jobs was deleted or replaced while the bridge had it open.",
            ),
            damaged: make.counter(
                "ledger_rows_damaged_total",
                "Rows of the record of jobs that could not be read and were left out, each counted once.",
            ),
            cleaning_held: make.gauge(
                "ledger_cleaning_held",
                "Whether no record is removed for its age because the clock jumped (1) or not (0).",
            ),
            log_bytes: make.gauge(
                "log_bytes",
                "Memory that the logs of jobs take, with what is on its way to their readers.",
            ),
            log_bytes_limit: make
                .gauge("log_bytes_limit", "The memory that is meant for them (limits.all_logs_bytes)."),
        }
    }
}

impl ProcessMetrics {
    fn new(make: &MetricFactory<'_>) -> Self {
        let build = make.gauge_vector("build_info", "1, with the version of the bridge.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            reloads: make.counters("reloads_total", "Times that the configuration was to be read again."),
            reloaded: make.seconds(
                "reload_last_success_timestamp_seconds",
                "When the configuration that is in force was read.",
            ),
            draining: make.gauge(
                "draining",
                "Whether the bridge is stopping and begins no job any more (1) or not (0).",
            ),
        }
    }
}

/// What is read when it is asked for, because nothing happens when it changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GaugeReadings {
    /// The longest time that the backend of a running job has said nothing for, in seconds.
    pub frame_age: f64,
    /// How many events the slowest watcher is behind.
    pub lag: u64,
    /// The memory that the logs of jobs take, in bytes.
    pub log_bytes: usize,
    /// The most that it may be.
    pub log_bytes_limit: usize,
}

/// Everything, and `reading`, in the text format of Prometheus (version 0.0.4).
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
