//! A watcher's place in a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::watch;

use super::memory::ReservedBytes;
use super::{FIRST, JobLog, LogState, LoggedFrame};

/// How much is given at once, in bytes: whole frames, and at least one. A reader that stalls holds it.
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// A place in a log.
#[derive(Debug)]
pub struct Cursor {
    log: Arc<JobLog>,
    /// The number of the next frame.
    next: u64,
    /// What has gone before this number was told.
    reported: u64,
    state: watch::Receiver<LogState>,
    /// `next`, for whoever looks how far behind the watcher is.
    position: Arc<AtomicU64>,
}

/// What a watcher is given at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many frames have gone before this watcher could read them, and were not told of before. They
    /// stood before the last one of `frames`.
    pub missed: u64,
    /// How many failures of the job are gone, whoever has missed them.
    pub failures_evicted: u64,
    /// Whole frames in order, and at least one.
    pub frames: Vec<LoggedFrame>,
}

impl Cursor {
    pub(super) fn new(log: Arc<JobLog>, next: u64, state: watch::Receiver<LogState>) -> Self {
        let next = next.max(FIRST);
        let place = Arc::new(AtomicU64::new(next));
        log.cursors().push(Arc::downgrade(&place));
        Self { log, next, reported: next, state, position: place }
    }

    /// The number of the next frame.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next frames; waits for at least one. `None` when the log has ended and everything was given.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Batch> {
        loop {
            let next = self.next;
            // The sender is a part of the log, and so is not gone before this.
            let state = *self.state.wait_for(|state| state.next > next || state.ended).await.ok()?;
            if let Some(batch) = self.read(state.next) {
                return Some(batch);
            }
            if state.ended {
                return None;
            }
            // Everything up to here has gone already; what comes next tells how much that was.
            self.move_to(self.next.max(state.next));
        }
    }

    /// What is left of the frames before the number `end`.
    fn read(&mut self, end: u64) -> Option<Batch> {
        let frames = self.log.frames();
        let mut size = 0;
        let batch: Vec<LoggedFrame> = frames
            .forwards(self.next)
            .take_while(|frame| frame.sequence < end)
            .take_while(|frame| {
                let length = frame.with_payload.as_ref().unwrap_or(&frame.bytes).len();
                let fits = size == 0 || size + length <= MAX_BATCH_BYTES;
                size += length;
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

    /// `bytes` on their way to the reader. They count as memory of the logs until they are sent.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        self.log.memory.hold(bytes)
    }

    /// Counts `bytes` on their way to the reader as memory of the logs until the reservation is dropped.
    pub fn reserve(&self, bytes: usize) -> ReservedBytes {
        self.log.memory.reserve(bytes)
    }

    fn move_to(&mut self, next: u64) {
        self.next = next;
        self.position.store(next, Ordering::Relaxed);
    }
}
