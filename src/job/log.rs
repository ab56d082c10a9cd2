//! The log of a job: the frames that its watchers read, in order.
//!
//! The job appends, and every watcher reads at its own pace from its own cursor. Replay and live use the same read,
//! so that no frame is lost between them. The log is bounded. The oldest frames are evicted first. The first and the
//! last failures are evicted only when no other frame is left; the first frame and the final one never are. A slow
//! watcher receives the number of evicted frames.

mod cursor;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

pub use cursor::{Batch, Cursor};
pub use memory::LogMemory;

use crate::core::domain::event::StepStatus;
use crate::core::wire::sse::frame::{Frame, FrameName};
use crate::ledger::{LoggedFrame, Timestamp};

impl LoggedFrame {
    /// Returns whether it is the first frame, or one that ends the stream. These are never evicted.
    fn is_permanent(&self) -> bool {
        self.sequence == FIRST || matches!(self.frame.name, FrameName::Error | FrameName::Complete)
    }

    /// Returns whether it is a failed step of a run that continues.
    fn is_failure(&self) -> bool {
        self.frame.name == FrameName::Step(StepStatus::Failed)
    }

    /// The memory of the frame, in bytes.
    fn size(&self) -> usize {
        size_of::<Self>() + ALLOCATION + self.frame.size()
    }
}

/// The number of the first frame.
pub const FIRST: u64 = 1;
/// The overhead of a frame beyond its bytes and its slot in the log, in bytes: the reference count and the rounding
/// of the allocator.
const ALLOCATION: usize = 64;
/// How many of the first failures, and of the last ones, are kept longer than other frames.
const MAX_FAILURES: usize = 64;

/// An append-only, bounded log of encoded frames.
#[derive(Debug)]
pub struct JobLog {
    frames: Mutex<LogFrames>,
    state: watch::Sender<LogState>,
    /// The size of `frames`, readable without their lock when a log to evict from is chosen.
    size: AtomicUsize,
    limit: usize,
    memory: Arc<LogMemory>,
    /// The positions of the cursors.
    cursors: Mutex<Vec<Weak<AtomicU64>>>,
}

/// The remaining frames of a log. Each part is ordered by number.
#[derive(Debug)]
struct LogFrames {
    progress: VecDeque<LoggedFrame>,
    /// The failures after the first [`MAX_FAILURES`]. The last [`MAX_FAILURES`] of them are evicted only after all
    /// other frames.
    failures: VecDeque<LoggedFrame>,
    /// The first frame, the first failures, and the final frame.
    permanent: Vec<LoggedFrame>,
    /// The number of the next frame.
    next: u64,
    /// No frame from this number on is evicted.
    frontier: u64,
    /// How many failures were appended.
    failed: u64,
    /// How many failures were evicted.
    failures_evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct LogState {
    /// The number of the next frame.
    next: u64,
    ended: bool,
}

impl JobLog {
    /// Creates an empty log of at most `limit` bytes, which count against `memory`.
    pub fn new(limit: usize, memory: Arc<LogMemory>) -> Arc<Self> {
        let log = Arc::new(Self {
            frames: Mutex::new(LogFrames::new()),
            state: watch::Sender::new(LogState { next: FIRST, ended: false }),
            size: AtomicUsize::new(0),
            limit,
            memory: Arc::clone(&memory),
            cursors: Mutex::default(),
        });
        memory.add(&log);
        log
    }

    /// Assigns numbers to frames before they are appended. There is a single writer.
    pub fn assign_sequence(&self, frames: Vec<Frame>, at: Timestamp) -> Vec<LoggedFrame> {
        let next = self.frames().next;
        (next..).zip(frames).map(|(sequence, frame)| LoggedFrame { sequence, at, frame }).collect()
    }

    /// Appends frames numbered by [`JobLog::assign_sequence`].
    pub fn append(&self, new: Vec<LoggedFrame>) {
        if new.is_empty() {
            return;
        }
        let next = {
            let mut frames = self.frames();
            self.grow(new.iter().map(LoggedFrame::size).sum());
            for frame in new {
                debug_assert_eq!(
                    frame.sequence, frames.next,
                    "frames are appended in the order of their numbers"
                );
                frames.push(frame);
            }
            let excess = self.size().saturating_sub(self.limit);
            self.evict(&mut frames, excess);
            frames.next
        };
        self.memory.make_room();
        self.state.send_modify(|state| state.next = next);
    }

    /// Marks the log as complete, and wakes its watchers.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Returns whether the log is complete.
    pub fn has_ended(&self) -> bool {
        self.state.borrow().ended
    }

    /// The number of the last frame. `None` if there is none.
    pub fn last(&self) -> Option<u64> {
        Some(self.state.borrow().next - 1).filter(|last| *last >= FIRST)
    }

    /// The last frames after the number `after`, at most `limit` of them, without their payloads.
    pub fn tail(&self, after: u64, limit: usize) -> Vec<LoggedFrame> {
        let frames = self.frames();
        let newer = frames.backwards().take_while(|frame| frame.sequence > after);
        let mut tail: Vec<LoggedFrame> = newer.take(limit).map(LoggedFrame::without_payload).collect();
        tail.reverse();
        tail
    }

    /// A cursor at the frame numbered `next`.
    pub fn watch(self: &Arc<Self>, next: u64) -> Cursor {
        Cursor::new(Arc::clone(self), next, self.state.subscribe())
    }

    /// How many frames the slowest cursor is behind.
    pub fn lag(&self) -> u64 {
        let next = self.state.borrow().next;
        let cursors = self.cursors();
        let slowest =
            cursors.iter().filter_map(Weak::upgrade).map(|position| position.load(Ordering::Relaxed)).min();
        slowest.map_or(0, |slowest| next.saturating_sub(slowest))
    }

    /// The positions of its live cursors.
    fn cursors(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        let mut cursors = self.cursors.lock();
        cursors.retain(|position| position.strong_count() > 0);
        cursors
    }

    /// The memory of the log, in bytes.
    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    fn frames(&self) -> MutexGuard<'_, LogFrames> {
        self.frames.lock()
    }

    fn grow(&self, by: usize) {
        self.size.fetch_add(by, Ordering::Relaxed);
        self.memory.grow(by);
    }

    /// Evicts frames until `excess` bytes are free, or only permanent frames are left. Returns the freed bytes.
    fn evict(&self, frames: &mut LogFrames, excess: usize) -> usize {
        let mut freed = 0;
        while freed < excess {
            let Some(dropped) = frames.pop() else { break };
            freed += dropped.size();
        }
        self.size.fetch_sub(freed, Ordering::Relaxed);
        self.memory.shrink(freed);
        freed
    }

    fn evict_oldest(&self, excess: usize) -> usize {
        self.evict(&mut self.frames(), excess)
    }
}

impl Drop for JobLog {
    fn drop(&mut self) {
        self.memory.shrink(self.size());
    }
}

impl LogFrames {
    const fn new() -> Self {
        Self {
            progress: VecDeque::new(),
            failures: VecDeque::new(),
            permanent: Vec::new(),
            next: FIRST,
            frontier: FIRST,
            failed: 0,
            failures_evicted: 0,
        }
    }

    fn push(&mut self, frame: LoggedFrame) {
        self.next = frame.sequence + 1;
        let is_failure = frame.is_failure();
        self.failed += u64::from(is_failure);
        if frame.is_permanent() || is_failure && self.failed <= MAX_FAILURES as u64 {
            self.permanent.push(frame);
        } else if is_failure {
            self.failures.push_back(frame);
        } else {
            self.progress.push_back(frame);
        }
    }

    /// Removes the frame of the lowest value: the oldest of the progress frames and the unprotected failures, and
    /// then the protected failure nearest to the middle.
    fn pop(&mut self) -> Option<LoggedFrame> {
        let progress = self.progress.front().map(|frame| frame.sequence);
        let failure = self.failures.front().map(|frame| frame.sequence);
        let failure = failure.filter(|_| self.failures.len() > MAX_FAILURES);
        let frame = match (progress, failure) {
            (None, None) => self.pop_protected(),
            (Some(progress), Some(failure)) if failure < progress => self.failures.pop_front(),
            (Some(_), _) => self.progress.pop_front(),
            (None, Some(_)) => self.failures.pop_front(),
        }?;
        self.frontier = self.frontier.max(frame.sequence + 1);
        self.failures_evicted += u64::from(frame.is_failure());
        Some(frame)
    }

    /// Removes the last of the first failures, or the first of the last ones, so that both groups keep the same size.
    fn pop_protected(&mut self) -> Option<LoggedFrame> {
        let first = self.permanent.iter().filter(|frame| !frame.is_permanent()).count();
        if first < self.failures.len() {
            return self.failures.pop_front();
        }
        let last = self.permanent.iter().rposition(|frame| !frame.is_permanent())?;
        Some(self.permanent.remove(last))
    }

    /// The remaining frames from the number `from`, in order.
    fn forwards(&self, from: u64) -> impl Iterator<Item = &LoggedFrame> {
        let progress = self.progress.partition_point(|frame| frame.sequence < from);
        let failures = self.failures.partition_point(|frame| frame.sequence < from);
        let permanent = self.permanent.partition_point(|frame| frame.sequence < from);
        let precedes = |a: &LoggedFrame, b: &LoggedFrame| a.sequence < b.sequence;
        let all_failures =
            merge(self.failures.range(failures..), self.permanent[permanent..].iter(), precedes);
        merge(self.progress.range(progress..), all_failures, precedes)
    }

    /// The remaining frames in reverse order.
    fn backwards(&self) -> impl Iterator<Item = &LoggedFrame> {
        let precedes = |a: &LoggedFrame, b: &LoggedFrame| a.sequence > b.sequence;
        let all_failures = merge(self.failures.iter().rev(), self.permanent.iter().rev(), precedes);
        merge(self.progress.iter().rev(), all_failures, precedes)
    }

    /// How many frames from `from` up to, but not including, `to` were evicted.
    fn evicted(&self, from: u64, to: u64) -> u64 {
        let to = to.min(self.frontier);
        if from >= to {
            return 0;
        }
        let left = self.before(to) - self.before(from);
        to - from - left as u64
    }

    /// How many frames before `sequence` remain.
    fn before(&self, sequence: u64) -> usize {
        self.progress.partition_point(|frame| frame.sequence < sequence)
            + self.failures.partition_point(|frame| frame.sequence < sequence)
            + self.permanent.partition_point(|frame| frame.sequence < sequence)
    }
}

/// Merges two ordered sequences.
fn merge<'a>(
    one: impl Iterator<Item = &'a LoggedFrame>,
    other: impl Iterator<Item = &'a LoggedFrame>,
    precedes: fn(&LoggedFrame, &LoggedFrame) -> bool,
) -> impl Iterator<Item = &'a LoggedFrame> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(a), Some(b)) if precedes(a, b) => one.next(),
        (_, Some(_)) => other.next(),
        (_, None) => one.next(),
    })
}
