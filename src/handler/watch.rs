//! The log of a job, as one client is given it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::front::Stuck;
use crate::core::event::{Status, Step};
use crate::core::kind::Kind;
use crate::core::sse::{FrameName, aside};
use crate::job::{Batch, FIRST, Job, Kept, Logged, Watching};
use crate::ledger::{JobId, StoredFrame};
use crate::respond::{Body, BoxError};
use crate::telemetry::{self, Departure, Surface};

/// What a client wants to see of a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// An `id:` for every frame (R1).
    pub(super) ids: bool,
    /// Events of the backend's own types.
    pub(super) all_events: bool,
    /// The backend's own account of objects, and the whole result.
    pub(super) payloads: bool,
}

const KEEPALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");

/// A client at the log of a job, for as long as it reads it.
pub(super) struct Attendance {
    job: Arc<Job>,
    surface: Surface,
    stuck: Stuck,
    has_seen_end: bool,
}

impl Attendance {
    pub(super) fn new(job: &Arc<Job>, surface: Surface, stuck: Stuck) -> Self {
        job.in_span(|| telemetry::WatcherCame { surface }.emit());
        Self { job: Arc::clone(job), surface, stuck, has_seen_end: false }
    }

    /// Notes what it is given.
    pub(super) fn give(&mut self, batch: &Batch) {
        self.has_seen_end |= batch.frames.last().is_some_and(|last| last.name == FrameName::Complete);
        if batch.missed > 0 {
            self.job.in_span(|| telemetry::Gap { missed: batch.missed }.emit());
        }
    }

    fn wait(&self) {
        self.job.in_span(|| telemetry::Heartbeat.emit());
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let early = if self.stuck.is_noted() { Departure::Stalled } else { Departure::Left };
        let departure = (!self.has_seen_end).then_some(early);
        self.job.in_span(|| telemetry::WatcherWent { surface: self.surface, departure }.emit());
    }
}

/// What `watching` has seen, and what it will see, with a comment after `heartbeat` of silence.
pub(super) fn live(watching: Watching, attendance: Attendance, view: View, heartbeat: Duration) -> Body {
    let kind = watching.job.key.endpoint().kind;
    let first = watching.notice.as_deref().map(|notice| told_first(kind, notice));
    let state = (watching, attendance, first);
    let frames = stream::unfold(state, move |(mut watching, mut attendance, first)| async move {
        if let Some(first) = first {
            return Some((Ok(Frame::data(first)), (watching, attendance, None)));
        }
        // However much comes that this client does not see (R11).
        let silence = Instant::now() + heartbeat;
        loop {
            let bytes = match timeout_at(silence, watching.cursor.next()).await {
                Ok(Some(batch)) => {
                    attendance.give(&batch);
                    view.write(&watching, &batch)
                }
                Ok(None) => return None,
                Err(_) => {
                    attendance.wait();
                    KEEPALIVE
                }
            };
            if !bytes.is_empty() {
                return Some((Ok::<_, BoxError>(Frame::data(bytes)), (watching, attendance, None)));
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// What is left of the job `id` of `kind`, which has ended: `frames`, before which `missed` are gone. The
/// client must be told `notice` about where its stream starts; `span` is that of the job.
pub(super) fn stored(
    kind: Kind,
    id: JobId,
    notice: Option<&str>,
    missed: u64,
    frames: Vec<StoredFrame>,
    view: View,
    span: &Span,
) -> Body {
    let mut pieces: VecDeque<Bytes> = notice.map(|notice| told_first(kind, notice)).into_iter().collect();
    if missed > 0 {
        span.in_scope(|| telemetry::Gap { missed }.emit());
        // A stream begins with `started`, and this may be its beginning.
        let is_first = pieces.is_empty();
        pieces.push_back(gap(kind, if is_first { Status::Started } else { Status::Progress }, missed));
    }
    let seen = frames.into_iter().filter(|frame| view.all_events || is_ours(&frame.bytes));
    for frame in seen {
        let mut bytes = BytesMut::new();
        view.put(&mut bytes, id, frame.sequence, &frame.bytes);
        pieces.push_back(bytes.freeze());
    }
    let frames = stream::iter(pieces.into_iter().map(|bytes| Ok::<_, BoxError>(Frame::data(bytes))));
    StreamBody::new(frames).boxed_unsync()
}

impl View {
    /// The payloads of it, which a job may not have kept.
    pub(super) fn payloads(self) -> Kept {
        Kept { all_events: false, payloads: self.payloads }
    }

    /// Whole frames in one piece.
    fn write(&self, watching: &Watching, batch: &Batch) -> Bytes {
        let job = &watching.job;
        if let ([only], 0, false) = (batch.frames.as_slice(), batch.missed, self.ids) {
            return self.see(only).cloned().unwrap_or_default();
        }
        let mut whole = BytesMut::new();
        let mut missed = batch.missed;
        for frame in &batch.frames {
            // A stream begins with its first frame, whatever is gone behind that.
            if missed > 0 && frame.sequence > FIRST {
                whole.extend_from_slice(&gap(job.key.endpoint().kind, Status::Progress, missed));
                missed = 0;
            }
            if let Some(bytes) = self.see(frame) {
                self.put(&mut whole, job.id, frame.sequence, bytes);
            }
        }
        whole.freeze()
    }

    fn see<'a>(&self, frame: &'a Logged) -> Option<&'a Bytes> {
        match (&frame.with_payload, frame.name) {
            (_, FrameName::Extra) if !self.all_events => None,
            (Some(longer), _) if self.payloads => Some(longer),
            _ => Some(&frame.bytes),
        }
    }

    /// Writes a frame, with its id as its first line, if the client wants ids (R1).
    fn put(&self, out: &mut BytesMut, job: JobId, sequence: u64, frame: &[u8]) {
        if self.ids {
            out.extend_from_slice(format!("id: {job}.{sequence}\n").as_bytes());
        }
        out.extend_from_slice(frame);
    }
}

/// Whether a frame is one of the three that every client is given, and not of the backend's own types.
fn is_ours(frame: &[u8]) -> bool {
    ["event: step\n", "event: error\n", "event: complete\n"]
        .iter()
        .any(|name| frame.starts_with(name.as_bytes()))
}

fn told_first(kind: Kind, notice: &str) -> Bytes {
    aside(&Step::stage(kind.row().step, Status::Started, notice))
}

fn gap(kind: Kind, status: Status, missed: u64) -> Bytes {
    let events =
        if missed == 1 { "1 earlier event is".to_owned() } else { format!("{missed} earlier events are") };
    let message = format!("{events} no longer kept and could not be sent.");
    aside(&Step::stage(kind.row().step, status, message))
}
