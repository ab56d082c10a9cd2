//! What happens between the bridge and its backends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{Gauge, IntCounter, IntGauge};

use super::metrics::family::{Label, PerLabel};
use super::metrics::{Circuit, ConnectResult, METRICS, NetboxRule};
use crate::core::domain::refusal::Refusal;
use crate::core::domain::release::Release;
use crate::core::remote::Remote;
use crate::core::upstream::dialect::Dialect;

/// What is counted of one backend, and its name for the log. It is counted while the backend is one of those that
/// the bridge stands in front of.
#[derive(Debug)]
pub struct BackendMetrics {
    remote: Remote,
    name: String,
    /// Whether it has a NetBox listener, whose requests are counted.
    has_netbox_listener: bool,
    series: Mutex<Option<Series>>,
}

#[derive(Debug)]
struct Series {
    up: IntGauge,
    connects: PerLabel<ConnectResult, IntCounter>,
    circuit: PerLabel<Circuit, IntGauge>,
    last_success: Gauge,
    netbox: Option<PerLabel<NetboxRule, IntCounter>>,
    /// The version and the dialect that are told.
    info: [String; 2],
}

/// The backends whose series there are.
static COUNTED: Mutex<Vec<Arc<BackendMetrics>>> = Mutex::new(Vec::new());

/// What is said of a backend before anything is known of it.
const UNKNOWN: &str = "unknown";

/// From now on the bridge stands in front of these backends alone.
pub fn set_backends(backends: Vec<Arc<BackendMetrics>>) {
    let mut known = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_in = |list: &[Arc<BackendMetrics>], one: &Arc<BackendMetrics>| {
        list.iter().any(|other| Arc::ptr_eq(other, one))
    };
    // One that has taken the name of another begins anew.
    for gone in known.iter().filter(|one| !is_in(&backends, one)) {
        gone.end();
    }
    for new in backends.iter().filter(|one| !is_in(&known, one)) {
        new.begin();
    }
    *known = backends;
}

impl BackendMetrics {
    /// The backend with this name, or the NetBox of the backend with this name. It is not counted yet.
    pub fn new(remote: Remote, name: &str) -> Arc<Self> {
        Arc::new(Self { remote, name: name.to_owned(), has_netbox_listener: false, series: Mutex::default() })
    }

    /// The backend with this name, which has a NetBox listener. It is not counted yet.
    pub fn with_netbox_listener(name: &str) -> Arc<Self> {
        Arc::new(Self {
            remote: Remote::Backend,
            name: name.to_owned(),
            has_netbox_listener: true,
            series: Mutex::default(),
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a backend, or the NetBox of one.
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// A request to NetBox was changed by `rule`, or by none.
    pub(super) fn netbox_request(&self, rule: NetboxRule) {
        self.with_series(|series| {
            if let Some(requests) = &series.netbox {
                requests.get(rule).inc();
            }
        });
    }

    /// A job on it completed, at this time in seconds since 1970.
    pub fn succeeded(&self, at: f64) {
        self.with_series(|series| series.last_success.set(series.last_success.get().max(at)));
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
            last_success: metrics.last_success.with_label_values(&[name]),
            netbox: self.has_netbox_listener.then(|| {
                PerLabel::new(|rule: NetboxRule| {
                    metrics.netbox_requests.with_label_values(&[name.as_str(), rule.value()])
                })
            }),
            info: [UNKNOWN, UNKNOWN].map(str::to_owned),
        };
        metrics.info.with_label_values(&[name.as_str(), UNKNOWN, UNKNOWN]).set(1);
        series.is_in(Circuit::Closed);
        *self.series() = Some(series);
    }

    fn end(&self) {
        let (metrics, name) = (&METRICS.backends, self.name.as_str());
        let Some(Series { info: [version, dialect], .. }) = self.series().take() else { return };
        // What is not there cannot be removed, and need not be.
        let _ = metrics.up.remove_label_values(&[name]);
        let _ = metrics.last_success.remove_label_values(&[name]);
        for result in ConnectResult::ALL {
            let _ = metrics.connects.remove_label_values(&[name, result.as_str()]);
        }
        for state in Circuit::ALL {
            let _ = metrics.circuit.remove_label_values(&[name, state.as_str()]);
        }
        for rule in NetboxRule::all() {
            let _ = metrics.netbox_requests.remove_label_values(&[name, rule.value()]);
        }
        let _ = metrics.info.remove_label_values(&[name, &version, &dialect]);
    }

    /// Does `work` with its series, if it is counted.
    fn with_series<T>(&self, work: impl FnOnce(&mut Series) -> T) -> Option<T> {
        self.series().as_mut().map(work)
    }

    fn series(&self) -> MutexGuard<'_, Option<Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    fn is_in(&self, state: Circuit) {
        for other in Circuit::ALL {
            self.circuit.get(other).set(i64::from(other == state));
        }
    }
}

/// A connection to a backend was tried.
#[derive(Debug)]
pub struct ConnectAttempted<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// What came of it.
    pub result: ConnectResult,
    /// Why it did not come about, if so.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
}

impl ConnectAttempted<'_> {
    /// Writes the log line and moves the metrics. What an operator sees is the line of the circuit.
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
            "Connection to {} tried.",
            backend.remote
        );
    }
}

/// As many wrong keys were tried as may be, and further ones are held back.
#[derive(Debug)]
pub struct KeysThrottled<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// The client that has tried them; none if they were those of all clients together.
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
                "Client tried too many wrong API keys: its next unknown key is refused for 5 minutes \
                 (limits.wrong_keys)."
            ),
            None => tracing::warn!(
                backend,
                "Clients tried too many wrong API keys: unknown keys of all clients are refused for 5 minutes. Start the \
                 backend with PROXBOX_TRUSTED_PROXIES, so that it counts each client by itself."
            ),
        }
    }
}

/// The circuit of a backend is in another state.
#[derive(Debug)]
pub struct CircuitChanged<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// The state.
    pub state: Circuit,
    /// Why it could not be reached last, if so.
    pub error: Option<&'a (dyn std::error::Error + 'static)>,
    /// Whether it was closed until now.
    pub was_closed: bool,
}

impl CircuitChanged<'_> {
    /// Writes the log line and moves the metrics.
    pub fn emit(self) {
        let Self { backend, state, error, was_closed } = self;
        backend.with_series(|series| series.is_in(state));
        let (name, remote) = (&backend.name, backend.remote.capitalized());
        match state {
            Circuit::Closed => tracing::info!(backend = name, "{remote} can be reached again."),
            Circuit::Open if was_closed => {
                tracing::warn!(backend = name, error, "{remote} is taken for down (limits.breaker_failures).")
            }
            Circuit::Open => tracing::debug!(backend = name, error, "{remote} is still down."),
            Circuit::HalfOpen => tracing::debug!(backend = name, "{remote} is tried again."),
        }
    }
}

/// Something is known of a backend.
#[derive(Debug)]
pub struct CapabilitiesLearned<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// Its release, if it is known.
    pub release: Option<Release>,
    /// The dialect of its `/ws`, if it is known.
    pub dialect: Option<Dialect>,
}

impl CapabilitiesLearned<'_> {
    /// Writes the log line and moves the metrics, if it is something new.
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
            tracing::info!(backend = name, version = now[0], dialect = now[1], "The backend is known.");
        }
    }
}

/// A stream of the backend that is not announced as one was read all the same.
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
            "The backend's stream is not announced as text/event-stream, and is read as one."
        );
    }
}

/// The files of a backend's TLS have changed and were read again: `ca_file`, `client_certificate` and its key, or the
/// authorities of the system.
#[derive(Debug)]
pub struct BackendFilesRead<'a> {
    /// The backend.
    pub backend: &'a BackendMetrics,
    /// Why what was read before stays in use, if that is so.
    pub error: Option<String>,
}

impl BackendFilesRead<'_> {
    /// Writes the log line.
    pub fn emit(self) {
        let backend = self.backend.name.as_str();
        let whose = match self.backend.remote {
            Remote::Backend => "this backend",
            Remote::Netbox => "NetBox, which this backend asks,",
        };
        match self.error {
            None => tracing::info!(backend, "The certificates for {whose} have changed and were read again."),
            Some(error) => tracing::error!(
                backend,
                error,
                "The certificates for {whose} have changed and cannot be used; those read before stay in use."
            ),
        }
    }
}

/// A backend's report of the syncs that run on it cannot be read.
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
            "The report of running syncs cannot be read. The cool-down goes on as if one ran, up to limits.cooldown."
        );
    }
}
