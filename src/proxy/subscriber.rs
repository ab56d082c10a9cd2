//! The log of a job, as streamed to one client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, sleep};
use tracing::Span;

use super::request::StallFlag;
use crate::core::domain::event::{Step, StepStatus};
use crate::core::domain::kind::Kind;
use crate::core::wire::sse::encoder::standalone_step;
use crate::core::wire::sse::frame::FrameName;
use crate::job::{Batch, EventSelection, FIRST, Job, Replay, Watcher};
use crate::ledger::{JobId, LoggedFrame};
use crate::respond::{Body, BoxError};
use crate::telemetry::{self, Surface, WatcherDeparture};

/// The events that a client selects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubscriberOptions {
    /// An `id:` for every frame (R1).
    pub(crate) ids: bool,
    /// The optional events. With payloads, the result is whole too.
    pub(crate) selection: EventSelection,
}

const KEEPALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");

/// Tracks a client of the log while it reads.
pub(crate) struct WatcherGuard {
    job: Arc<Job>,
    surface: Surface,
    stuck: StallFlag,
    has_seen_end: bool,
}

impl WatcherGuard {
    pub(crate) fn new(job: &Arc<Job>, surface: Surface, stuck: StallFlag) -> Self {
        job.in_span(|| telemetry::WatcherOpened { surface }.emit());
        Self { job: Arc::clone(job), surface, stuck, has_seen_end: false }
    }

    /// Notes a batch that is sent to the client.
    pub(crate) fn record_batch(&mut self, batch: &Batch) {
        self.has_seen_end |= batch.frames.last().is_some_and(|last| last.frame.name == FrameName::Complete);
        if batch.missed > 0 {
            self.job.in_span(|| telemetry::FramesMissed { missed: batch.missed }.emit());
        }
    }

    fn mark_heartbeat(&self) {
        self.job.in_span(|| telemetry::HeartbeatSent.emit());
    }
}

impl Drop for WatcherGuard {
    fn drop(&mut self) {
        let early = if self.stuck.is_set() { WatcherDeparture::Stalled } else { WatcherDeparture::Left };
        let departure = (!self.has_seen_end).then_some(early);
        self.job.in_span(|| telemetry::WatcherClosed { surface: self.surface, departure }.emit());
    }
}

/// Streams the frames of `watching`, with a comment after every `heartbeat` of silence.
pub(crate) fn live(
    watching: Watcher,
    guard: WatcherGuard,
    view: SubscriberOptions,
    heartbeat: Duration,
) -> Body {
    let kind = watching.job.key.endpoint().kind;
    let first = watching.notice.as_deref().map(|notice| notice_frame(kind, notice));
    // One timer for the whole stream: moving it is cheaper than registering another for each turn.
    let silence = Box::pin(sleep(heartbeat));
    let state = (watching, guard, silence, first);
    let frames = stream::unfold(state, move |(mut watching, mut guard, mut silence, first)| async move {
        if let Some(first) = first {
            return Some((Ok(Frame::data(first)), (watching, guard, silence, None)));
        }
        // Frames that this client does not receive do not count as output (R11).
        silence.as_mut().reset(Instant::now() + heartbeat);
        loop {
            let bytes = tokio::select! {
                biased;
                batch = watching.cursor.next() => {
                    let (batch, job) = (batch?, &watching.job);
                    guard.record_batch(&batch);
                    watching.cursor.hold(view.write(job.id, job.key.endpoint().kind, &batch))
                }
                () = &mut silence => {
                    guard.mark_heartbeat();
                    KEEPALIVE
                }
            };
            if !bytes.is_empty() {
                return Some((Ok::<_, BoxError>(Frame::data(bytes)), (watching, guard, silence, None)));
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Streams the stored frames of an ended job of `kind`, after its notice. `span` is the span of the job.
pub(crate) fn stored(kind: Kind, replay: Replay, view: SubscriberOptions, span: &Span) -> Body {
    let Replay { id, missed, frames, notice } = replay;
    let mut first: Vec<Bytes> = notice.map(|notice| notice_frame(kind, &notice)).into_iter().collect();
    if missed > 0 {
        span.in_scope(|| telemetry::FramesMissed { missed }.emit());
        // A stream begins with `started`, and this may be its first frame.
        let status = if first.is_empty() { StepStatus::Started } else { StepStatus::Progress };
        first.push(gap_frame(kind, status, missed, None));
    }
    // Frames are written one at a time, so that a stalled reader does not hold all of them twice.
    let written = frames.into_iter().map(move |logged| {
        let mut chunk = Vec::new();
        view.encode(id, &logged, &mut chunk);
        Bytes::from(chunk)
    });
    let chunks = first.into_iter().chain(written).filter(|chunk| !chunk.is_empty());
    let frames = stream::iter(chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(chunk))));
    StreamBody::new(frames).boxed_unsync()
}

impl SubscriberOptions {
    /// The payloads alone, if they are selected.
    pub(crate) fn payloads(self) -> EventSelection {
        EventSelection { all_events: false, ..self.selection }
    }

    /// Writes whole frames of a job of `kind` into one chunk.
    fn write(&self, job: JobId, kind: Kind, batch: &Batch) -> Bytes {
        let mut missed = batch.missed;
        let mut chunk = Vec::with_capacity(batch.frames.iter().map(|logged| logged.frame.bytes.len()).sum());
        for logged in &batch.frames {
            // A stream begins with its first frame, even if later ones are gone.
            if missed > 0 && logged.sequence > FIRST {
                let gap = gap_frame(kind, StepStatus::Progress, missed, Some(batch.failures_evicted));
                chunk.extend_from_slice(&gap);
                missed = 0;
            }
            self.encode(job, logged, &mut chunk);
        }
        // Its length counts as log memory.
        chunk.shrink_to_fit();
        chunk.into()
    }

    /// Writes a frame to `chunk`, with its id as the first line if the client uses ids (R1). Writes nothing for an event
    /// that the client does not select.
    fn encode(&self, job: JobId, LoggedFrame { sequence, frame, .. }: &LoggedFrame, chunk: &mut Vec<u8>) {
        if frame.name == FrameName::Extra && !self.selection.all_events {
            return;
        }
        if self.ids {
            chunk.extend_from_slice(format!("id: {job}.{sequence}\n").as_bytes());
        }
        if self.selection.payloads {
            chunk.extend_from_slice(&frame.with_payload());
        } else {
            chunk.extend_from_slice(&frame.bytes);
        }
    }
}

fn notice_frame(kind: Kind, notice: &str) -> Bytes {
    standalone_step(&Step::stage(kind.row().step, StepStatus::Started, notice))
}

/// The step in place of `missed` evicted frames. `failures` is the number of failures that the log has evicted in
/// all, if known.
fn gap_frame(kind: Kind, status: StepStatus, missed: u64, failures: Option<u64>) -> Bytes {
    let events =
        if missed == 1 { "1 earlier event is".to_owned() } else { format!("{missed} earlier events are") };
    let mut message = format!("{events} no longer kept and could not be sent.");
    match failures {
        Some(0) => {}
        Some(failures) => {
            message.push_str(&format!(" Failures of this job that are no longer kept: {failures}."));
        }
        None => message.push_str(" Failures may be among them."),
    }
    standalone_step(&Step::stage(kind.row().step, status, message))
}

#[cfg(test)]
mod tests {
    use crate::core::wire::sse::frame::Frame as SseFrame;
    use crate::ledger::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_gap_in_what_the_ledger_kept_does_not_hide_that_failures_may_be_gone() {
        let view = SubscriberOptions { ids: false, selection: EventSelection::default() };
        let id = "019a0000-0000-7000-8000-000000000000".parse().unwrap();
        let replay = Replay { id, missed: 3, frames: Vec::new(), notice: None };
        let body = stored(Kind::Devices, replay, view, &Span::none());
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let gap = "3 earlier events are no longer kept and could not be sent. Failures may be among them.";
        assert!(text.contains(gap), "{text}");
    }

    #[test]
    fn a_chunk_takes_no_more_memory_than_its_length() {
        let id = "019a0000-0000-7000-8000-000000000000".parse().unwrap();
        let frame = |name, payload| {
            let frame = SseFrame { name, bytes: Bytes::from_static(b"event: a\ndata: {}\n\n"), payload };
            LoggedFrame { sequence: FIRST, at: Timestamp(0), frame }
        };
        let payload = Some(Bytes::from(vec![b'1'; 1000]));
        let frames = vec![
            frame(FrameName::Step(StepStatus::Started), payload),
            frame(FrameName::Extra, None),
            frame(FrameName::Step(StepStatus::Progress), None),
        ];
        let batch = Batch { missed: 0, failures_evicted: 0, frames };
        let [all, some] = [true, false].map(|all_events| {
            let selection = EventSelection { all_events, payloads: all_events };
            let view = SubscriberOptions { ids: all_events, selection };
            view.write(id, Kind::Devices, &batch).try_into_mut().unwrap()
        });
        assert_eq!((all.capacity(), some.capacity()), (all.len(), some.len()));
        assert!(all.len() > 1000 && some.len() < 100, "{all:?} {some:?}");
    }
}
