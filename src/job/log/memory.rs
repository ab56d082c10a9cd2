//! The memory that all logs and their readers share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::JobLog;

/// A memory limit for the logs of all jobs together. Bytes in flight to readers count too, and reduce the share of
/// the logs by up to half. Beyond that, only the number of readers bounds them.
#[derive(Debug)]
pub struct LogMemory {
    limit: AtomicUsize,
    /// The bytes of the logs.
    logged: AtomicUsize,
    /// The bytes in flight to readers.
    reserved: AtomicUsize,
    logs: Mutex<Vec<Weak<JobLog>>>,
}

/// The extra amount freed on eviction, as a fraction of the limit, so that the logs are not searched for every frame.
const SLACK: usize = 64;

impl LogMemory {
    /// Creates a limit of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            logged: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            logs: Mutex::default(),
        })
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.logged.load(Ordering::Relaxed) + self.reserved.load(Ordering::Relaxed)
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit to `limit` bytes.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn add(&self, log: &Arc<JobLog>) {
        let mut logs = self.logs.lock();
        logs.retain(|log| log.strong_count() > 0);
        logs.push(Arc::downgrade(log));
    }

    pub(super) fn grow(&self, by: usize) {
        self.logged.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn shrink(&self, by: usize) {
        self.logged.fetch_sub(by, Ordering::Relaxed);
    }

    /// Counts `bytes` in flight to a reader until the reservation is dropped. Must not be called with a log locked.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> ReservedBytes {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        self.make_room();
        ReservedBytes { memory: Arc::clone(self), bytes }
    }

    /// Counts `bytes` in flight to a reader until their last reference is dropped. Must not be called with a log
    /// locked.
    pub fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let reserved = self.reserve(bytes.len());
        Bytes::from_owner(HeldBytes { bytes, _reserved: reserved })
    }

    /// The limit for the logs: what the readers leave, but at least half of the whole, so that stalled readers do not
    /// evict the logs of others.
    fn limit_of_logs(&self) -> usize {
        let limit = self.limit();
        limit.saturating_sub(self.reserved.load(Ordering::Relaxed)).max(limit / 2)
    }

    /// Evicts from logs until the limit holds: from ended jobs first, the oldest first, then from the longest log. No
    /// log falls below its fair share. Must not be called with a log locked.
    pub(super) fn make_room(&self) {
        let limit = self.limit_of_logs();
        let logged = self.logged.load(Ordering::Relaxed);
        if logged <= limit {
            return;
        }
        let target = limit - limit / SLACK;
        let mut excess = logged - target;
        let logs: Vec<Arc<JobLog>> = {
            let logs = self.logs.lock();
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

/// A count of bytes in flight to a reader.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_log_leaves_nothing_behind() {
        let memory = LogMemory::new(1024);
        for _ in 0..3 {
            drop(JobLog::new(1024, Arc::clone(&memory)));
        }
        assert_eq!(memory.logs.lock().len(), 1, "until the next one is added");
    }
}
