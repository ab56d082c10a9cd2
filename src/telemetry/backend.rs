//! Events between the bridge and its backends.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::metrics::family::{Label, PerLabel};
use super::metrics::jobs;
use super::metrics::{Circuit, ConnectResult, METRICS, NetboxRule};
use crate::core::domain::kind::Kind;
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::remote::Remote;
use crate::core::upstream::dialect::Dialect;

/// The metrics of one backend, and its name in the log. Its series are exposed while the backend is configured.
#[derive(Debug)]
pub struct BackendMetrics {
    remote: Remote,
    name: String,
    /// Whether the backend has a NetBox listener, whose requests are counted.
    has_netbox_listener: bool,
    series: Mutex<Option<Series>>,
}

#[derive(Debug)]
struct Series {
    up: IntGauge,
    connects: PerLabel<ConnectResult, IntCounter>,
    circuit: PerLabel<Circuit, IntGauge>,
    last_success: PerLabel<Kind, Gauge>,
    frame_age: Gauge,
    response_head: Histogram,
    netbox: Option<PerLabel<Option<NetboxRule>, IntCounter>>,
    /// The labels `version` and `dialect` of `backend_info`.
    info: [String; 2],
}

/// The backends whose series are exposed.
static COUNTED: Mutex<Vec<Arc<BackendMetrics>>> = Mutex::new(Vec::new());

/// The version and the dialect of a backend before they are known.
const UNKNOWN: &str = "unknown";

/// Exposes the series of these backends, and removes those of all others.
pub fn set_backends(backends: Vec<Arc<BackendMetrics>>) {
    let mut known = COUNTED.lock();
    let is_in = |list: &[Arc<BackendMetrics>], one: &Arc<BackendMetrics>| {
        list.iter().any(|other| Arc::ptr_eq(other, one))
    };
    // Removed first: a new backend may have the name of a removed one, and its series start at zero.
    for gone in known.iter().filter(|one| !is_in(&backends, one)) {
        gone.end();
    }
    for new in backends.iter().filter(|one| !is_in(&known, one)) {
        new.begin();
    }
    let names: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
    jobs::set_backends(&names);
    *known = backends;
}

impl BackendMetrics {
    /// The metrics of the backend with this name, or of its NetBox. They are not exposed yet.
    pub fn new(remote: Remote, name: &str) -> Arc<Self> {
        Arc::new(Self { remote, name: name.to_owned(), has_netbox_listener: false, series: Mutex::default() })
    }

    /// The metrics of the backend with this name, which has a NetBox listener. They are not exposed yet.
    pub fn with_netbox_listener(name: &str) -> Arc<Self> {
        Arc::new(Self {
            remote: Remote::Backend,
            name: name.to_owned(),
            has_netbox_listener: true,
            series: Mutex::default(),
        })
    }

    /// The name of the backend.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is a backend or its NetBox.
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// Counts a request to NetBox, by the rule that changed it.
    pub(super) fn netbox_request(&self, rule: Option<NetboxRule>) {
        self.with_series(|series| {
            if let Some(requests) = &series.netbox {
                requests.get(rule).inc();
            }
        });
    }

    /// Sets the time of the last success of `kind`, in seconds since the Unix epoch; 0 if there is none.
    pub fn set_last_success(&self, kind: Kind, at: f64) {
        self.with_series(|series| series.last_success.get(kind).set(at));
    }

    /// Sets the longest time since the last frame for a running job; zero if none runs.
    pub fn set_frame_age(&self, age: Duration) {
        self.with_series(|series| series.frame_age.set(age.as_secs_f64()));
    }

    /// Counts a response of the backend, whose head arrived `duration` after the request.
    pub fn response_arrived(&self, duration: Duration) {
        self.with_series(|series| series.response_head.observe(duration.as_secs_f64()));
    }

    fn begin(&self) {
        let (metrics, name) = (&METRICS.backends, &self.name);
        let series = Series {
            up: metrics.up.with_label_values(&[name]),
            connects: PerLabel::new(|result: ConnectResult| {
                metrics.connects.with_label_values(&[name.as_str(), result.as_str()])
            }),
            circuit: PerLabel::new(|state: Circuit| {
                metrics.circuit.with_label_values(&[name.as_str(), state.as_str()])
            }),
            last_success: PerLabel::new(|kind: Kind| {
                METRICS.jobs.last_success.with_label_values(&[name.as_str(), kind.as_str()])
            }),
            frame_age: METRICS.jobs.frame_age.with_label_values(&[name]),
            response_head: metrics.response_head.with_label_values(&[name]),
            netbox: self.has_netbox_listener.then(|| {
                PerLabel::new(|rule: Option<NetboxRule>| {
                    metrics.netbox_requests.with_label_values(&[name.as_str(), rule.value()])
                })
            }),
            info: [UNKNOWN, UNKNOWN].map(str::to_owned),
        };
        metrics.info.with_label_values(&[name.as_str(), UNKNOWN, UNKNOWN]).set(1);
        series.set_circuit(Circuit::Closed);
        *self.series.lock() = Some(series);
    }

    fn end(&self) {
        let (metrics, name) = (&METRICS.backends, self.name.as_str());
        let Some(Series { info: [version, dialect], .. }) = self.series.lock().take() else { return };
        // Removing a series that does not exist fails, which does not matter.
        let _ = metrics.up.remove_label_values(&[name]);
        for kind in Kind::all() {
            let _ = METRICS.jobs.last_success.remove_label_values(&[name, kind.as_str()]);
        }
        let _ = METRICS.jobs.frame_age.remove_label_values(&[name]);
        let _ = metrics.response_head.remove_label_values(&[name]);
        for result in ConnectResult::ALL {
            let _ = metrics.connects.remove_label_values(&[name, result.as_str()]);
        }
        for state in Circuit::ALL {
            let _ = metrics.circuit.remove_label_values(&[name, state.as_str()]);
        }
        for rule in Option::<NetboxRule>::all() {
            let _ = metrics.netbox_requests.remove_label_values(&[name, rule.value()]);
        }
        let _ = metrics.info.remove_label_values(&[name, &version, &dialect]);
    }

    /// Calls `work` with the series, if they are exposed.
    fn with_series<T>(&self, work: impl FnOnce(&mut Series) -> T) -> Option<T> {
        self.series.lock().as_mut().map(work)
    }
}

impl Series {
    fn set_circuit(&self, state: Circuit) {
        for other in Circuit::ALL {
            self.circuit.get(other).set(i64::from(other == state));
        }
    }
}

/// A connection attempt to a backend ended.
#[derive(Debug)]
pub struct ConnectAttempted<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// The result.
    pub result: ConnectResult,
    /// The error, if the attempt failed.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
}

impl ConnectAttempted<'_> {
    /// Writes the log line and updates the metrics. The line is at debug: [`CircuitChanged`] is the one for operators.
    pub fn emit(self) {
        let Self { backend, result, error } = self;
        backend.with_series(|series| {
            series.connects.get(result).inc();
            series.up.set(i64::from(result == ConnectResult::Connected));
        });
        tracing::debug!(
            backend = backend.name,
            result = result.as_str(),
            error,
            "Connection attempt to {} ended.",
            backend.remote
        );
    }
}

/// A client, or all clients together, reached the limit of wrong API keys. Unknown keys are refused for a while.
#[derive(Debug)]
pub struct KeysThrottled<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// The client that reached its limit. `None` if all clients together reached theirs.
    pub client: Option<std::net::IpAddr>,
}

impl KeysThrottled<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let backend = self.backend.name.as_str();
        match self.client {
            Some(client) => tracing::warn!(
                backend,
                client = %client,
                "Client sent too many wrong API keys: its unknown keys are refused for 5 minutes (limits.wrong_keys)."
            ),
            None => tracing::warn!(
                backend,
                "Clients sent too many wrong API keys: unknown keys of all clients are refused for 5 minutes. Start \
                 the backend with PROXBOX_TRUSTED_PROXIES, so that it counts each client by itself."
            ),
        }
    }
}

/// The circuit breaker of a backend changed its state.
#[derive(Debug)]
pub struct CircuitChanged<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// The new state.
    pub state: Circuit,
    /// The error of the last connection attempt, if it failed.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
    /// Whether the breaker was closed before.
    pub was_closed: bool,
}

impl CircuitChanged<'_> {
    /// Writes the log line and updates the metrics.
    pub fn emit(self) {
        let Self { backend, state, error, was_closed } = self;
        backend.with_series(|series| series.set_circuit(state));
        let (name, remote) = (&backend.name, backend.remote.capitalized());
        match state {
            Circuit::Closed => tracing::info!(backend = name, "{remote} can be reached again."),
            Circuit::Open if was_closed => {
                tracing::warn!(
                    backend = name,
                    error,
                    "{remote} is down: its circuit is open (limits.breaker_failures)."
                )
            }
            Circuit::Open => tracing::debug!(backend = name, error, "{remote} is still down."),
            Circuit::HalfOpen => {
                tracing::debug!(backend = name, "{remote} is being probed: its circuit is half open.")
            }
        }
    }
}

/// Requests to a backend come back to this bridge or to another one, or do not any more.
pub struct LoopChanged<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// Its URL.
    pub url: &'a dyn Display,
    /// Whether they come back.
    pub in_loop: bool,
}

impl LoopChanged<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let Self { backend, url, in_loop } = self;
        let (name, key) = (&backend.name, backend.remote.url_key());
        if in_loop {
            tracing::error!(
                backend = name,
                %url,
                "Requests come back to a bridge that has sent them: set {key} of this bridge, or of one behind it, to the \
                 server itself."
            );
        } else {
            tracing::info!(backend = name, %url, "Requests do not come back any more.");
        }
    }
}

/// The release or the dialect of a backend was detected.
#[derive(Debug)]
pub struct CapabilitiesLearned<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// The release, if it is known.
    pub release: Option<Release>,
    /// The dialect of its `/ws`, if it is known.
    pub dialect: Option<Dialect>,
}

impl CapabilitiesLearned<'_> {
    /// Writes the log line and updates the metrics, if the release or the dialect changed.
    pub fn emit(self) {
        let Self { backend, release, dialect } = self;
        let now = [
            release.map_or_else(|| UNKNOWN.to_owned(), |release| release.to_string()),
            dialect.map_or(UNKNOWN, Dialect::as_str).to_owned(),
        ];
        let name = backend.name.as_str();
        let is_new = backend.with_series(|series| {
            let is_new = series.info != now;
            if is_new {
                let [version, dialect] = std::mem::replace(&mut series.info, now.clone());
                let info = &METRICS.backends.info;
                let _ = info.remove_label_values(&[name, &version, &dialect]);
                info.with_label_values(&[name, &now[0], &now[1]]).set(1);
            }
            is_new
        });
        if is_new == Some(true) {
            tracing::info!(backend = name, version = now[0], dialect = now[1], "Backend detected.");
        }
    }
}

/// A stream of the backend without the content type `text/event-stream` was recognized by its content.
#[derive(Debug)]
pub struct StreamRecognized<'a> {
    /// Its `Content-Type`, if it has one.
    pub content_type: Option<&'a str>,
}

impl StreamRecognized<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::info!(
            content_type = self.content_type.unwrap_or("none"),
            "The backend's stream does not have the content type text/event-stream. It is read as one."
        );
    }
}

/// The TLS files of a backend changed and were read again: `ca_file`, `client_certificate` and its key, or the system's
/// CA certificates.
#[derive(Debug)]
pub struct BackendFilesRead<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// Why the new files cannot be used. The ones before stay in use.
    pub error: Option<String>,
}

impl BackendFilesRead<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let backend = self.backend.name.as_str();
        let whose = match self.backend.remote {
            Remote::Backend => "this backend",
            Remote::Netbox => "the NetBox of this backend",
        };
        match self.error {
            None => tracing::info!(backend, "The TLS files for {whose} changed and were read again."),
            Some(error) => tracing::error!(
                backend,
                error,
                "The TLS files for {whose} changed and cannot be used. The previous ones stay in use."
            ),
        }
    }
}

/// A backend's report of its running syncs cannot be read.
#[derive(Debug)]
pub struct ReportUnreadable<'a> {
    /// The path of the report.
    pub path: &'a str,
    /// What the backend answered.
    pub refusal: &'a Refusal,
}

impl ReportUnreadable<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        tracing::warn!(
            path = self.path,
            error = self.refusal.text(),
            "The backend's report of running syncs cannot be read. The cool-down continues, up to limits.cooldown."
        );
    }
}
