//! Tests of internals, and helpers for several tests.

use std::path::Path;
use std::time::Duration;

use super::record_clock::RecordClock;
use super::*;
use crate::core::domain::event::Failure;
use crate::core::domain::outcome::Cause;
use crate::core::wire::sse::frame::{Frame, FrameName};

/// The record of a queued job.
pub(super) fn record() -> Record {
    Record::new("http://default".parse().unwrap(), Kind::Devices, Timestamp(1_000))
}

/// The same record with an end.
pub(super) fn ended(record: &Record) -> Record {
    let end = JobEnd {
        finished: Timestamp(2_000),
        outcome: Outcome::Errored,
        cause: Some(Cause::BackendLost),
        failure: Some(Failure { step: "devices".to_owned(), error: "a".to_owned(), detail: "b".to_owned() }),
        failed_objects: vec![],
    };
    Record { end: Some(end), ..record.clone() }
}

/// Clocks that stand still.
#[derive(Debug)]
struct FixedClock(Timestamp);

impl Clock for FixedClock {
    fn wall(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn is_synchronised(&self) -> Option<bool> {
        None
    }
}

/// The record clock before its first open, with the wall clock at `wall`.
pub(super) fn aging(wall: u64) -> RecordClock {
    RecordClock::new(Arc::new(FixedClock(Timestamp(wall))), retention())
}

fn retention() -> Retention {
    let seconds = Duration::from_secs;
    Retention {
        jobs: seconds(60),
        logs: seconds(30),
        clock_jump: seconds(60),
        clock_hold: seconds(10),
        share: 100,
    }
}

pub(super) fn options(directory: Option<&Path>) -> LedgerOptions {
    LedgerOptions {
        directory: directory.map(Path::to_owned),
        retention: retention(),
        log_frames: 10,
        busy_timeout: Duration::from_millis(20),
        clock: Arc::new(FixedClock(Timestamp(2_000))),
        notifications: Vec::new(),
    }
}

pub(super) fn frames(numbers: std::ops::RangeInclusive<u64>) -> Vec<LoggedFrame> {
    let bytes = format!("event: x\ndata: {}\n\n", "x".repeat(2_000));
    numbers
        .map(|sequence| LoggedFrame {
            sequence,
            at: Timestamp(sequence),
            frame: Frame { name: FrameName::Extra, bytes: bytes.clone().into(), payload: None },
        })
        .collect()
}

/// The requests to a ledger without a writer.
pub(crate) struct Requests(mpsc::UnboundedReceiver<WriterRequest>);

impl Requests {
    /// Completes the oldest request, which must be a write.
    pub(crate) fn complete_put(&mut self) -> JobUpdate {
        let Ok(WriterRequest::Put(update, reply)) = self.0.try_recv() else { panic!("a write is expected") };
        // The job may be gone.
        let _ = reply.send(Ok(()));
        *update
    }
}

/// A ledger without a writer: its requests wait until the test completes them.
pub(crate) fn without_writer() -> (Arc<Ledger>, Requests) {
    let (sender, requests) = mpsc::unbounded_channel();
    let context = StoreContext::new(&options(Some(Path::new("unused"))));
    let ledger = Ledger {
        requests: WriterHandle { sender, place: String::new() },
        never_worked: None,
        health: watch::channel(Health::Available).1,
        lost: context.lost.subscribe(),
        context,
        task: Arc::default(),
    };
    (Arc::new(ledger), Requests(requests))
}

/// Waits until the ledger works.
pub(super) async fn available(ledger: &Ledger) {
    ledger.health().wait_for(|health| *health == Health::Available).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_middle_of_something_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(options(Some(folder.path()))).await.unwrap();
    let job = record();
    let put = ledger.put(JobUpdate::new(job.clone(), frames(1..=2)));
    let panicked = ledger.requests.query(|_| -> Result<(), StoreError> { panic!("on purpose") });
    assert!(panicked.await.is_err());
    let _ = put.await;
    ledger.health().wait_for(|health| *health != Health::Available).await.unwrap();
    available(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job.clone()));
    assert_eq!(ledger.frames(job.id).await.unwrap(), frames(1..=2));
    ledger.put(JobUpdate::new(ended(&job), vec![])).await.unwrap();
    ledger.close().await;
}

#[test]
fn what_is_in_memory_alone_is_kept_for_less_and_goes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let effective = |directory, retention| {
        StoreContext::new(&LedgerOptions { retention, ..options(directory) }).clock.retention()
    };
    let [hour, day] = [1, 24].map(|hours| Duration::from_secs(hours * 60 * 60));
    let long = Retention { jobs: 90 * day, logs: 7 * day, share: 10, ..retention() };
    assert_eq!(effective(Some(folder.path()), long), long);
    assert_eq!(effective(None, long), Retention { jobs: day, logs: hour, share: 100, ..long });
    assert_eq!(effective(None, retention()), retention(), "what is to be kept for less still is");
}
