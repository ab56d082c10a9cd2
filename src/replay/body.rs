//! The body of a replayed response: recorded parts at their times, and the trouble that was asked for.

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

/// The body of any response here.
pub(super) type Body = UnsyncBoxBody<Bytes, ConnectionDropped>;

/// A body that is there at once.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The body of a recorded answer to a request that came at `start`.
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
    /// The end of a body that is no stream of events was reached.
    counted: bool,
    parts: VecDeque<(Duration, BodyPart)>,
    /// What is left of the part that is being sent.
    unsent: Bytes,
    /// The last byte of an event that is not complete.
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
                // The recorder left here, with the backend still connected.
                return std::future::pending().await;
            };
            self.speed.wait(self.start, after).await;
            match part {
                BodyPart::Data(bytes) => self.unsent = bytes,
                BodyPart::Cut => return Some(Err(self.line.cut().await)),
                BodyPart::End if !self.is_sse && !self.counted => {
                    // The whole body was one frame, and what is due after it comes before its end.
                    self.count.frame();
                    self.counted = true;
                    self.parts.push_front((after, BodyPart::End));
                }
                BodyPart::End => return None,
            }
        }
    }

    /// As much as can go before somebody has to count.
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
