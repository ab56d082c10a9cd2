//! Retention of a log, and the frames that its watchers receive.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use crate::core::domain::event::Step;
use crate::core::wire::sse::encoder::standalone_step;
use crate::job::log::*;

/// A limit that nothing reaches.
const PLENTY: usize = 1 << 30;

fn frame(name: FrameName, bytes: impl Into<Bytes>) -> Frame {
    Frame { name, bytes: bytes.into(), payload: None }
}

fn progress(text: &'static str) -> Frame {
    frame(FrameName::Step(StepStatus::Progress), text)
}

fn log(limit: usize) -> Arc<JobLog> {
    JobLog::new(limit, LogMemory::new(PLENTY))
}

fn append(log: &JobLog, frames: Vec<Frame>) {
    let frames = log.assign_sequence(frames, Timestamp(0));
    log.append(frames);
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.frames.iter().map(|frame| frame.sequence).collect()
}

#[tokio::test]
async fn a_watcher_gets_every_frame_once_however_late_it_attaches() {
    let log = log(PLENTY);
    let mut early = log.watch(FIRST);
    append(&log, vec![progress("a")]);
    assert_eq!(numbers(&early.next().await.unwrap()), [1]);
    append(&log, vec![progress("b"), progress("c")]);
    let (mut late, mut resumed) = (log.watch(FIRST), log.watch(3));
    log.end();
    assert_eq!(numbers(&late.next().await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(&early.next().await.unwrap()), [2, 3]);
    assert_eq!(numbers(&resumed.next().await.unwrap()), [3]);
    for cursor in [&mut early, &mut late, &mut resumed] {
        assert!(cursor.next().await.is_none());
    }
}

#[tokio::test]
async fn a_watcher_waits_for_what_has_not_come() {
    let log = log(PLENTY);
    let mut cursor = log.watch(FIRST);
    assert!(cursor.next().now_or_never().is_none());
    let (got, ()) = tokio::join!(cursor.next(), async { append(&log, vec![progress("a")]) });
    assert_eq!(numbers(&got.unwrap()), [1]);
}

#[tokio::test]
async fn a_watcher_that_is_behind_gets_whole_frames_in_pieces_of_bounded_size() {
    let log = log(PLENTY);
    let half = || frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 8 * 1024]);
    append(&log, vec![half(), half(), half(), frame(FrameName::Complete, vec![b'y'; 32 * 1024])]);
    log.end();
    let mut cursor = log.watch(FIRST);
    let mut counts = Vec::new();
    while let Some(batch) = cursor.next().await {
        counts.push(batch.frames.len());
    }
    assert_eq!(counts, [2, 1, 1]);
}

#[tokio::test]
async fn over_its_bound_a_log_drops_the_oldest_progress_before_failures_and_never_its_first_frame_or_its_end()
{
    let log = log(4096);
    append(&log, vec![frame(FrameName::Step(StepStatus::Started), "began")]);
    for number in 0..100 {
        let name = if number % 10 == 0 { StepStatus::Failed } else { StepStatus::Progress };
        append(&log, vec![frame(FrameName::Step(name), vec![b'x'; 100])]);
    }
    append(&log, vec![frame(FrameName::Error, "error"), frame(FrameName::Complete, "complete")]);
    log.end();
    let mut cursor = log.watch(FIRST);
    let batch = cursor.next().await.unwrap();
    let got = numbers(&batch);
    let kept: Vec<u64> = [1].into_iter().chain((2..102).step_by(10)).chain([102, 103]).collect();
    assert!(kept.iter().all(|number| got.contains(number)), "{got:?}");
    assert!(log.size() <= 4096 && got.len() < 103, "{}", log.size());
    assert_eq!(batch.missed + got.len() as u64, 103);
    // The newest progress frames remain.
    let oldest = got.iter().copied().find(|number| !kept.contains(number)).unwrap();
    assert!((oldest..=103).all(|number| got.contains(&number)), "{got:?}");
}

#[tokio::test]
async fn a_watcher_gets_the_count_of_only_the_frames_it_missed_itself() {
    let log = log(4096);
    let step = || frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 100]);
    append(&log, vec![step(), step(), step()]);
    let mut cursor = log.watch(FIRST);
    assert_eq!(cursor.next().await.unwrap().frames.len(), 3);
    for _ in 0..1000 {
        append(&log, vec![step()]);
    }
    let batch = cursor.next().await.unwrap();
    assert_eq!(batch.missed + batch.frames.len() as u64, 1000);
    append(&log, vec![step()]);
    assert_eq!(cursor.next().await.unwrap().missed, 0);
}

#[test]
fn the_memory_of_all_logs_is_bounded_and_those_that_have_ended_give_first() {
    let memory = LogMemory::new(64 * 1024);
    let step = || frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 1000]);
    let [old, running] = [(); 2].map(|()| JobLog::new(PLENTY, Arc::clone(&memory)));
    append(&old, vec![step(), frame(FrameName::Complete, "end")]);
    for _ in 0..20 {
        append(&old, vec![]);
        append(&running, vec![step()]);
    }
    let full = running.tail(0, 100).len();
    old.end();
    for _ in 0..200 {
        append(&running, vec![step()]);
        assert!(memory.used() <= 64 * 1024, "{}", memory.used());
    }
    assert_eq!(full, 20, "there was room");
    let left: Vec<_> = old.tail(0, 10).iter().map(|frame| frame.frame.name).collect();
    assert_eq!(
        left,
        [FrameName::Step(StepStatus::Progress), FrameName::Complete],
        "how it began and ended stays"
    );
    drop(old);
    let before = memory.used();
    drop(running);
    assert_eq!(memory.used(), 0, "of {before}");
}

fn failed(text: impl Into<Bytes>) -> Frame {
    frame(FrameName::Step(StepStatus::Failed), text)
}

#[tokio::test]
async fn a_backend_that_fails_without_end_exhausts_no_memory_and_the_first_and_last_failures_are_left() {
    let limit = 64 * 1024;
    let log = log(limit);
    append(&log, vec![frame(FrameName::Step(StepStatus::Started), "began")]);
    let total = 10_000;
    for _ in 0..total {
        append(&log, vec![failed(vec![b'x'; 600])]);
        assert!(log.size() <= limit, "{}", log.size());
    }
    append(&log, vec![frame(FrameName::Complete, "complete")]);
    log.end();
    let mut cursor = log.watch(FIRST);
    let (mut got, mut missed, mut failures_gone) = (Vec::new(), 0, 0);
    while let Some(batch) = cursor.next().await {
        got.extend(numbers(&batch));
        missed += batch.missed;
        failures_gone = batch.failures_evicted;
    }
    let last = total + 2;
    assert!([1, 2, 3, total, total + 1, last].iter().all(|number| got.contains(number)), "{got:?}");
    assert_eq!(got.len() as u64 + missed, last);
    assert_eq!(failures_gone, missed, "the failures in the middle");
}

#[test]
fn progress_and_the_failures_in_the_middle_go_before_the_first_and_the_last_failures() {
    let log = log(100_000);
    append(&log, vec![frame(FrameName::Step(StepStatus::Started), "began")]);
    let failures = 3 * MAX_FAILURES as u64;
    for _ in 0..failures {
        append(&log, vec![failed("failed"), progress("progress")]);
    }
    for _ in 0..2_000 {
        append(&log, vec![frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 100])]);
    }
    let is_failure = |frame: &&LoggedFrame| frame.is_failure();
    let left: Vec<u64> =
        log.tail(0, usize::MAX).iter().filter(is_failure).map(|frame| frame.sequence / 2).collect();
    let first = 1..=MAX_FAILURES as u64;
    let last = failures - MAX_FAILURES as u64 + 1..=failures;
    assert_eq!(left, first.chain(last).collect::<Vec<_>>());
}

#[test]
fn progress_and_unprotected_failures_are_evicted_in_order() {
    let log = log(64 * 1024);
    append(&log, vec![frame(FrameName::Step(StepStatus::Started), "began")]);
    append(&log, (0..MAX_FAILURES).map(|_| failed("failed")).collect());
    let first = 1 + MAX_FAILURES as u64;
    let total = first + 400;
    for _ in 0..200 {
        append(&log, vec![failed(vec![b'x'; 100])]);
        append(&log, vec![frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 100])]);
    }
    let left: Vec<u64> = log.tail(0, usize::MAX).iter().map(|frame| frame.sequence).collect();
    let oldest = total + 1 - (left.len() as u64 - first);
    assert!((first + 50..total - 150).contains(&oldest), "some were evicted: {left:?}");
    assert_eq!(left, (1..=first).chain(oldest..=total).collect::<Vec<_>>());
}

#[test]
fn the_first_and_the_last_failures_are_evicted_evenly_when_nothing_else_is_left() {
    let log = log(16 * 1024);
    append(&log, vec![frame(FrameName::Step(StepStatus::Started), "began")]);
    for _ in 0..1_000 {
        append(&log, vec![failed("failed")]);
    }
    let left: Vec<u64> = log.tail(0, usize::MAX).iter().map(|frame| frame.sequence).collect();
    let first = (1..).zip(&left).take_while(|(number, left)| number == *left).count() - 1;
    let last = left.len() - 1 - first;
    assert!(first < MAX_FAILURES && first.abs_diff(last) <= 1, "{left:?}");
    assert!(left.iter().rev().take(last).copied().eq((0..=1_001).rev().take(last)), "{left:?}");
}

#[tokio::test]
async fn missed_frames_are_counted_exactly_from_every_position() {
    let log = log(64 * 1024);
    let total = 1_000;
    for number in 1..=total {
        let is_failure = number < total / 2 && number % 3 > 0;
        append(&log, vec![if is_failure { failed("failed") } else { progress("progress") }]);
    }
    log.end();
    for from in 1..=total {
        let mut cursor = log.watch(from);
        let mut accounted = 0;
        while let Some(batch) = cursor.next().await {
            accounted += batch.missed + batch.frames.len() as u64;
        }
        assert_eq!(accounted, total + 1 - from, "from {from}");
    }
}

#[tokio::test]
async fn the_lag_is_that_of_the_slowest_live_cursor() {
    let log = log(PLENTY);
    append(&log, (0..5).map(|_| progress("progress")).collect());
    let (slow, mut fast) = (log.watch(FIRST), log.watch(3));
    assert_eq!(log.lag(), 5);
    drop(slow);
    assert_eq!(log.lag(), 3);
    fast.next().await;
    assert_eq!(log.lag(), 0);
    append(&log, vec![progress("progress")]);
    assert_eq!(log.lag(), 1);
    drop(fast);
    assert_eq!((log.lag(), log.cursors().len()), (0, 0));
}

#[test]
fn a_new_memory_limit_applies_to_the_next_frame() {
    let memory = LogMemory::new(64 * 1024);
    let log = JobLog::new(PLENTY, Arc::clone(&memory));
    let fill = || {
        for _ in 0..100 {
            append(&log, vec![frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 1000])]);
        }
        memory.used()
    };
    for limit in [64 * 1024, 16 * 1024, 128 * 1024] {
        memory.resize(limit);
        assert!((limit / 2..=limit).contains(&fill()), "{} of {limit}", memory.used());
    }
}

#[test]
fn a_job_takes_from_others_only_what_is_above_their_fair_share() {
    let memory = LogMemory::new(64 * 1024);
    let [quiet, ended, noisy, greedy] = [(); 4].map(|()| JobLog::new(PLENTY, Arc::clone(&memory)));
    let step = || frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 1000]);
    for log in [&quiet, &ended] {
        for _ in 0..10 {
            append(log, vec![step()]);
        }
    }
    ended.end();
    for _ in 0..30 {
        append(&greedy, vec![step()]);
    }
    for _ in 0..1000 {
        append(&noisy, vec![failed(vec![b'x'; 1000])]);
        assert!(memory.used() <= 64 * 1024, "{}", memory.used());
    }
    assert_eq!([&quiet, &ended].map(|log| log.tail(0, 100).len()), [10, 10]);
    for log in [&noisy, &greedy] {
        assert!(log.size() >= 14 * 1024, "what is left is shared: {}", log.size());
    }
}

#[test]
fn an_ended_log_is_cut_by_no_more_than_is_needed() {
    let limit = 64 * 1024;
    let memory = LogMemory::new(limit);
    let [ended, running] = [(); 2].map(|()| JobLog::new(PLENTY, Arc::clone(&memory)));
    let step = || frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 1000]);
    append(&ended, (0..50).map(|_| step()).collect());
    ended.end();
    for _ in 0..20 {
        append(&running, vec![step()]);
    }
    assert!(memory.used() > limit - limit / 16, "{}", memory.used());
}

#[test]
fn more_is_freed_than_one_frame_needs_though_all_logs_are_of_one_size() {
    let limit = 64 * 1024;
    let memory = LogMemory::new(limit);
    let logs = [(); 2].map(|()| JobLog::new(PLENTY, Arc::clone(&memory)));
    let mut freed = 0;
    for log in logs.iter().cycle().take(1000) {
        let before = memory.used();
        append(log, vec![frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 100])]);
        if memory.used() < before {
            freed += 1;
            assert!(memory.used() <= limit - limit / 64, "{}", memory.used());
        }
    }
    assert!(freed > 0);
}

#[test]
fn what_is_on_its_way_to_readers_counts_until_it_is_sent_and_leaves_half_to_the_logs() {
    let memory = LogMemory::new(64 * 1024);
    let log = JobLog::new(PLENTY, Arc::clone(&memory));
    let cursor = log.watch(FIRST);
    let sent = cursor.hold(Bytes::from(vec![b'x'; 10_000]));
    let (part, reserved) = (sent.slice(..10), cursor.reserve(5_000));
    drop(sent);
    assert_eq!(memory.used(), 15_000, "a part is not sent yet");
    drop((part, reserved));
    assert_eq!(memory.used(), 0);
    for _ in 0..50 {
        append(&log, vec![frame(FrameName::Step(StepStatus::Progress), vec![b'x'; 1000])]);
    }
    let _stalled = cursor.reserve(64 * 1024);
    assert!((30 * 1024..=32 * 1024).contains(&log.size()), "{}", log.size());
}

#[test]
fn the_tail_is_in_order_and_ends_with_the_last_frame() {
    let log = log(PLENTY);
    append(
        &log,
        vec![progress("a"), frame(FrameName::Step(StepStatus::Failed), "b"), progress("c"), progress("d")],
    );
    let tail = |after, limit| log.tail(after, limit).iter().map(|frame| frame.sequence).collect::<Vec<_>>();
    assert_eq!(tail(0, 3), [2, 3, 4]);
    assert_eq!(tail(3, 10), [4]);
    assert_eq!(tail(4, 10), Vec::<u64>::new());
    append(&log, vec![Frame { payload: Some("{}".into()), ..progress("e") }]);
    assert_eq!(log.tail(4, 1)[0].frame, progress("e"), "the ledger stores no payload");
}

/// A pseudorandom sequence from a seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

struct TestReader {
    cursor: Cursor,
    /// The next number.
    next: u64,
    seen: Vec<u64>,
    missed: u64,
    from: u64,
}

impl TestReader {
    fn read(&mut self) -> bool {
        match self.cursor.next().now_or_never() {
            Some(Some(batch)) => {
                for frame in &batch.frames {
                    assert!(frame.sequence >= self.next, "{} again", frame.sequence);
                    self.next = frame.sequence + 1;
                    self.seen.push(frame.sequence);
                }
                self.missed += batch.missed;
                let accounted = self.seen.len() as u64 + self.missed;
                assert!(accounted <= self.next - self.from, "told of more than there was");
                false
            }
            Some(None) => true,
            None => false,
        }
    }
}

#[test]
fn replay_and_live_lose_and_repeat_nothing_in_any_order_of_things() {
    for seed in 0..500 {
        let mut chance = SplitMix64(seed);
        let limit = usize::try_from(500 + chance.below(80_000)).unwrap();
        let keeps_failures = limit >= 40_000;
        let log = log(limit);
        let mut kept = Vec::new();
        let mut readers: Vec<TestReader> = Vec::new();
        let total = 20 + chance.below(300);
        let mut written = 0;
        while written < total {
            match chance.below(4) {
                0 => {
                    let from = 1 + chance.below(written + 1);
                    let cursor = log.watch(from);
                    readers.push(TestReader { cursor, next: from, seen: Vec::new(), missed: 0, from });
                }
                1 if !readers.is_empty() => {
                    let which = chance.below(readers.len() as u64) as usize;
                    assert!(!readers[which].read(), "seed {seed}: an end before the end");
                }
                _ => {
                    let mut frames = Vec::new();
                    for _ in 0..=chance.below(4) {
                        written += 1;
                        let failed = chance.below(8) == 0;
                        if failed && keeps_failures || written == FIRST {
                            kept.push(written);
                        }
                        let name =
                            FrameName::Step(if failed { StepStatus::Failed } else { StepStatus::Progress });
                        frames.push(frame(name, vec![b'x'; 1 + chance.below(400) as usize]));
                    }
                    append(&log, frames);
                }
            }
        }
        append(&log, vec![frame(FrameName::Complete, "end")]);
        kept.push(written + 1);
        log.end();
        for reader in &mut readers {
            while !reader.read() {}
            let wanted = kept.iter().filter(|number| **number >= reader.from);
            assert!(wanted.clone().all(|number| reader.seen.contains(number)), "seed {seed}");
            assert_eq!(
                reader.seen.len() as u64 + reader.missed,
                written + 2 - reader.from,
                "seed {seed}: every frame is given or told of"
            );
        }
    }
}

#[test]
fn an_aside_is_a_step_as_any_other() {
    let bytes = standalone_step(&Step::stage("devices", StepStatus::Progress, "Behind."));
    assert!(bytes.starts_with(b"event: step\ndata: {") && bytes.ends_with(b"}\n\n"));
}
