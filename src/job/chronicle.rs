//! Writes down what becomes of a job.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};

use super::handle::Job;
use super::log::Logged;
use crate::ledger::{Entry, Ledger, StoredFrame, Unavailable};

/// How often the progress of a job is written at most.
const PACE: Duration = Duration::from_secs(1);

/// The hand that writes the record of one job.
pub(super) struct Chronicle {
    ledger: Arc<dyn Ledger>,
    job: Arc<Job>,
    /// How long to wait for what must be on disk.
    limit: Duration,
    /// How many of the last frames are kept.
    frames: usize,
    /// The number of the last frame that was written.
    written: u64,
    last: Instant,
    /// There is something to write.
    due: bool,
    writing: Option<BoxFuture<'static, Result<(), Unavailable>>>,
}

impl Chronicle {
    pub(super) fn new(ledger: Arc<dyn Ledger>, job: Arc<Job>, limit: Duration, frames: usize) -> Self {
        let last = Instant::now();
        Self { ledger, job, limit, frames, written: 0, last, due: false, writing: None }
    }

    /// Notes that there is something new, to be written when it is time.
    pub(super) fn note(&mut self) {
        self.due = true;
    }

    /// Done when it is time to write. Dropping the future loses nothing.
    pub(super) async fn due(&mut self) {
        if let Some(writing) = &mut self.writing {
            // What could not be written is kept by the ledger, which tells about it too.
            let _ = writing.await;
            self.writing = None;
        }
        if !self.due {
            std::future::pending::<()>().await;
        }
        sleep_until(self.last + PACE).await;
    }

    /// Begins to write the record as it is now; whoever waits for [`Chronicle::due`] moves it on.
    pub(super) fn write(&mut self) {
        let entry = self.entry(&[]);
        self.writing = Some(self.ledger.put(entry));
        self.due = false;
        self.last = Instant::now();
    }

    /// Writes the record as it is now, with frames that are about to be appended, and waits until it is on
    /// disk, or cannot be.
    pub(super) async fn keep(&mut self, coming: &[Logged]) {
        // Of two that are being written, the newer one counts.
        self.writing = None;
        let entry = self.entry(coming);
        let put = self.ledger.put(entry);
        self.last = Instant::now();
        self.due = false;
        // Also then, the ledger keeps it and tells about it; the job must go on.
        let _ = timeout(self.limit, put).await;
    }

    fn entry(&mut self, coming: &[Logged]) -> Entry {
        let coming = &coming[coming.len().saturating_sub(self.frames)..];
        let mut frames: Vec<StoredFrame> =
            self.job.log.tail(self.written, self.frames - coming.len()).iter().map(stored).collect();
        frames.extend(coming.iter().map(stored));
        self.written = frames.last().map_or(self.written, |frame| frame.sequence);
        Entry { record: self.job.record(), frames }
    }
}

fn stored(frame: &Logged) -> StoredFrame {
    StoredFrame { sequence: frame.sequence, at: frame.at, bytes: frame.bytes.clone() }
}
