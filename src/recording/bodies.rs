//! Bodies whose parts can be read alone.

use std::mem;

use super::{Direction, RecordedEvent, RecordedFrame, Recording};

impl Recording {
    /// Joins the parts of bodies, so that nothing lies across two of them: the parts of an event stream end with a line, and
    /// another body is one part.
    pub(crate) fn join_bodies(&mut self) {
        let (mut joined, mut held, mut t_ms, mut is_stream) = (Vec::new(), Vec::new(), 0.0, false);
        let push = |joined: &mut Vec<RecordedFrame>, t_ms, bytes: Vec<u8>| {
            if !bytes.is_empty() {
                joined.push(RecordedFrame {
                    t_ms,
                    direction: Direction::In,
                    event: RecordedEvent::Body(bytes.into()),
                });
            }
        };
        for frame in mem::take(&mut self.frames) {
            match &frame.event {
                RecordedEvent::Body(bytes) => {
                    held.extend_from_slice(bytes);
                    let end =
                        if is_stream { memchr::memrchr(b'\n', &held).map_or(0, |at| at + 1) } else { 0 };
                    let rest = held.split_off(end);
                    t_ms = frame.t_ms;
                    push(&mut joined, t_ms, mem::replace(&mut held, rest));
                }
                event => {
                    if let RecordedEvent::Response { headers, .. } = event {
                        is_stream = headers.iter().any(|(_, value)| value.starts_with("text/event-stream"));
                    }
                    push(&mut joined, t_ms, mem::take(&mut held));
                    joined.push(frame);
                }
            }
        }
        push(&mut joined, t_ms, held);
        self.frames = joined;
    }
}
