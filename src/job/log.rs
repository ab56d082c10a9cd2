//! The log of a job: what its readers are given, in order.
//!
//! The job appends, every watcher reads at its own pace from its own cursor. Replay and live are the
//! same read, so that nothing falls between them, and frames are shared, never copied. The log is
//! bounded: the oldest progress goes first, what failed and how it ended never goes, and a watcher that
//! was behind is told how much it has missed.

mod cursor;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::watch;

pub use cursor::{Batch, Cursor};
pub use memory::Memory;

use crate::core::event::Status;
use crate::core::sse::{Frame, FrameName};
use crate::core::traffic::FrameType;
use crate::ledger::Timestamp;

/// One frame of a log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its number; the first one has 1.
    pub sequence: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What it is.
    pub name: FrameName,
    /// Its bytes.
    pub bytes: Bytes,
    /// The same with the backend's own account of the object, if it was kept, or with the whole result.
    pub with_payload: Option<Bytes>,
}

impl Logged {
    /// Whether it stays whatever happens: how it began, what failed, and how it ended.
    fn is_kept(&self) -> bool {
        self.sequence == FIRST
            || matches!(self.name, FrameName::Step(Status::Failed) | FrameName::Error | FrameName::Complete)
    }

    /// The memory that it takes.
    fn size(&self) -> usize {
        size_of::<Self>() + ALLOCATION + self.bytes.len() + self.with_payload.as_ref().map_or(0, Bytes::len)
    }
}

impl From<&Logged> for FrameType {
    fn from(frame: &Logged) -> Self {
        frame.name.into()
    }
}

/// The number of the first frame.
pub const FIRST: u64 = 1;
/// What a frame takes beside its bytes and its place in the log: the count of its owners, and what the
/// allocator rounds up to.
const ALLOCATION: usize = 64;

/// An append-only, bounded log of encoded frames.
#[derive(Debug)]
pub struct Log {
    frames: Mutex<Frames>,
    state: watch::Sender<State>,
    /// What `frames` takes, for whoever looks for a log to shorten.
    size: AtomicUsize,
    limit: usize,
    memory: Arc<Memory>,
    /// The places of the cursors.
    cursors: Mutex<Vec<Weak<AtomicU64>>>,
}

/// What is left of a log. Both parts are in the order of their numbers.
#[derive(Debug)]
struct Frames {
    /// What may go. Everything that may go and is older than the first of these has gone.
    progress: VecDeque<Logged>,
    kept: Vec<Logged>,
    /// The number of the next frame.
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// The number of the next frame.
    next: u64,
    ended: bool,
}

impl Log {
    /// An empty log that takes at most `limit` bytes, as far as it may forget, of those that `memory` has
    /// for all logs.
    pub fn new(limit: usize, memory: Arc<Memory>) -> Arc<Self> {
        let log = Arc::new(Self {
            frames: Mutex::new(Frames { progress: VecDeque::new(), kept: Vec::new(), next: FIRST }),
            state: watch::Sender::new(State { next: FIRST, ended: false }),
            size: AtomicUsize::new(0),
            limit,
            memory: Arc::clone(&memory),
            cursors: Mutex::default(),
        });
        memory.add(&log);
        log
    }

    /// Gives frames the numbers under which they are to be appended. There is one who appends.
    pub fn number(&self, frames: Vec<Frame>, at: Timestamp) -> Vec<Logged> {
        let next = self.frames().next;
        let frames = (next..).zip(frames);
        frames
            .map(|(sequence, Frame { name, bytes, with_payload })| Logged {
                sequence,
                at,
                name,
                bytes,
                with_payload,
            })
            .collect()
    }

    /// Appends frames that [`Log::number`] has numbered.
    pub fn append(&self, new: Vec<Logged>) {
        if new.is_empty() {
            return;
        }
        let next = {
            let mut frames = self.frames();
            for frame in new {
                debug_assert_eq!(
                    frame.sequence, frames.next,
                    "frames are appended in the order of their numbers"
                );
                self.grow(frame.size());
                frames.next = frame.sequence + 1;
                if frame.is_kept() { frames.kept.push(frame) } else { frames.progress.push_back(frame) }
            }
            let excess = self.size().saturating_sub(self.limit);
            self.forget(&mut frames, excess);
            frames.next
        };
        self.memory.make_room();
        self.state.send_modify(|state| state.next = next);
    }

    /// Tells the watchers that nothing more will come.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.state.borrow().ended
    }

    /// The number of the last frame; nothing if there is none.
    pub fn last(&self) -> Option<u64> {
        Some(self.state.borrow().next - 1).filter(|last| *last >= FIRST)
    }

    /// The last frames behind the one with the number `after`, at most `limit` of them.
    pub fn tail(&self, after: u64, limit: usize) -> Vec<Logged> {
        let frames = self.frames();
        let mut tail: Vec<Logged> =
            frames.backwards().take_while(|frame| frame.sequence > after).take(limit).cloned().collect();
        tail.reverse();
        tail
    }

    /// A cursor at the frame with the number `next`.
    pub fn watch(self: &Arc<Self>, next: u64) -> Cursor {
        Cursor::new(Arc::clone(self), next, self.state.subscribe())
    }

    /// How many frames the slowest of its cursors is behind.
    pub fn lag(&self) -> u64 {
        let next = self.state.borrow().next;
        let places = self.cursors();
        let slowest =
            places.iter().filter_map(Weak::upgrade).map(|place| place.load(Ordering::Relaxed)).min();
        slowest.map_or(0, |slowest| next.saturating_sub(slowest))
    }

    /// The places of its cursors, without those that are gone.
    fn cursors(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.retain(|place| place.strong_count() > 0);
        cursors
    }

    /// The memory that it takes.
    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, by: usize) {
        self.size.fetch_add(by, Ordering::Relaxed);
        self.memory.grow(by);
    }

    /// Forgets the oldest progress until `excess` bytes are gone, or there is none. Gives what it freed.
    fn forget(&self, frames: &mut Frames, excess: usize) -> usize {
        let mut freed = 0;
        while freed < excess {
            let Some(oldest) = frames.progress.pop_front() else { break };
            freed += oldest.size();
        }
        self.size.fetch_sub(freed, Ordering::Relaxed);
        self.memory.shrink(freed);
        freed
    }

    fn shorten(&self, excess: usize) -> usize {
        self.forget(&mut self.frames(), excess)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.memory.shrink(self.size());
    }
}

impl Frames {
    /// What is left from the number `from` on, in order.
    fn forwards(&self, from: u64) -> impl Iterator<Item = &Logged> {
        let progress = self.progress.partition_point(|frame| frame.sequence < from);
        let kept = self.kept.partition_point(|frame| frame.sequence < from);
        merge(self.progress.range(progress..), self.kept[kept..].iter(), |a, b| a.sequence < b.sequence)
    }

    /// What is left, the last first.
    fn backwards(&self) -> impl Iterator<Item = &Logged> {
        merge(self.progress.iter().rev(), self.kept.iter().rev(), |a, b| a.sequence > b.sequence)
    }

    /// How many frames between the numbers `from` and `to` are gone, `to` not included.
    fn gone(&self, from: u64, to: u64) -> u64 {
        // Nothing that may go is left before the first progress, and nothing is gone behind it.
        let to = to.min(self.first_progress());
        let kept = self.kept.partition_point(|frame| frame.sequence < to)
            - self.kept.partition_point(|frame| frame.sequence < from.min(to));
        to.saturating_sub(from) - kept as u64
    }

    fn first_progress(&self) -> u64 {
        self.progress.front().map_or(self.next, |frame| frame.sequence)
    }
}

/// Two ordered sequences as one.
fn merge<'a>(
    one: impl Iterator<Item = &'a Logged>,
    other: impl Iterator<Item = &'a Logged>,
    precedes: fn(&Logged, &Logged) -> bool,
) -> impl Iterator<Item = &'a Logged> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(a), Some(b)) if precedes(a, b) => one.next(),
        (_, Some(_)) => other.next(),
        (_, None) => one.next(),
    })
}
