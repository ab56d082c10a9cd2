//! The memory that all logs and their readers have together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use super::JobLog;

/// A bound on the logs of all jobs together. What is on its way to their readers is counted, and takes from them up to
/// half of it; only the number of readers bounds it beyond that.
#[derive(Debug)]
pub struct LogMemory {
    limit: AtomicUsize,
    /// What the logs take.
    logged: AtomicUsize,
    /// What is on its way to readers.
    reserved: AtomicUsize,
    logs: Mutex<Vec<Weak<JobLog>>>,
}

/// How much more than necessary is freed at once, as a part of the limit, so that the logs are not looked
/// through for every frame.
const SLACK: usize = 64;

impl LogMemory {
    /// Memory for `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            logged: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            logs: Mutex::default(),
        })
    }

    /// The bytes that are in use.
    pub fn used(&self) -> usize {
        self.logged.load(Ordering::Relaxed) + self.reserved.load(Ordering::Relaxed)
    }

    /// The bytes that it is for.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// From now on it is for `limit` bytes.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn add(&self, log: &Arc<JobLog>) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|log| log.strong_count() > 0);
        logs.push(Arc::downgrade(log));
    }

    pub(super) fn grow(&self, by: usize) {
        self.logged.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn shrink(&self, by: usize) {
        self.logged.fetch_sub(by, Ordering::Relaxed);
    }

    /// Counts `bytes` on their way to a reader until the reservation is dropped. Must not be called with a log locked.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> ReservedBytes {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        self.make_room();
        ReservedBytes { memory: Arc::clone(self), bytes }
    }

    /// `bytes` on their way to a reader, counted until the last reference to them is dropped. Must not be called with
    /// a log locked.
    pub fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let reserved = self.reserve(bytes.len());
        Bytes::from_owner(HeldBytes { bytes, _reserved: reserved })
    }

    /// The bytes that the logs may take: what the readers leave, but at least half of all, so that readers who stall
    /// do not take the logs away from the others.
    fn limit_of_logs(&self) -> usize {
        let limit = self.limit();
        limit.saturating_sub(self.reserved.load(Ordering::Relaxed)).max(limit / 2)
    }

    /// Shortens logs until the limit holds: those that have ended first, the oldest before the others, then the
    /// longest. None of them loses what is within its fair share. Must not be called with a log locked.
    pub(super) fn make_room(&self) {
        let limit = self.limit_of_logs();
        let logged = self.logged.load(Ordering::Relaxed);
        if logged <= limit {
            return;
        }
        let target = limit - limit / SLACK;
        let mut excess = logged - target;
        let logs: Vec<Arc<JobLog>> = {
            let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.iter().filter_map(Weak::upgrade).collect()
        };
        let share = target / logs.len().max(1);
        let (ended, mut running): (Vec<_>, Vec<_>) = logs.into_iter().partition(|log| log.has_ended());
        running.sort_by_key(|log| std::cmp::Reverse(log.size()));
        for log in ended.into_iter().chain(running) {
            let above_share = log.size().saturating_sub(share);
            if above_share > 0 && excess > 0 {
                excess = excess.saturating_sub(log.evict_oldest(above_share.min(excess)));
            }
        }
    }
}

/// Bytes on their way to a reader, as they are counted.
#[derive(Debug)]
pub struct ReservedBytes {
    memory: Arc<LogMemory>,
    bytes: usize,
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.memory.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct HeldBytes {
    bytes: Bytes,
    _reserved: ReservedBytes,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
