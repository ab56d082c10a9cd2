//! Limits identical log lines to one a second. The next line states how many lines it stands for.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Event;
use tracing::field::{Field, Visit};

use crate::telemetry::throttle::Throttle;

/// The maximum number of different lines that are limited at a time. Others are written as they come.
const MAX_LINES: usize = 1024;
/// The minimum time between two searches for lines that need no limit any more. Each visits all lines.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The lines of the last second.
#[derive(Default)]
pub(super) struct Repeats {
    lines: Mutex<LimitedLines>,
    hashes: RandomState,
}

#[derive(Default)]
struct LimitedLines {
    /// By the hash of what makes lines identical.
    by_hash: HashMap<u64, Throttle<String>>,
    /// When there was last no room for another.
    swept: Option<Instant>,
}

impl Repeats {
    /// Adds `line`, written for `event` in the job with the fields `job`. Returns the line to write, if one is due, and
    /// the number of lines that it stands for. Lines of two requests are identical, whatever the ids of these.
    pub(super) fn add(
        &self,
        now: Instant,
        event: &Event<'_>,
        job: Option<&str>,
        line: String,
    ) -> Option<(u64, String)> {
        let mut hasher = EventHasher(self.hashes.build_hasher());
        event.metadata().callsite().hash(&mut hasher.0);
        job.hash(&mut hasher.0);
        event.record(&mut hasher);
        self.add_keyed(now, hasher.0.finish(), line)
    }

    fn add_keyed(&self, now: Instant, key: u64, line: String) -> Option<(u64, String)> {
        let LimitedLines { by_hash, swept } = &mut *self.lines.lock();
        if by_hash.len() >= MAX_LINES && !by_hash.contains_key(&key) {
            if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL) {
                *swept = Some(now);
                by_hash.retain(|_, line| !line.is_idle(now));
            }
            if by_hash.len() >= MAX_LINES {
                return Some((1, line));
            }
        }
        by_hash.entry(key).or_default().add(now, line)
    }

    /// The lines that are due at `now`, each with the number of lines that it stands for.
    pub(super) fn flush(&self, now: Instant) -> Vec<(u64, String)> {
        let mut due = Vec::new();
        self.lines.lock().by_hash.retain(|_, line| {
            due.extend(line.flush(now));
            !line.is_idle(now)
        });
        due
    }
}

/// Hashes the fields of an event.
struct EventHasher(DefaultHasher);

impl fmt::Write for EventHasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Visit for EventHasher {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Hashing does not fail.
        let _ = writeln!(self, "{}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_lines_are_limited_than_there_is_room_for_and_none_is_lost() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let add = |at: Duration, key: usize| repeats.add_keyed(now + at, key as u64, key.to_string());
        let soon = Duration::from_millis(500);
        for key in 0..MAX_LINES {
            assert_eq!(add(Duration::ZERO, key), Some((1, key.to_string())));
            assert_eq!(add(soon, key), None);
        }
        for _ in 0..2 {
            assert_eq!(add(soon, MAX_LINES), Some((1, MAX_LINES.to_string())), "there is no room");
        }
        assert!(repeats.flush(now + soon).is_empty());
        let later = Duration::from_secs(1);
        assert_eq!(repeats.flush(now + later).len(), MAX_LINES);
        assert_eq!(add(later, 7), None, "the line that was just written was the one of this second");
        assert_eq!(repeats.flush(now + 3 * later), [(1, "7".to_owned())]);
        assert!(repeats.flush(now + 9 * later).is_empty());
        assert!(repeats.lines.lock().by_hash.is_empty());
    }
}
