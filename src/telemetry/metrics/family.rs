//! Metrics whose labels come from closed sets. Every series is created at the start and its handle is kept, so that
//! updating one needs no lookup by label; see `jobs` for the exception.

use std::marker::PhantomData;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// A label with a closed set of values.
pub(in crate::telemetry) trait Label: Copy {
    /// The name of the label.
    const NAME: &'static str;

    /// Every value, in the order of [`Label::index`].
    fn all() -> Vec<Self>;

    /// The index of this value in [`Label::all`].
    fn index(self) -> usize;

    /// The text of this value.
    fn value(self) -> &'static str;
}

/// Implements [`Label`] for enums that have `ALL`, in the order of their declaration, and `as_str`.
macro_rules! labels {
    ($($type:ty as $name:literal),+ $(,)?) => {
        $(
            impl $crate::telemetry::metrics::family::Label for $type {
                const NAME: &'static str = $name;

                fn all() -> Vec<Self> {
                    Self::ALL.to_vec()
                }

                fn index(self) -> usize {
                    self as usize
                }

                fn value(self) -> &'static str {
                    self.as_str()
                }
            }
        )+
    };
}

pub(in crate::telemetry) use labels;

/// One handle for each value of a label.
#[derive(Debug)]
pub(in crate::telemetry) struct PerLabel<L, M> {
    handles: Vec<M>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M> PerLabel<L, M> {
    /// A handle for each value.
    pub(in crate::telemetry) fn new(handle: impl FnMut(L) -> M) -> Self {
        Self { handles: L::all().into_iter().map(handle).collect(), label: PhantomData }
    }

    /// The handle for `label`.
    pub(in crate::telemetry) fn get(&self, label: L) -> &M {
        // `new` makes one handle for each value, in order; `every_label_knows_its_place` tests the indices.
        &self.handles[label.index()]
    }
}

/// Creates metrics and registers them.
pub(super) struct MetricFactory<'a>(pub(super) &'a Registry);

impl MetricFactory<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(opts(name, help)))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(opts(name, help)))
    }

    /// A gauge of seconds.
    pub(super) fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(opts(name, help)))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(histogram(name, help, buckets)))
    }

    pub(super) fn counters<L: Label>(&self, name: &str, help: &str) -> PerLabel<L, IntCounter> {
        let vector = self.counter_vector(name, help, &[L::NAME]);
        PerLabel::new(|label: L| vector.with_label_values(&[label.value()]))
    }

    pub(super) fn counters_by_two<A: Label, B: Label>(
        &self,
        name: &str,
        help: &str,
    ) -> PerLabel<A, PerLabel<B, IntCounter>> {
        let vector = self.counter_vector(name, help, &[A::NAME, B::NAME]);
        PerLabel::new(|a: A| PerLabel::new(|b: B| vector.with_label_values(&[a.value(), b.value()])))
    }

    pub(super) fn gauges<L: Label>(&self, name: &str, help: &str) -> PerLabel<L, IntGauge> {
        let vector = self.gauge_vector(name, help, &[L::NAME]);
        PerLabel::new(|label: L| vector.with_label_values(&[label.value()]))
    }

    pub(super) fn histograms<L: Label>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> PerLabel<L, Histogram> {
        let vector = self.histogram_vector(name, help, (&[L::NAME], buckets));
        PerLabel::new(|label: L| vector.with_label_values(&[label.value()]))
    }

    pub(super) fn counter_vector(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(opts(name, help), labels))
    }

    pub(super) fn gauge_vector(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn histogram_vector(
        &self,
        name: &str,
        help: &str,
        (labels, buckets): (&[&str], &[f64]),
    ) -> HistogramVec {
        self.register(HistogramVec::new(histogram(name, help, buckets), labels))
    }

    pub(super) fn seconds_vector(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(opts(name, help), labels))
    }

    /// Registers a metric.
    // Names and labels are constants, valid and distinct: `every_series_is_there_from_the_start_and_there_are_few` tests it.
    #[allow(clippy::expect_used, reason = "constants, held by a test")]
    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("valid");
        self.0.register(Box::new(metric.clone())).expect("different");
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("proxbox_bridge")
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() }
}
