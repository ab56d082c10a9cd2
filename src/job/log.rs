//! The log of a job: what its readers are given, in order.
//!
//! The job appends, every watcher reads at its own pace from its own cursor. Replay and live are the
//! same read, so that nothing falls between them, and frames are shared, never copied.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

/// An append-only log of encoded frames.
#[derive(Debug)]
pub struct Log {
    frames: Mutex<Vec<Bytes>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    length: usize,
    ended: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { frames: Mutex::default(), state: watch::Sender::new(State::default()) }
    }
}

impl Log {
    /// Appends frames.
    pub fn append(&self, new: impl IntoIterator<Item = Bytes>) {
        let length = {
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            frames.extend(new);
            frames.len()
        };
        self.state.send_if_modified(|state| std::mem::replace(&mut state.length, length) != length);
    }

    /// Tells the watchers that nothing more will come.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// A cursor at the first frame.
    pub fn watch(self: &Arc<Self>) -> Cursor {
        Cursor { log: Arc::clone(self), next: 0, state: self.state.subscribe() }
    }
}

/// A place in a log.
#[derive(Debug)]
pub struct Cursor {
    log: Arc<Log>,
    next: usize,
    state: watch::Receiver<State>,
}

impl Cursor {
    /// The frames that have come since the last call, with the number of the first one; waits for at
    /// least one. `None` when the log has ended and everything was given.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(usize, Vec<Bytes>)> {
        let next = self.next;
        let state = *self.state.wait_for(|state| state.length > next || state.ended).await.ok()?;
        if state.length == next {
            return None;
        }
        let frames = self.log.frames.lock().unwrap_or_else(PoisonError::into_inner)[next..].to_vec();
        self.next = next + frames.len();
        Some((next, frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[tokio::test]
    async fn a_watcher_gets_everything_once_however_late_it_comes() {
        let log = Arc::new(Log::default());
        let mut early = log.watch();
        log.append(frames(&["a"]));
        assert_eq!(early.next().await, Some((0, frames(&["a"]))));
        log.append(frames(&["b", "c"]));
        let mut late = log.watch();
        log.end();
        assert_eq!(late.next().await, Some((0, frames(&["a", "b", "c"]))));
        assert_eq!(early.next().await, Some((1, frames(&["b", "c"]))));
        assert_eq!(early.next().await, None);
        assert_eq!(late.next().await, None);
    }

    #[tokio::test]
    async fn a_watcher_waits_for_what_has_not_come() {
        let log = Arc::new(Log::default());
        let mut cursor = log.watch();
        let (got, ()) = tokio::join!(cursor.next(), async { log.append(frames(&["a"])) });
        assert_eq!(got, Some((0, frames(&["a"]))));
    }
}
