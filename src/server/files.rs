//! Reading files while the bridge serves.
//!
//! A disk may hang forever, above all a network file system. Files are read on a separate thread, so that the bridge
//! serves on.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

/// How long reading files may take before it is an error.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The files were not read within [`READ_TIMEOUT`]. The thread continues, and its result is dropped.
#[derive(Debug)]
pub(super) struct ReadTimedOut;

/// A thread that reads files, if there is one.
#[derive(Debug, Default)]
pub(super) enum FileReader<T> {
    /// There is no thread.
    #[default]
    Idle,
    /// The thread has until this deadline.
    Reading(JoinHandle<T>, Instant),
    /// The thread missed its deadline.
    Stuck(JoinHandle<T>),
}

impl<T: Send + 'static> FileReader<T> {
    /// Returns whether there is no thread.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Returns whether a result is awaited.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::Reading(..))
    }

    /// Runs `work` on a new thread. There must be none yet.
    pub(super) fn begin(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        *self = Self::Reading(spawn_blocking(work), Instant::now() + READ_TIMEOUT);
    }

    /// Waits for the result; pends forever if there is no thread. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<T, ReadTimedOut> {
        if let Self::Stuck(thread) = self {
            let _ = thread.await;
            *self = Self::Idle;
        }
        let Self::Reading(thread, limit) = self else { return std::future::pending().await };
        let read = timeout_at(*limit, &mut *thread).await;
        match (read, std::mem::take(self)) {
            (Ok(Ok(read)), _) => Ok(read),
            (Err(_), Self::Reading(thread, _)) => {
                *self = Self::Stuck(thread);
                Err(ReadTimedOut)
            }
            // The thread panicked, which is handled like a hang.
            _ => Err(ReadTimedOut),
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
        assert!(matches!(reader.read().await, Err(ReadTimedOut)));
        assert!(!reader.is_idle() && !reader.is_reading(), "the thread is still there");
        let waiting = tokio::time::timeout_at(Instant::now(), reader.read()).await;
        assert!(waiting.is_err(), "what it reads counts for nothing");
        release.send(()).unwrap();
        // There is nothing to read; the loop waits for the thread to become idle.
        loop {
            let _ = tokio::time::timeout_at(Instant::now(), reader.read()).await;
            if reader.is_idle() {
                break;
            }
            tokio::task::yield_now().await;
        }
        reader.begin(|| Ok(()));
        assert!(matches!(reader.read().await, Ok(Ok(()))));
        assert!(reader.is_idle());
    }
}
