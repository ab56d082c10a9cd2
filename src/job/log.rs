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
    end: Option<End>,
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With its last frame.
    Whole,
    /// In the middle: nobody will write its last frame.
    Cut,
}

/// A log that ended in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job ended without its last frame")]
pub struct Cut;

/// How much is given at once, in bytes: whole frames, and at least one.
const AT_ONCE: usize = 64 * 1024;

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
        self.state.send_modify(|state| state.end = Some(End::Whole));
    }

    /// Tells the watchers that the job is gone in the middle.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.end = Some(End::Cut));
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
    /// The next frames, with the number of the first one; waits for at least one. `None` when the log has
    /// ended and everything was given.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Cut`] when everything was given that there is, and the end will never come.
    pub async fn next(&mut self) -> Result<Option<(usize, Vec<Bytes>)>, Cut> {
        let next = self.next;
        let state = *self
            .state
            .wait_for(|state| state.length > next || state.end.is_some())
            .await
            .map_err(|_| Cut)?;
        if state.length == next {
            return if state.end == Some(End::Cut) { Err(Cut) } else { Ok(None) };
        }
        let mut size = 0;
        let frames: Vec<Bytes> = self.log.frames.lock().unwrap_or_else(PoisonError::into_inner)[next..]
            .iter()
            .take_while(|frame| {
                let fits = size == 0 || size + frame.len() <= AT_ONCE;
                size += frame.len();
                fits
            })
            .cloned()
            .collect();
        self.next = next + frames.len();
        Ok(Some((next, frames)))
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
        assert_eq!(early.next().await, Ok(Some((0, frames(&["a"])))));
        log.append(frames(&["b", "c"]));
        let mut late = log.watch();
        log.end();
        assert_eq!(late.next().await, Ok(Some((0, frames(&["a", "b", "c"])))));
        assert_eq!(early.next().await, Ok(Some((1, frames(&["b", "c"])))));
        assert_eq!(early.next().await, Ok(None));
        assert_eq!(late.next().await, Ok(None));
    }

    #[tokio::test]
    async fn a_watcher_waits_for_what_has_not_come() {
        let log = Arc::new(Log::default());
        let mut cursor = log.watch();
        let (got, ()) = tokio::join!(cursor.next(), async { log.append(frames(&["a"])) });
        assert_eq!(got, Ok(Some((0, frames(&["a"])))));
    }

    #[tokio::test]
    async fn a_log_that_was_cut_never_looks_whole() {
        let log = Arc::new(Log::default());
        let mut cursor = log.watch();
        log.append(frames(&["a"]));
        log.cut();
        assert_eq!(cursor.next().await, Ok(Some((0, frames(&["a"])))));
        assert_eq!(cursor.next().await, Err(Cut));
    }

    #[tokio::test]
    async fn a_watcher_that_is_behind_gets_whole_frames_in_pieces_of_bounded_size() {
        let log = Arc::new(Log::default());
        let frame = Bytes::from(vec![b'x'; AT_ONCE / 2]);
        log.append([frame.clone(), frame.clone(), frame.clone(), Bytes::from(vec![b'y'; 2 * AT_ONCE])]);
        log.end();
        let mut cursor = log.watch();
        let mut counts = Vec::new();
        while let Some((_, frames)) = cursor.next().await.unwrap() {
            counts.push(frames.len());
        }
        assert_eq!(counts, [2, 1, 1]);
    }
}
