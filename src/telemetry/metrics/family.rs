//! Metrics whose labels come from closed sets: every series is made at once, and its handle is kept, so that
//! nothing is looked up by a label when something happens.

use std::marker::PhantomData;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// A closed set of words that a label may have.
pub(in crate::telemetry) trait Label: Copy {
    /// The name of the label.
    const NAME: &'static str;

    /// Every value, in the order of [`Label::index`].
    fn all() -> Vec<Self>;

    /// Its place among all values.
    fn index(self) -> usize;

    /// The word for it.
    fn word(self) -> &'static str;
}

/// Makes labels of enums that have `ALL`, in the order of their declaration, and `as_str`.
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

                fn word(self) -> &'static str {
                    self.as_str()
                }
            }
        )+
    };
}

pub(in crate::telemetry) use labels;

/// One handle for each value of a label.
#[derive(Debug)]
pub(in crate::telemetry) struct By<L, M> {
    handles: Vec<M>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M> By<L, M> {
    /// A handle for each value.
    pub(in crate::telemetry) fn each(handle: impl FnMut(L) -> M) -> Self {
        Self { handles: L::all().into_iter().map(handle).collect(), label: PhantomData }
    }

    /// The handle for `label`.
    pub(in crate::telemetry) fn of(&self, label: L) -> &M {
        // There is one for each, in their order: `every_label_knows_its_place` holds it.
        &self.handles[label.index()]
    }
}

/// Makes metrics, and keeps them where they are gathered.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(opts(name, help)))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(opts(name, help)))
    }

    /// A gauge of seconds.
    pub(super) fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.keep(Gauge::with_opts(opts(name, help)))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.keep(Histogram::with_opts(histogram(name, help, buckets)))
    }

    pub(super) fn counters<L: Label>(&self, name: &str, help: &str) -> By<L, IntCounter> {
        let vector = self.counter_vector(name, help, &[L::NAME]);
        By::each(|label: L| vector.with_label_values(&[label.word()]))
    }

    pub(super) fn counters_by_two<A: Label, B: Label>(
        &self,
        name: &str,
        help: &str,
    ) -> By<A, By<B, IntCounter>> {
        let vector = self.counter_vector(name, help, &[A::NAME, B::NAME]);
        By::each(|a: A| By::each(|b: B| vector.with_label_values(&[a.word(), b.word()])))
    }

    pub(super) fn gauges<L: Label>(&self, name: &str, help: &str) -> By<L, IntGauge> {
        let vector = self.gauge_vector(name, help, &[L::NAME]);
        By::each(|label: L| vector.with_label_values(&[label.word()]))
    }

    pub(super) fn seconds_by<L: Label>(&self, name: &str, help: &str) -> By<L, Gauge> {
        let vector = self.seconds_vector(name, help, &[L::NAME]);
        By::each(|label: L| vector.with_label_values(&[label.word()]))
    }

    pub(super) fn histograms<L: Label>(&self, name: &str, help: &str, buckets: &[f64]) -> By<L, Histogram> {
        let vector = self.keep(HistogramVec::new(histogram(name, help, buckets), &[L::NAME]));
        By::each(|label: L| vector.with_label_values(&[label.word()]))
    }

    pub(super) fn counter_vector(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(opts(name, help), labels))
    }

    pub(super) fn gauge_vector(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn seconds_vector(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.keep(GaugeVec::new(opts(name, help), labels))
    }

    /// What was `made`, also in the hands of the registry.
    // Names and labels are constants, valid and different: `every_series_is_there_from_the_start` holds it.
    #[allow(clippy::expect_used, reason = "constants, held by a test")]
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
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
