//! Reading files while the bridge serves.
//!
//! A disk may hang for ever, one over the network above all. What reads runs on a thread of its own, and the bridge
//! serves on meanwhile.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

/// How long files may take to be read until that is an error.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What came of reading files.
#[derive(Debug)]
pub(super) enum ReadResult<T> {
    /// This.
    Done(T),
    /// Nothing within [`LIMIT`]. The thread goes on, and what it reads in the end counts for nothing.
    TimedOut,
}

/// A thread that reads files, if there is one.
#[derive(Debug)]
pub(super) enum FileReader<T> {
    /// There is none.
    Idle,
    /// It has until then.
    Reading(JoinHandle<T>, Instant),
    /// It has not come back in time.
    Stuck(JoinHandle<T>),
}

impl<T: Send + 'static> FileReader<T> {
    /// Whether there is no thread.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Whether somebody waits for what it reads.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::Reading(..))
    }

    /// Does `work` on a new thread. There must be none yet.
    pub(super) fn begin(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        *self = Self::Reading(spawn_blocking(work), Instant::now() + READ_TIMEOUT);
    }

    /// What came of it; waits for ever if there is no thread. It may be given up, and asked for again.
    pub(super) async fn read(&mut self) -> ReadResult<T> {
        if let Self::Stuck(thread) = self {
            let _ = thread.await;
            *self = Self::Idle;
        }
        let Self::Reading(thread, limit) = self else { return std::future::pending().await };
        let read = timeout_at(*limit, &mut *thread).await;
        match (read, std::mem::replace(self, Self::Idle)) {
            (Ok(Ok(read)), _) => ReadResult::Done(read),
            (Err(_), Self::Reading(thread, _)) => {
                *self = Self::Stuck(thread);
                ReadResult::TimedOut
            }
            // It broke, which is as little use as if it hung.
            _ => ReadResult::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_one_thread_and_ends_the_wait_at_the_limit() {
        let mut reader = FileReader::Idle;
        let (release, hangs) = mpsc::channel::<()>();
        reader.begin(move || hangs.recv());
        assert!(reader.is_reading());
        tokio::time::advance(READ_TIMEOUT).await;
        assert!(matches!(reader.read().await, ReadResult::TimedOut));
        assert!(!reader.is_idle() && !reader.is_reading(), "the thread is still there");
        let waiting = tokio::time::timeout_at(Instant::now(), reader.read()).await;
        assert!(waiting.is_err(), "what it reads counts for nothing");
        release.send(()).unwrap();
        // Nothing is read then; that it is idle is what the wait is for.
        loop {
            let _ = tokio::time::timeout_at(Instant::now(), reader.read()).await;
            if reader.is_idle() {
                break;
            }
            tokio::task::yield_now().await;
        }
        reader.begin(|| Ok(()));
        assert!(matches!(reader.read().await, ReadResult::Done(Ok(()))));
        assert!(reader.is_idle());
    }
}
