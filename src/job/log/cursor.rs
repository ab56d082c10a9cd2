//! The position of a watcher in a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::watch;

use super::memory::ReservedBytes;
use super::{FIRST, JobLog, LogState};
use crate::ledger::LoggedFrame;

/// The maximum size of a batch, in bytes. A batch holds whole frames, and at least one. A stalled reader retains it.
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// A position in a log.
#[derive(Debug)]
pub struct Cursor {
    log: Arc<JobLog>,
    /// The number of the next frame.
    next: u64,
    /// Evicted frames before this number have been reported.
    reported: u64,
    state: watch::Receiver<LogState>,
    /// `next`, shared with the log to measure the lag.
    position: Arc<AtomicU64>,
}

/// Frames that a watcher receives together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many frames were evicted before this watcher read them, and were not reported yet. All of them precede the
    /// last of `frames`.
    pub missed: u64,
    /// How many failures of the job were evicted, whether or not this watcher missed them.
    pub failures_evicted: u64,
    /// Whole frames in order, at least one.
    pub frames: Vec<LoggedFrame>,
}

impl Cursor {
    pub(super) fn new(log: Arc<JobLog>, next: u64, state: watch::Receiver<LogState>) -> Self {
        let next = next.max(FIRST);
        let position = Arc::new(AtomicU64::new(next));
        log.cursors().push(Arc::downgrade(&position));
        Self { log, next, reported: next, state, position }
    }

    /// The number of the next frame.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Waits for the next frames, at least one. `None` when the log is complete and all of it was read.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Batch> {
        loop {
            let next = self.next;
            // The sender is a field of the log, which outlives this call.
            let state = *self.state.wait_for(|state| state.next > next || state.ended).await.ok()?;
            if let Some(batch) = self.read(state.next) {
                return Some(batch);
            }
            if state.ended {
                return None;
            }
            // All frames up to here were evicted. The next batch reports how many.
            self.move_to(self.next.max(state.next));
        }
    }

    /// Reads the remaining frames before the number `end`.
    fn read(&mut self, end: u64) -> Option<Batch> {
        let frames = self.log.frames();
        let mut size = 0;
        let batch: Vec<LoggedFrame> = frames
            .forwards(self.next)
            .take_while(|frame| frame.sequence < end)
            .take_while(|frame| {
                let fits = size == 0 || size + frame.frame.size() <= MAX_BATCH_BYTES;
                size += frame.frame.size();
                fits
            })
            .cloned()
            .collect();
        let last = batch.last()?.sequence;
        let missed = frames.evicted(self.reported, last);
        self.reported = self.reported.max(last + 1);
        let failures_gone = frames.failures_evicted;
        drop(frames);
        self.move_to(last + 1);
        Some(Batch { missed, failures_evicted: failures_gone, frames: batch })
    }

    /// Wraps `bytes` on their way to the reader. They count as log memory until they are sent.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        self.log.memory.hold(bytes)
    }

    /// Counts `bytes` on their way to the reader as log memory until the reservation is dropped.
    pub fn reserve(&self, bytes: usize) -> ReservedBytes {
        self.log.memory.reserve(bytes)
    }

    fn move_to(&mut self, next: u64) {
        self.next = next;
        self.position.store(next, Ordering::Relaxed);
    }
}
