//! Pending updates.

use std::collections::BTreeMap;

use super::{JobId, JobUpdate, LoggedFailure, LoggedFrame, Record};
use crate::telemetry::LedgerShed;

/// The maximum number of jobs with pending updates.
const MAX_JOBS: usize = 10_000;
/// The maximum size of the pending frames and failed objects of all jobs together, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// The pending update of one job.
#[derive(Clone, Debug)]
pub(super) struct PendingJob {
    /// Its newest record.
    pub(super) record: Record,
    /// Its frames, by number.
    pub(super) frames: BTreeMap<u64, LoggedFrame>,
    /// Its failed objects, in order.
    pub(super) failed: Vec<LoggedFailure>,
    /// How many failed objects were dropped.
    dropped: u64,
}

impl PendingJob {
    /// Drops the frames. Returns their size in bytes.
    fn drop_frames(&mut self) -> usize {
        std::mem::take(&mut self.frames).values().map(|frame| frame.frame.bytes.len()).sum()
    }

    fn leave_out(&mut self, count: u64) {
        let left_out = &mut self.record.progress.failed_left_out;
        *left_out = left_out.saturating_add(count);
    }

    /// Drops the failed objects, and counts them as left out. Returns their size in bytes.
    fn drop_failed(&mut self) -> usize {
        let failed = std::mem::take(&mut self.failed);
        let count = failed.iter().fold(0, |count: u64, failed| count.saturating_add(failed.failure.count));
        self.dropped = self.dropped.saturating_add(count);
        self.leave_out(count);
        failed.iter().map(LoggedFailure::size).sum()
    }
}

/// Pending updates, bounded in size however long the ledger is unavailable.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Ordered by age: ids sort by time.
    jobs: BTreeMap<JobId, PendingJob>,
    /// Invariant: the bytes of all frames and failed objects in `jobs`.
    bytes: usize,
    log_frames: usize,
    most: (usize, usize),
}

impl Pending {
    /// Creates an empty set. Of each job, the last `log_frames` frames are kept.
    pub(super) fn new(log_frames: usize) -> Self {
        Self { jobs: BTreeMap::new(), bytes: 0, log_frames, most: (MAX_JOBS, MAX_BYTES) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The pending updates, job by job.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PendingJob> {
        self.jobs.values()
    }

    /// Takes all updates, and leaves none.
    pub(super) fn take(&mut self) -> Self {
        let rest = Self { jobs: BTreeMap::new(), bytes: 0, ..*self };
        std::mem::replace(self, rest)
    }

    /// Adds an update. A record with an end is not replaced by one without.
    pub(super) fn add(&mut self, JobUpdate { record, frames, failed }: JobUpdate) {
        let waiting = self.jobs.entry(record.id).or_insert_with(|| PendingJob {
            record: record.clone(),
            frames: BTreeMap::new(),
            failed: Vec::new(),
            dropped: 0,
        });
        if waiting.record.end.is_none() || record.end.is_some() {
            waiting.record = record;
            waiting.leave_out(waiting.dropped);
        }
        for frame in frames {
            self.bytes += frame.frame.bytes.len();
            let replaced = waiting.frames.insert(frame.sequence, frame);
            self.bytes -= replaced.map_or(0, |frame| frame.frame.bytes.len());
        }
        while waiting.frames.len() > self.log_frames {
            let first = waiting.frames.pop_first();
            self.bytes -= first.map_or(0, |(_, frame)| frame.frame.bytes.len());
        }
        self.bytes += failed.iter().map(LoggedFailure::size).sum::<usize>();
        waiting.failed.extend(failed);
        self.shed();
    }

    /// Puts back updates that could not be written, as if they had been added before all others.
    pub(super) fn restore(&mut self, older: Self) {
        let newer = std::mem::replace(self, older);
        for PendingJob { record, frames, failed, dropped } in newer.jobs.into_values() {
            let id = record.id;
            self.add(JobUpdate { record, frames: frames.into_values().collect(), failed });
            if let Some(waiting) = self.jobs.get_mut(&id) {
                waiting.dropped = waiting.dropped.saturating_add(dropped);
            }
        }
    }

    /// Drops updates beyond the bounds: first frames, then failed objects, the oldest first, then records of
    /// unfinished jobs, which will be written again, and last the records of the oldest jobs.
    fn shed(&mut self) {
        while self.bytes > self.most.1 {
            let mut jobs = self.jobs.iter_mut();
            let with_frames = jobs.find(|(_, waiting)| !waiting.frames.is_empty());
            let (id, size) = if let Some((id, waiting)) = with_frames {
                (id, waiting.drop_frames())
            } else {
                let mut jobs = self.jobs.iter_mut();
                let Some((id, waiting)) = jobs.find(|(_, waiting)| !waiting.failed.is_empty()) else {
                    return;
                };
                (id, waiting.drop_failed())
            };
            self.bytes -= size;
            LedgerShed { job: id.to_string(), record: false }.emit();
        }
        while self.jobs.len() > self.most.0 {
            let unended = self.jobs.iter().find(|(_, waiting)| waiting.record.end.is_none());
            let Some(id) = unended.or_else(|| self.jobs.first_key_value()).map(|(id, _)| *id) else { return };
            let gone = self.jobs.remove(&id);
            self.bytes -= gone.map_or(0, |mut waiting| waiting.drop_frames() + waiting.drop_failed());
            LedgerShed { job: id.to_string(), record: true }.emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::core::domain::outcome::ObjectFailure;
    use crate::core::wire::sse::frame::{Frame, FrameName};
    use crate::ledger::Timestamp;
    use crate::ledger::tests::{ended, record};

    fn frames(numbers: std::ops::Range<u64>) -> Vec<LoggedFrame> {
        numbers
            .map(|sequence| LoggedFrame {
                sequence,
                at: Timestamp(sequence),
                frame: Frame { name: FrameName::Extra, bytes: Bytes::from_static(b"x"), payload: None },
            })
            .collect()
    }

    #[test]
    fn what_is_kept_of_a_job_is_its_newest_record_and_its_last_frames() {
        let mut pending = Pending::new(3);
        let job = record();
        pending.add(JobUpdate::new(job.clone(), frames(1..4)));
        pending.add(JobUpdate::new(ended(&job), frames(3..6)));
        pending.add(JobUpdate::new(job.clone(), vec![]));
        let kept: Vec<_> = pending.iter().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].record, ended(&job));
        assert_eq!(kept[0].frames.keys().copied().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(pending.bytes, 3);
    }

    #[test]
    fn what_could_not_be_written_is_older_than_what_came_since() {
        let mut pending = Pending::new(10);
        let job = record();
        pending.add(JobUpdate::new(job.clone(), frames(1..3)));
        let taken = pending.take();
        assert!(pending.is_empty());
        pending.add(JobUpdate::new(ended(&job), frames(3..4)));
        pending.restore(taken);
        let kept: Vec<_> = pending.iter().collect();
        assert_eq!(kept[0].record, ended(&job));
        assert_eq!(kept[0].frames.len(), 3);
        assert_eq!(pending.bytes, 3);
    }

    #[test]
    fn records_without_an_end_are_given_up_before_those_of_older_jobs_with_one() {
        let mut pending = Pending::new(10);
        pending.most.0 = 2;
        let (first, second, third) = (ended(&record()), record(), ended(&record()));
        for record in [&first, &second, &third] {
            pending.add(JobUpdate { record: record.clone(), frames: frames(1..2), failed: failures(1..2) });
        }
        assert_eq!(pending.iter().map(|kept| kept.record.id).collect::<Vec<_>>(), [first.id, third.id]);
        assert_eq!(pending.len(), 2);
        let fourth = ended(&record());
        pending.add(JobUpdate::new(fourth.clone(), vec![]));
        assert_eq!(pending.iter().map(|kept| kept.record.id).collect::<Vec<_>>(), [third.id, fourth.id]);
        assert_eq!(pending.bytes, 1 + failures(1..2)[0].size());
    }

    fn failures(numbers: std::ops::Range<u64>) -> Vec<LoggedFailure> {
        let failure = ObjectFailure::example;
        let failed = |number| LoggedFailure { number, at: Timestamp(number), failure: failure() };
        numbers.map(failed).collect()
    }

    #[test]
    fn failed_objects_are_kept_in_order_and_given_up_after_logs() {
        let mut pending = Pending::new(10);
        let (first, second) = (record(), record());
        pending.add(JobUpdate { record: first.clone(), frames: vec![], failed: failures(1..3) });
        let taken = pending.take();
        pending.add(JobUpdate { record: first.clone(), frames: vec![], failed: failures(3..4) });
        pending.restore(taken);
        let failed = &pending.jobs[&first.id].failed;
        assert_eq!(failed.iter().map(|failed| failed.number).collect::<Vec<_>>(), [1, 2, 3]);
        let size = failed.iter().map(LoggedFailure::size).sum::<usize>();
        assert_eq!(pending.bytes, size);
        pending.most.1 = size;
        pending.add(JobUpdate::new(second, frames(1..2)));
        let kept = |pending: &Pending| -> Vec<_> {
            pending.iter().map(|job| (job.frames.len(), job.failed.len())).collect()
        };
        assert_eq!((kept(&pending), pending.bytes), (vec![(0, 3), (0, 0)], size));
        pending.most.1 = 0;
        pending.add(JobUpdate::new(first.clone(), vec![]));
        assert_eq!((kept(&pending), pending.bytes), (vec![(0, 0), (0, 0)], 0));
        // They stay left out when a later record, or one that could not be written, takes the place of this one.
        let left_out = |pending: &Pending| pending.jobs[&first.id].record.progress.failed_left_out;
        let taken = pending.take();
        pending.add(JobUpdate { record: first.clone(), frames: vec![], failed: failures(4..6) });
        assert_eq!((left_out(&taken), left_out(&pending)), (3, 2));
        pending.restore(taken);
        assert_eq!(left_out(&pending), 5);
        pending.add(JobUpdate::new(ended(&first), vec![]));
        assert_eq!(left_out(&pending), 5);
    }

    #[test]
    fn logs_are_given_up_before_records() {
        let mut pending = Pending::new(10);
        pending.most.1 = 4;
        let (first, second) = (record(), record());
        pending.add(JobUpdate::new(first, frames(1..4)));
        pending.add(JobUpdate::new(second, frames(1..4)));
        assert_eq!(pending.iter().map(|kept| kept.frames.len()).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(pending.bytes, 3);
    }
}
