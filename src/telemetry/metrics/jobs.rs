//! The metrics of jobs by the name of their backend.
//!
//! They stay when a reload replaces a backend by another one of the same name. Of the pairs of kind and result, only a
//! completed one is exposed from the start; the others would be several hundred for each backend. Each is exposed with 0
//! before its first value, so that Prometheus sees an increase.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::family::PerLabel;
use super::{METRICS, ObjectResult};
use crate::core::domain::counts::Count;
use crate::core::domain::kind::Kind;
use crate::core::domain::outcome::{Cause, Outcome, RunReport};

/// The metrics of each configured backend.
static BACKENDS: Mutex<Vec<(String, JobSeries)>> = Mutex::new(Vec::new());

/// The metrics of the jobs on one backend.
pub(in crate::telemetry) struct JobSeries {
    running: PerLabel<Kind, IntGauge>,
    waiting: IntGauge,
    wait: Histogram,
    duration: Histogram,
    last_duration: PerLabel<Kind, Gauge>,
    objects: PerLabel<ObjectResult, IntCounter>,
    ended: HashMap<(Kind, JobResult), EndedCounter>,
}

/// The counter of a pair of kind and result.
struct EndedCounter {
    counter: IntCounter,
    /// What is added once the series was exposed with 0. `None` if it was.
    pending: Option<u64>,
}

/// The result of a job, as the labels `outcome`, `cause` and `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::telemetry) enum JobResult {
    /// It completed, and so did all objects.
    Completed,
    /// It completed, and objects failed.
    ObjectsFailed,
    /// It completed, no object failed, and the backend did not confirm some.
    ObjectsUnconfirmed,
    /// It did not complete.
    Failed(Cause),
}

impl JobResult {
    pub(in crate::telemetry) fn from_report(report: &RunReport) -> Self {
        let total = report.counts.total();
        match report.cause {
            Some(cause) => Self::Failed(cause),
            None if total.failed > 0 => Self::ObjectsFailed,
            None if total.unconfirmed > 0 => Self::ObjectsUnconfirmed,
            None => Self::Completed,
        }
    }

    /// The values of the labels `outcome`, `cause` and `source`.
    pub(super) const fn labels(self) -> [&'static str; 3] {
        let completed = Outcome::Completed.as_str();
        match self {
            Self::Completed => [completed, "none", "none"],
            Self::ObjectsFailed => [completed, "objects_failed", "none"],
            Self::ObjectsUnconfirmed => [completed, "objects_unconfirmed", "none"],
            Self::Failed(cause) => [cause.outcome().as_str(), cause.as_str(), cause.source().as_str()],
        }
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    pub(in crate::telemetry) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl JobSeries {
    fn new(name: &str) -> Self {
        let metrics = &METRICS.jobs;
        let mut series = Self {
            running: PerLabel::new(|kind: Kind| metrics.running.with_label_values(&[name, kind.as_str()])),
            waiting: metrics.waiting.with_label_values(&[name]),
            wait: metrics.wait.with_label_values(&[name]),
            duration: metrics.duration.with_label_values(&[name]),
            last_duration: PerLabel::new(|kind: Kind| {
                metrics.last_duration.with_label_values(&[name, kind.as_str()])
            }),
            objects: PerLabel::new(|result: ObjectResult| {
                metrics.objects.with_label_values(&[name, result.as_str()])
            }),
            ended: HashMap::new(),
        };
        for kind in Kind::all() {
            series.ended_counter(name, kind, JobResult::Completed).pending = None;
        }
        series
    }

    fn ended_counter(&mut self, name: &str, kind: Kind, result: JobResult) -> &mut EndedCounter {
        self.ended.entry((kind, result)).or_insert_with(|| {
            let [outcome, cause, source] = result.labels();
            let labels = [name, kind.as_str(), outcome, cause, source];
            EndedCounter { counter: METRICS.jobs.ended.with_label_values(&labels), pending: Some(0) }
        })
    }

    /// Removes the series.
    fn remove(&self, name: &str) {
        let metrics = &METRICS.jobs;
        // Removing a series that does not exist fails, which does not matter.
        for kind in Kind::all() {
            let _ = metrics.running.remove_label_values(&[name, kind.as_str()]);
            let _ = metrics.last_duration.remove_label_values(&[name, kind.as_str()]);
        }
        let _ = metrics.waiting.remove_label_values(&[name]);
        let _ = metrics.wait.remove_label_values(&[name]);
        let _ = metrics.duration.remove_label_values(&[name]);
        for result in ObjectResult::ALL {
            let _ = metrics.objects.remove_label_values(&[name, result.as_str()]);
        }
        for (kind, result) in self.ended.keys() {
            let [outcome, cause, source] = result.labels();
            let _ = metrics.ended.remove_label_values(&[name, kind.as_str(), outcome, cause, source]);
        }
    }
}

/// Exposes the series of the backends with these names, and removes those of all others.
pub(in crate::telemetry) fn set_backends(names: &[&str]) {
    let mut backends = BACKENDS.lock();
    backends.retain(|(name, series)| {
        let is_configured = names.contains(&name.as_str());
        if !is_configured {
            series.remove(name);
        }
        is_configured
    });
    for name in names {
        if !backends.iter().any(|(known, _)| known == name) {
            backends.push(((*name).to_owned(), JobSeries::new(name)));
        }
    }
}

/// Calls `work` with the series of the backend with this name, if it is configured.
fn with_series<T>(name: &str, work: impl FnOnce(&mut JobSeries) -> T) -> Option<T> {
    let mut backends = BACKENDS.lock();
    let (_, series) = backends.iter_mut().find(|(known, _)| known == name)?;
    Some(work(series))
}

/// Counts a running job until the guard is dropped.
pub(in crate::telemetry) fn running(name: &str, kind: Kind) -> Option<GaugeGuard> {
    with_series(name, |series| GaugeGuard::new(series.running.get(kind)))
}

/// Counts a waiting job until the guard is dropped.
pub(in crate::telemetry) fn waiting(name: &str) -> Option<GaugeGuard> {
    with_series(name, |series| GaugeGuard::new(&series.waiting))
}

/// Counts a job that left the queue with a permit, after `waited`, in seconds.
pub(in crate::telemetry) fn waited(name: &str, waited: f64) {
    with_series(name, |series| series.wait.observe(waited));
}

/// Counts a job that ended, and its objects. `duration` is given if it drove the backend, in seconds.
pub(in crate::telemetry) fn ended(
    name: &str,
    kind: Kind,
    result: JobResult,
    objects: Count,
    duration: Option<f64>,
) {
    with_series(name, |series| {
        let EndedCounter { counter, pending } = series.ended_counter(name, kind, result);
        match pending {
            Some(pending) => *pending += 1,
            None => counter.inc(),
        }
        for (result, count) in [
            (ObjectResult::Completed, objects.completed),
            (ObjectResult::Failed, objects.failed),
            (ObjectResult::Unconfirmed, objects.unconfirmed),
        ] {
            series.objects.get(result).inc_by(count);
        }
        if let Some(duration) = duration {
            series.duration.observe(duration);
            if !matches!(result, JobResult::Failed(_)) {
                series.last_duration.get(kind).set(duration);
            }
        }
    });
}

/// Calls `expose`, which exposes all series, and then adds the first values to the new ones.
pub(super) fn expose<T>(expose: impl FnOnce() -> T) -> T {
    // No new series may be counted as exposed that is not.
    let mut backends = BACKENDS.lock();
    let exposed = expose();
    for EndedCounter { counter, pending } in
        backends.iter_mut().flat_map(|(_, series)| series.ended.values_mut())
    {
        counter.inc_by(pending.take().unwrap_or_default());
    }
    exposed
}
