//! One run as a state machine. Backend events are its input; the next actions are its output.
//!
//! A session owns no socket and no clock. Its driver opens the connections it requests, passes in every event with the
//! time since the run began, and calls it again at [`Session::deadline`].

mod ending;
mod socket;
mod timer;
mod waiting;

use std::borrow::Cow;
use std::time::Duration;

use super::normalizer::{Normalizer, NormalizerOptions};
use super::plan::{Leg, RunPlan};
use crate::core::domain::channel::Channel;
use crate::core::domain::counts::Counts;
use crate::core::domain::credential::ApiKey;
use crate::core::domain::event::Failure;
use crate::core::domain::figures::ResultSummary;
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::domain::object::Object;
use crate::core::domain::outcome::{Cause, ObjectFailure, RunReport};
use crate::core::domain::refusal::{ErrorResponse, Refusal};
use crate::core::domain::release::Release;
use crate::core::upstream::dialect::Dialect;
use crate::core::upstream::fact::{Fact, Stage};
use crate::core::upstream::json::{JsonResult, is_nothing_to_do, parse_result};
use crate::core::upstream::{native, python};
use crate::core::wire::sse::frame::Frame;
use crate::core::wire::sse::parser::{SseItem, SseParser};
use crate::core::wire::traffic::{FrameCounts, FrameType};
use socket::SocketLeg;

pub use waiting::PendingRun;

/// The delay between a notice and the frame before it. The plugin writes at most one frame per 1.5 s into the log of
/// NetBox's job and drops the others.
pub const NOTICE_GAP: Duration = Duration::from_millis(1600);

/// The timeouts and limits of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// How long a client waits for its status line until the backend accepts the work.
    pub accept_wait: Duration,
    /// From a request to the backend's response head, or to its greeting on `/ws`.
    pub response_head: Duration,
    /// How long the backend may send no event. Comments and pings do not count as events.
    pub idle: Duration,
    /// The maximum duration of a run.
    pub total: Duration,
    /// The silence after a terminal event that ends the wait for late events.
    pub settle: Duration,
    /// The maximum duration of that wait. Never less than `settle`.
    pub settle_total: Duration,
    /// The `Retry-After` sent to clients if the backend is unreachable, in seconds.
    pub retry_after: u64,
    /// The maximum size of an event, in bytes of data.
    pub event_bytes: usize,
}

/// The input that a session needs before it starts.
#[derive(Clone, Debug)]
pub struct SessionSetup {
    /// The requested endpoint.
    pub endpoint: SyncEndpoint,
    /// How to drive it.
    pub plan: RunPlan,
    /// The options of the stream for the watchers.
    pub options: NormalizerOptions,
    /// The timeouts and limits.
    pub limits: SessionLimits,
    /// The backend's release, if known.
    pub release: Option<Release>,
    /// The dialect of the backend's `/ws`, if known.
    pub dialect: Option<Dialect>,
    /// The API key for `/ws`.
    pub credential: Option<ApiKey>,
    /// The unique id of this run: 8 to 64 letters, digits, `_` and `-`.
    pub run_id: String,
    /// Messages for watchers before the work begins.
    pub notices: Vec<String>,
    /// The names of all guests, for dialects whose `/ws` frames do not report each one.
    pub guests: Vec<String>,
}

/// An event on the connection of a leg, or a timer.
#[derive(Clone, Copy, Debug)]
pub enum SessionEvent<'a> {
    /// The backend accepted the request: its stream begins, or its socket is open.
    Opened,
    /// The backend answered with neither a stream nor a socket.
    Answered(ErrorResponse<'a>),
    /// The backend could not be reached; nothing was sent.
    Unreachable(&'a str),
    /// Bytes of a stream.
    Bytes(&'a [u8]),
    /// A text frame of a socket.
    Text(&'a str),
    /// The connection closed.
    Closed(CloseReason<'a>),
    /// A deadline has passed.
    Tick,
    /// The bridge stops the run.
    Stopped(Cause),
}

/// How a connection closed.
#[derive(Clone, Copy, Debug)]
pub enum CloseReason<'a> {
    /// Cleanly, as far as the transport can tell.
    Cleanly,
    /// It broke, for this reason.
    Broken(&'a str),
    /// With a close frame.
    Frame {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: &'a str,
    },
}

/// The next actions. The driver carries out the fields in their order.
#[derive(Debug, Default)]
pub struct SessionOutput {
    /// Discard the cached capabilities of the backend: they are wrong.
    pub invalidate_capabilities: bool,
    /// The status line may be sent.
    pub accepted: bool,
    /// Why the run was refused, with or without a stream. The run is over.
    pub refusal: Option<Refusal>,
    /// Answer with this instead of a stream.
    pub refused: Option<Refusal>,
    /// Send these frames to the watchers.
    pub frames: Vec<Frame>,
    /// Record these failed objects.
    pub failed: Vec<ObjectFailure>,
    /// Close the leg's connection.
    pub close: bool,
    /// Open a connection for this leg.
    pub open: Option<Leg>,
    /// Send these text frames.
    pub send: Vec<String>,
    /// The run is over.
    pub end: Option<RunReport>,
}

impl SessionOutput {
    /// Whether there is nothing to do beyond sending frames and recording failed objects.
    pub fn has_only_frames(&self) -> bool {
        let Self { invalidate_capabilities, accepted, refusal, refused, close, open, send, end, .. } = self;
        let is_due = *invalidate_capabilities || *accepted || *close;
        !is_due
            && refusal.is_none()
            && refused.is_none()
            && open.is_none()
            && send.is_empty()
            && end.is_none()
    }
}

#[derive(Debug)]
enum Phase {
    /// The leg's request is in flight.
    Opening,
    /// A stream is being read.
    Stream(Box<SseParser>),
    /// A socket is open.
    Socket(SocketLeg),
    /// The run is over.
    Over,
}

/// One run of one endpoint on one backend.
#[derive(Debug)]
pub struct Session {
    setup: SessionSetup,
    normalizer: Normalizer,
    phase: Phase,
    /// The index of the current leg. `legs[..leg]` are done.
    leg: usize,
    accepted: bool,
    leg_began: Duration,
    last_event: Duration,
    /// When the silence after a terminal event is long enough.
    settled: Option<Duration>,
    /// When the wait for late events ends in any case.
    settle_ends: Option<Duration>,
    /// When the next notice is due. Nothing is read from the backend until the last notice is sent.
    notice: Option<Duration>,
    received: ReceivedCounts,
}

/// What the backend has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedCounts {
    /// Events of streams, frames of sockets, and plain answers.
    pub frames: FrameCounts,
    /// Their size in bytes.
    pub bytes: u64,
    /// When the first of them arrived.
    pub first: Option<Duration>,
}

impl ReceivedCounts {
    fn note(&mut self, now: Duration, frame: FrameType) {
        self.frames.count(frame);
        self.first.get_or_insert(now);
    }
}

impl Session {
    fn new(setup: SessionSetup, normalizer: Normalizer) -> Self {
        Self {
            setup,
            normalizer,
            phase: Phase::Opening,
            leg: 0,
            accepted: false,
            leg_began: Duration::ZERO,
            last_event: Duration::ZERO,
            settled: None,
            settle_ends: None,
            notice: None,
            received: ReceivedCounts::default(),
        }
    }

    /// Handles an event at the time `now`.
    pub fn handle(&mut self, now: Duration, event: SessionEvent<'_>, out: &mut SessionOutput) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        let retry_after = self.setup.limits.retry_after;
        match event {
            SessionEvent::Opened => self.opened(now, out),
            SessionEvent::Answered(answer) => self.answered(now, answer, out),
            SessionEvent::Unreachable(why) => self.refuse(Refusal::unreachable(why, retry_after), out),
            SessionEvent::Bytes(bytes) => self.bytes(now, bytes, out),
            SessionEvent::Text(text) => {
                self.received.bytes += text.len() as u64;
                self.text(now, text, out);
            }
            SessionEvent::Closed(how) => self.closed(now, how, out),
            SessionEvent::Tick => self.tick(now, out),
            SessionEvent::Stopped(cause) if !self.accepted => {
                self.refuse(Refusal::stopped(cause, retry_after), out);
            }
            SessionEvent::Stopped(cause) => self.lost(now, cause, ending::stop_message(cause), out),
        }
        out.failed.append(&mut self.normalizer.new_failures);
    }

    /// Whether notices are still to be sent. Nothing is read from the backend until then.
    pub fn has_notices(&self) -> bool {
        self.notice.is_some()
    }

    /// The current counts of the run's objects.
    pub fn counts(&self) -> Counts {
        self.normalizer.tally.counts()
    }

    /// What the backend has sent so far.
    pub fn received(&self) -> ReceivedCounts {
        self.received
    }

    fn current(&self) -> Option<&Leg> {
        self.setup.plan.legs.get(self.leg)
    }

    fn channel(&self) -> Option<Channel> {
        self.current().map(|leg| leg.channel)
    }

    /// The kind that a failure of the leg is attributed to.
    fn leg_kind(&self) -> Kind {
        let kinds = self.current().map(|leg| leg.kinds.as_slice()).unwrap_or_default();
        kinds.last().copied().filter(|_| kinds.len() == 1).unwrap_or(self.setup.endpoint.kind)
    }

    fn open(&mut self, now: Duration, out: &mut SessionOutput) {
        self.phase = Phase::Opening;
        self.leg_began = now;
        self.last_event = now;
        self.settled = None;
        self.settle_ends = None;
        let Some(leg) = self.setup.plan.legs.get(self.leg) else {
            self.end(None, out);
            return;
        };
        let wants_key =
            leg.channel == Channel::Websocket && self.setup.dialect.is_some_and(Dialect::wants_key);
        if wants_key && self.setup.credential.is_none() {
            self.refuse(Refusal::key_missing(), out);
            return;
        }
        out.open = Some(leg.clone());
        if self.accepted && self.notice.is_none() {
            self.begin_leg(out);
        }
    }

    fn accept(&mut self, now: Duration, out: &mut SessionOutput) {
        if self.accepted {
            return;
        }
        self.accepted = true;
        out.accepted = true;
        self.normalizer.start(&mut out.frames);
        if self.setup.notices.is_empty() {
            self.begin(out);
        } else {
            self.notice = Some(now + NOTICE_GAP);
        }
    }

    /// Sends the next notice. Starts the work after the last one.
    fn send_notice(&mut self, now: Duration, out: &mut SessionOutput) {
        let notice = self.setup.notices.remove(0);
        self.normalizer.notice(&notice, &mut out.frames);
        self.notice = (!self.setup.notices.is_empty()).then_some(now + NOTICE_GAP);
        if self.notice.is_none() {
            // Reading from the backend resumes only now.
            self.last_event = now;
            self.begin(out);
        }
    }

    /// Sends all remaining notices at once, because the next event cannot wait.
    fn send_all_notices(&mut self, now: Duration, out: &mut SessionOutput) {
        while self.notice.is_some() {
            self.send_notice(now, out);
        }
    }

    fn begin(&mut self, out: &mut SessionOutput) {
        for kind in self.setup.plan.skipped.clone() {
            self.normalizer.skip(kind, None, &mut out.frames);
        }
        self.begin_leg(out);
    }

    fn begin_leg(&mut self, out: &mut SessionOutput) {
        let kinds = self.current().map(|leg| leg.kinds.clone()).unwrap_or_default();
        self.normalizer.begin_leg(&kinds, &mut out.frames);
        if kinds.contains(&Kind::VirtualMachines) && self.channel() == Some(Channel::Websocket) {
            self.normalizer.note_listed(Object::VirtualMachine, std::mem::take(&mut self.setup.guests));
        }
    }

    fn opened(&mut self, now: Duration, out: &mut SessionOutput) {
        self.last_event = now;
        match self.current() {
            Some(leg) if leg.channel == Channel::Websocket => {
                self.phase = Phase::Socket(SocketLeg::opened(leg, now));
                if self.setup.dialect.is_some_and(Dialect::wants_key) {
                    self.send_key(out);
                }
            }
            _ => {
                self.phase = Phase::Stream(Box::new(SseParser::new(self.setup.limits.event_bytes)));
                self.accept(now, out);
            }
        }
    }

    fn answered(&mut self, now: Duration, answer: ErrorResponse<'_>, out: &mut SessionOutput) {
        let kind = self.leg_kind();
        let is_idle = is_nothing_to_do(kind, answer.status, answer.body);
        match self.channel() {
            Some(Channel::Json) if is_idle || (200..300).contains(&answer.status) => {}
            Some(Channel::Websocket) => return self.refuse(Refusal::from_handshake(answer), out),
            _ => return self.refuse(Refusal::from_response(answer), out),
        }
        self.accept(now, out);
        self.send_all_notices(now, out);
        self.received.bytes += answer.body.len() as u64;
        self.received.note(now, FrameType::Complete);
        let limit = self.setup.limits.event_bytes;
        let unreadable = |error: String| Err(Failure::new(kind.row().step, error));
        let result = match answer.compressed() {
            _ if is_idle => Ok(JsonResult::empty()),
            Some(compressed) => unreadable(format!("The backend's answer cannot be read. {compressed}")),
            None if answer.body.len() >= limit => {
                unreadable(format!("The backend's answer has {limit} bytes or more (limits.event_bytes)."))
            }
            None => parse_result(kind, answer.body),
        };
        match result {
            Ok(JsonResult { figures, summary }) => {
                let finished = Fact::StageFinished { stage: Stage::Known(kind), figures };
                self.normalizer.apply(finished, &mut out.frames);
                self.normalizer.apply(completed(summary), &mut out.frames);
            }
            Err(failure) => self.normalizer.apply(Fact::Aborted(failure), &mut out.frames),
        }
        self.leg_done(now, None, out);
    }

    fn bytes(&mut self, now: Duration, bytes: &[u8], out: &mut SessionOutput) {
        let Phase::Stream(parser) = &mut self.phase else { return };
        let Self { normalizer, received, .. } = self;
        let frames = &mut out.frames;
        let before = received.frames.total();
        parser.feed(bytes, |item| {
            let (SseItem::Event { name, .. } | SseItem::Oversized { name, .. }) = &item;
            received.note(now, FrameType::from_event(name));
            apply_item(normalizer, item, frames);
        });
        received.bytes += bytes.len() as u64;
        if received.frames.total() > before {
            self.last_event = now;
            if self.normalizer.has_terminal() {
                // A second `complete` may follow, and a backend may fail to close the connection.
                self.settle_for_late_events(now);
            }
        }
    }

    fn closed(&mut self, now: Duration, how: CloseReason<'_>, out: &mut SessionOutput) {
        match &self.phase {
            Phase::Stream(_) if self.normalizer.has_terminal() => self.leg_done(now, None, out),
            Phase::Stream(_) => {
                let what = match how {
                    CloseReason::Broken(why) => format!("The connection to the backend broke ({why})"),
                    _ => "The backend ended its stream without a final event".to_owned(),
                };
                self.lost(now, Cause::BackendLost, &what, out);
            }
            Phase::Socket(_) => self.socket_closed(now, how, out),
            Phase::Opening => {
                let why = match how {
                    CloseReason::Broken(why) => {
                        format!("The connection broke before the backend answered ({why}).")
                    }
                    _ => "The backend closed the connection without an answer.".to_owned(),
                };
                self.refuse(Refusal::no_answer(&why, self.setup.limits.retry_after), out);
            }
            Phase::Over => {}
        }
    }
}

/// `bytes` as text, as [`String::from_utf8_lossy`] reads them. That takes ten times as long for valid text.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The backend's report that a leg succeeded.
fn completed(summary: ResultSummary) -> Fact<'static> {
    Fact::Complete { ok: Some(true), message: String::new(), detail: None, summary }
}

fn apply_item(normalizer: &mut Normalizer, item: SseItem<'_>, frames: &mut Vec<Frame>) {
    match item {
        SseItem::Event { name, data } => {
            let (name, data) = (lossy(name), lossy(data));
            normalizer.note_event_type(&name);
            let parse = if normalizer.keeps_payloads() {
                native::parse_event_with_payload
            } else {
                native::parse_event
            };
            let strict = python::has_surrogates(&data).then(|| python::to_strict(&data)).flatten();
            let data = strict.map_or(data, Cow::Owned);
            if let Ok(fact) = parse(&name, &data) {
                normalizer.pass_through(&name, &data, frames);
                normalizer.apply(fact, frames);
                return;
            }
            let strict = python::to_strict(&data).unwrap_or_default();
            normalizer.pass_through(&name, &strict, frames);
            match parse(&name, &strict).or_else(|_| native::unreadable(&name, &data)) {
                Ok(fact) => normalizer.apply(fact, frames),
                Err(native::UnreadableEvent) => normalizer.unreadable += 1,
            }
        }
        SseItem::Oversized { name: b"complete", bytes, head } => {
            let detail = format!("its final event has {bytes} bytes, more than limits.event_bytes allows");
            let summary = ResultSummary::default();
            let ok = native::ok_flag_in(head);
            let complete = Fact::Complete { ok, message: String::new(), detail: Some(detail), summary };
            normalizer.apply(complete, frames);
        }
        SseItem::Oversized { name: b"error", bytes, .. } => {
            let error = format!("The backend failed with an error of {bytes} bytes, more than is read.");
            normalizer.apply(Fact::Aborted(Failure::new("", error)), frames);
        }
        SseItem::Oversized { .. } => normalizer.unreadable += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::text::redact::Redactor;

    #[test]
    fn frames_and_failed_objects_are_all_there_is_to_do_until_any_other_action_is_due() {
        let none = SessionOutput::default;
        let frames = Normalizer::refusal_frames(Kind::Devices, &Refusal::key_missing(), &Redactor::default());
        let leg = Leg {
            endpoint: SyncEndpoint::for_kind(Kind::Devices),
            kinds: vec![Kind::Devices],
            channel: Channel::Native,
            command: None,
        };
        let refusal = || Some(Refusal::key_missing());
        assert!(none().has_only_frames());
        assert!(SessionOutput { frames, failed: vec![ObjectFailure::example()], ..none() }.has_only_frames());
        for other in [
            SessionOutput { invalidate_capabilities: true, ..none() },
            SessionOutput { accepted: true, ..none() },
            SessionOutput { refusal: refusal(), ..none() },
            SessionOutput { refused: refusal(), ..none() },
            SessionOutput { close: true, ..none() },
            SessionOutput { open: Some(leg), ..none() },
            SessionOutput { send: vec![String::new()], ..none() },
        ] {
            assert!(!other.has_only_frames(), "{other:?}");
        }
    }
}
