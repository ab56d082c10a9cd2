//! The body of a replayed response: recorded parts at their times, with injected faults.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::Instant;

use super::answer::{BodyPart, RecordedResponse};
use super::line::{ConnectionDropped, ConnectionHandle};
use super::misbehaviour::{Fault, FaultCounter, JSON_GARBAGE, SSE_GARBAGE, end_of_event};
use super::speed::Speed;

/// The body of every response.
pub(super) type Body = UnsyncBoxBody<Bytes, ConnectionDropped>;

/// A complete body.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The body of a recorded answer to a request that was received at `start`.
pub(super) fn replayed(
    answer: RecordedResponse,
    start: Instant,
    speed: Speed,
    count: FaultCounter,
    line: ConnectionHandle,
) -> Body {
    let is_sse = answer.is_sse();
    let player = BodyPlayer {
        start,
        speed,
        is_sse,
        counted: false,
        parts: answer.parts,
        unsent: Bytes::new(),
        last: None,
        count,
        line,
    };
    let frames = stream::unfold(player, |mut player| async move {
        let next = player.next().await?;
        Some((next.map(Frame::data), player))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct BodyPlayer {
    start: Instant,
    speed: Speed,
    is_sse: bool,
    /// Whether the end of a body that is not an event stream was reached.
    counted: bool,
    parts: VecDeque<(Duration, BodyPart)>,
    /// The rest of the current part.
    unsent: Bytes,
    /// The last byte sent of an incomplete event.
    last: Option<u8>,
    count: FaultCounter,
    line: ConnectionHandle,
}

impl BodyPlayer {
    async fn next(&mut self) -> Option<Result<Bytes, ConnectionDropped>> {
        loop {
            match self.count.due() {
                Some(Fault::Garbage) => {
                    let garbage = if self.is_sse { SSE_GARBAGE } else { JSON_GARBAGE };
                    return Some(Ok(Bytes::from_static(garbage)));
                }
                Some(Fault::Cut) => return Some(Err(self.line.cut().await)),
                Some(Fault::Stall) => return std::future::pending().await,
                None => {}
            }
            if !self.unsent.is_empty() {
                return Some(Ok(self.piece()));
            }
            let Some((after, part)) = self.parts.pop_front() else {
                // The recorder disconnected here, with the backend still connected.
                return std::future::pending().await;
            };
            self.speed.wait(self.start, after).await;
            match part {
                BodyPart::Data(bytes) => self.unsent = bytes,
                BodyPart::Cut => return Some(Err(self.line.cut().await)),
                BodyPart::End if !self.is_sse && !self.counted => {
                    // The whole body is one frame. A fault that is due after it comes before its end.
                    self.count.frame();
                    self.counted = true;
                    self.parts.push_front((after, BodyPart::End));
                }
                BodyPart::End => return None,
            }
        }
    }

    /// The next piece to send: up to the end of an event if frames are counted, else all.
    fn piece(&mut self) -> Bytes {
        if !self.is_sse || !self.count.is_armed() {
            return std::mem::take(&mut self.unsent);
        }
        let before = self.last.as_slice();
        match end_of_event(before, &self.unsent) {
            Some(end) => {
                self.last = None;
                self.count.frame();
                self.unsent.split_to(end)
            }
            None => {
                self.last = self.unsent.last().copied();
                std::mem::take(&mut self.unsent)
            }
        }
    }
}
