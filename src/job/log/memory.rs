//! The memory that all logs have together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Log;

/// A bound on the logs of all jobs together.
#[derive(Debug)]
pub struct Memory {
    limit: AtomicUsize,
    used: AtomicUsize,
    logs: Mutex<Vec<Weak<Log>>>,
}

/// How much more than necessary is freed at once, as a part of the limit, so that the logs are not looked
/// through for every frame.
const SLACK: usize = 64;

impl Memory {
    /// Memory for `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0), logs: Mutex::default() })
    }

    /// The bytes that are in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The bytes that it is for.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// From now on it is for `limit` bytes.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn add(&self, log: &Arc<Log>) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|log| log.strong_count() > 0);
        logs.push(Arc::downgrade(log));
    }

    pub(super) fn grow(&self, by: usize) {
        self.used.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn shrink(&self, by: usize) {
        self.used.fetch_sub(by, Ordering::Relaxed);
    }

    /// Shortens logs until the limit holds, or nothing is left that may go: those that have ended first, the
    /// oldest before the others, then the longest. Must not be called with a log locked.
    pub(super) fn make_room(&self) {
        let limit = self.limit();
        let mut excess = self.used().saturating_sub(limit);
        if excess == 0 {
            return;
        }
        excess += limit / SLACK;
        let logs: Vec<Arc<Log>> = {
            let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.iter().filter_map(Weak::upgrade).collect()
        };
        let (ended, mut running): (Vec<_>, Vec<_>) = logs.into_iter().partition(|log| log.has_ended());
        running.sort_by_key(|log| std::cmp::Reverse(log.size()));
        for log in ended.into_iter().chain(running) {
            excess = excess.saturating_sub(log.shorten(excess));
            if excess == 0 {
                return;
            }
        }
    }
}
