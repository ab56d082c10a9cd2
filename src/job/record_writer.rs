//! Writes the record of a job to the ledger.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::failures::FailureLog;
use super::handle::Job;
use crate::core::domain::outcome::ObjectFailure;
use crate::ledger::{JobUpdate, Ledger, LedgerUnavailable, LoggedFrame, Timestamp};
use crate::telemetry;

/// The minimum interval between two writes of the progress of a job.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// How many failed objects are handed to the ledger before the next write is due. This bounds their memory. With fewer,
/// the job waits for more transactions.
const MAX_FAILED: usize = 1_000;

/// Writes the record of one job.
pub(super) struct RecordWriter {
    ledger: Arc<Ledger>,
    job: Arc<Job>,
    /// How long to wait for a durable write.
    limit: Duration,
    /// How many of the last frames are kept.
    frames: usize,
    /// The number of the last written frame.
    written: u64,
    /// The failed objects.
    failures: FailureLog,
    /// Ends when the next write is allowed.
    interval: Pin<Box<Sleep>>,
    /// The record has changed since the last write.
    due: bool,
    writing: Option<BoxFuture<'static, Result<(), LedgerUnavailable>>>,
}

impl RecordWriter {
    pub(super) fn new(ledger: Arc<Ledger>, job: Arc<Job>, limit: Duration, frames: usize) -> Self {
        let interval = Box::pin(sleep(MIN_INTERVAL));
        let failures = FailureLog::new(ledger.failed_limit(job.config.jobs.failed_objects));
        Self { ledger, job, limit, frames, written: 0, failures, interval, due: false, writing: None }
    }

    /// Marks the record as changed, to be written at the next interval.
    pub(super) fn mark_dirty(&mut self) {
        self.due = true;
    }

    /// Adds failed objects, reported at `at`, to the next write. If there are many, that is now: it waits for the write
    /// before, so that no more of them are in memory than the ledger can take, and for `limits.ledger` at most.
    pub(super) async fn add_failures(&mut self, at: Timestamp, failed: Vec<ObjectFailure>) {
        for mut failure in failed {
            failure.redact(&self.job.redactor);
            let left_out = self.failures.add(at, failure);
            if left_out > 0 {
                let left_out_before = &mut self.job.record_lock().progress.failed_left_out;
                *left_out_before = left_out_before.saturating_add(left_out);
            }
            if self.failures.pending() >= MAX_FAILED {
                if let Some(writing) = self.writing.take() {
                    // The ledger retries and reports what it could not write.
                    let _ = timeout(self.limit, writing).await;
                }
                // The progress in this record is that of the write before. It stays due, and the frames with it.
                self.put(Vec::new());
            }
        }
    }

    /// Logs how many failed objects have no log line of their own.
    pub(super) fn log_more_failures(&self) {
        self.failures.log_rest();
    }

    /// Waits until a write is due. Cancel safe.
    pub(super) async fn due(&mut self) {
        if let Some(writing) = &mut self.writing {
            // The ledger retries and reports what it could not write.
            let _ = writing.await;
            self.writing = None;
        }
        if !self.due {
            std::future::pending::<()>().await;
        }
        self.interval.as_mut().await;
    }

    /// Starts to write the current record. [`RecordWriter::due`] drives the write.
    pub(super) fn write(&mut self) {
        let frames = self.new_frames(&[]);
        self.put(frames);
        self.mark_clean();
    }

    fn put(&mut self, frames: Vec<LoggedFrame>) {
        let update = self.update(frames);
        self.writing = Some(self.ledger.put(update));
    }

    fn mark_clean(&mut self) {
        self.due = false;
        self.interval.as_mut().reset(Instant::now() + MIN_INTERVAL);
    }

    /// Writes the current record, with frames that are about to be appended, and waits until it is on disk or the
    /// write has failed.
    ///
    /// # Errors
    ///
    /// Why it is not on disk. The ledger keeps it, and writes it as soon as it can.
    pub(super) async fn persist(&mut self, coming: &[LoggedFrame]) -> Result<(), LedgerUnavailable> {
        // The newer of two concurrent writes wins.
        self.writing = None;
        let frames = self.new_frames(coming);
        let update = self.update(frames);
        let put = self.ledger.put(update);
        self.mark_clean();
        timeout(self.limit, put).await.unwrap_or_else(|_| {
            telemetry::RecordOverdue { limit: self.limit }.emit();
            let limit = humantime::format_duration(self.limit);
            Err(LedgerUnavailable(format!("it was not written within {limit} (limits.ledger)")))
        })
    }

    /// The last frames that are not written yet, with those that are `coming`.
    fn new_frames(&mut self, coming: &[LoggedFrame]) -> Vec<LoggedFrame> {
        let coming = &coming[coming.len().saturating_sub(self.frames)..];
        let mut frames = self.job.log.tail(self.written, self.frames - coming.len());
        frames.extend(coming.iter().map(LoggedFrame::without_payload));
        self.written = frames.last().map_or(self.written, |frame| frame.sequence);
        frames
    }

    fn update(&mut self, frames: Vec<LoggedFrame>) -> JobUpdate {
        JobUpdate { record: self.job.record(), frames, failed: self.failures.take() }
    }
}

/// Hands the failed objects of a job that panicked to the ledger.
impl Drop for RecordWriter {
    fn drop(&mut self) {
        if self.failures.pending() > 0 {
            // The ledger writes it even if its future is dropped.
            let frames = self.new_frames(&[]);
            let update = self.update(frames);
            drop(self.ledger.put(update));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::core::wire::sse::frame::{Frame, FrameName};
    use crate::job::handle::tests::job;
    use crate::ledger::tests::without_writer;
    use crate::ledger::{LoggedFailure, Timestamp};

    #[tokio::test(start_paused = true)]
    async fn progress_is_written_once_a_second_at_most_however_much_there_is() {
        let (ledger, mut requests) = without_writer();
        let mut written = Vec::new();
        let mut writer = RecordWriter::new(ledger, job(), Duration::from_secs(5), 10);
        for _ in 0..3 {
            writer.mark_dirty();
            writer.mark_dirty();
            writer.due().await;
            writer.write();
            written.push(Instant::now());
            requests.complete_put();
        }
        assert!(writer.due().now_or_never().is_none(), "there is nothing new");
        assert!(written.windows(2).all(|pair| pair[1] - pair[0] == MIN_INTERVAL), "{written:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_a_job_up_for_no_longer_than_the_limit() {
        let (ledger, _requests) = without_writer();
        let mut writer = RecordWriter::new(ledger, job(), Duration::from_secs(5), 10);
        let began = Instant::now();
        assert!(writer.persist(&[]).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_frames_are_written_with_those_that_are_coming_and_none_twice() {
        let (ledger, mut requests) = without_writer();
        let job = job();
        let mut writer = RecordWriter::new(ledger, Arc::clone(&job), Duration::ZERO, 3);
        let mut written = Vec::new();
        for (logged, coming) in [(5, 2), (1, 1), (0, 5)] {
            let frames = |count| {
                let frame = Frame { name: FrameName::Extra, bytes: "x".into(), payload: None };
                job.log.assign_sequence(vec![frame; count], Timestamp(0))
            };
            job.log.append(frames(logged));
            let coming = frames(coming);
            let _ = writer.persist(&coming).await;
            job.log.append(coming);
            let frames = requests.complete_put().frames;
            written.push(frames.iter().map(|frame| frame.sequence).collect::<Vec<_>>());
        }
        assert_eq!(written, [[5, 6, 7].as_slice(), &[8, 9], &[12, 13, 14]]);
    }

    fn failures(count: usize) -> Vec<ObjectFailure> {
        vec![ObjectFailure::example(); count]
    }

    #[tokio::test]
    async fn the_failed_objects_of_a_job_that_panics_reach_the_ledger() {
        let (ledger, mut requests) = without_writer();
        let mut writer = RecordWriter::new(ledger, job(), Duration::from_secs(5), 10);
        writer.add_failures(Timestamp(7), failures(1)).await;
        drop(writer);
        let [failure] = failures(1).try_into().unwrap();
        assert_eq!(requests.complete_put().failed, [LoggedFailure { number: 1, at: Timestamp(7), failure }]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_failed_objects_wait_for_the_write_before_and_no_longer_than_the_limit() {
        let (ledger, mut requests) = without_writer();
        let mut writer = RecordWriter::new(ledger, job(), Duration::from_secs(5), 10);
        let began = Instant::now();
        writer.add_failures(Timestamp(7), failures(MAX_FAILED)).await;
        let mut adding = Box::pin(writer.add_failures(Timestamp(7), failures(MAX_FAILED)));
        assert!(adding.as_mut().now_or_never().is_none(), "the ledger has not written the first ones");
        assert_eq!(requests.complete_put().failed.len(), MAX_FAILED);
        adding.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        writer.add_failures(Timestamp(7), failures(MAX_FAILED)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_stays_due_however_many_failed_objects_are_written_before() {
        let (ledger, mut requests) = without_writer();
        let mut writer = RecordWriter::new(ledger, job(), Duration::from_secs(5), 10);
        let began = Instant::now();
        for _ in 0..3 {
            writer.mark_dirty();
            writer.add_failures(Timestamp(7), failures(MAX_FAILED)).await;
            requests.complete_put();
            tokio::time::advance(MIN_INTERVAL / 4).await;
        }
        writer.due().await;
        assert_eq!(began.elapsed(), MIN_INTERVAL);
    }
}
