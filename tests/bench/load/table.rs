//! The table of results.

use std::collections::HashMap;
use std::fmt::Write;

use super::rows::{Bar, Metric, ROWS, Row};
use super::system::{ALL, System};

/// The results of all rounds.
#[derive(Default)]
pub struct Results {
    values: HashMap<(&'static str, System), Vec<f64>>,
}

impl Results {
    /// Adds the results of one round, in the order of the metrics of `row`. NaN is no result.
    pub fn add(&mut self, row: &'static Row, system: System, measured: &[f64]) {
        assert_eq!(measured.len(), row.metrics.len(), "{}", row.name);
        for (metric, &value) in row.metrics.iter().zip(measured).filter(|(_, value)| !value.is_nan()) {
            self.values.entry((metric.title, system)).or_default().push(value);
        }
    }

    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let systems: Vec<System> =
            ALL.into_iter().filter(|system| self.values.keys().any(|(_, known)| known == system)).collect();
        let mut text = "\n| measure | unit |".to_owned();
        for system in &systems {
            write!(text, " {} |", system.name()).unwrap();
        }
        text.push_str(" bridge / nginx | bar | aim | |\n|---|---|");
        text.push_str(&"---|".repeat(systems.len() + 4));
        let metrics = ROWS.iter().flat_map(|row| row.metrics);
        for metric in metrics.filter(|metric| self.values.keys().any(|(title, _)| *title == metric.title)) {
            write!(text, "\n| {} | {} |", metric.title, metric.unit).unwrap();
            for system in &systems {
                match self.values.get(&(metric.title, *system)) {
                    Some(values) => {
                        write!(text, " {} ± {} |", number(median(values)), number(deviation(values)))
                    }
                    None => write!(text, " |"),
                }
                .unwrap();
            }
            self.judge(metric, &mut text);
        }
        text
    }

    /// The ratio to nginx, the bar and the aim, and whether they are met.
    fn judge(&self, metric: &Metric, text: &mut String) {
        let value = |system| self.values.get(&(metric.title, system)).map(|values| median(values));
        let bridge = value(System::Bridge);
        let ratio = bridge.zip(value(System::Nginx)).map(|(bridge, nginx)| bridge / nginx);
        let (judged, bar, aim) = match metric.bar {
            Bar::None => (None, None, None),
            Bar::OfNginx(bar, aim) => (ratio, Some(bar), Some(aim)),
            Bar::AtMost(bar, aim) => (bridge, Some(bar), aim),
        };
        let cell = |value: Option<f64>| value.map_or_else(String::new, number);
        let verdict = match (judged, bar, aim) {
            (Some(value), _, Some(aim)) if value <= aim => "aim met",
            (Some(value), Some(bar), _) if value <= bar => "bar met",
            (Some(_), Some(_), _) => "**not met**",
            _ => "",
        };
        write!(text, " {} | {} | {} | {verdict} |", cell(ratio), cell(bar), cell(aim)).unwrap();
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}

/// The median absolute deviation.
fn deviation(values: &[f64]) -> f64 {
    let middle = median(values);
    median(&values.iter().map(|value| (value - middle).abs()).collect::<Vec<f64>>())
}
