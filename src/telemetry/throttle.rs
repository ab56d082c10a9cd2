//! Throttles log lines that peers can cause at will: at most one a second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The minimum time between two lines.
const PERIOD: Duration = Duration::from_secs(1);

/// Passes one event a second, and counts those that it suppresses.
#[derive(Debug)]
pub(super) struct Throttle<T>(Mutex<Window<T>>);

#[derive(Debug)]
struct Window<T> {
    /// When the last line was written.
    last: Option<Instant>,
    /// The number of events without a line yet, and the newest of them.
    suppressed: Option<(u64, T)>,
}

impl<T> Default for Throttle<T> {
    fn default() -> Self {
        Self(Mutex::new(Window { last: None, suppressed: None }))
    }
}

impl<T> Throttle<T> {
    /// Adds an event at the time `now`. If a line is due, returns the number of events that it is for, and the newest
    /// of them.
    pub(super) fn add(&self, now: Instant, event: T) -> Option<(u64, T)> {
        let mut window = self.0.lock();
        let count = window.suppressed.take().map_or(0, |(count, _)| count) + 1;
        window.suppressed = Some((count, event));
        window.line(now)
    }

    /// Whether no event is suppressed, and the next one at `now` gets a line.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let window = self.0.lock();
        window.suppressed.is_none() && window.is_open(now)
    }

    /// The line for the suppressed events, if one is due at `now`.
    pub(super) fn flush(&self, now: Instant) -> Option<(u64, T)> {
        self.0.lock().line(now)
    }
}

impl<T> Window<T> {
    /// Whether the last line was long enough ago.
    fn is_open(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= PERIOD)
    }

    fn line(&mut self, now: Instant) -> Option<(u64, T)> {
        if !self.is_open(now) {
            return None;
        }
        let line = self.suppressed.take()?;
        self.last = Some(now);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_second_and_every_event_is_counted_in_one() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(throttle.add(at(0), "first"), Some((1, "first")));
        for millis in 1..=500 {
            assert_eq!(throttle.add(at(millis), "more"), None);
        }
        assert_eq!(throttle.flush(at(999)), None);
        assert_eq!(throttle.add(at(1000), "last"), Some((501, "last")));
        assert_eq!(throttle.add(at(1001), "late"), None);
        assert_eq!(throttle.flush(at(2000)), Some((1, "late")));
        assert_eq!(throttle.flush(at(9000)), None, "there is nothing to say");
        assert_eq!(throttle.add(at(9001), "again"), Some((1, "again")));
    }
}
