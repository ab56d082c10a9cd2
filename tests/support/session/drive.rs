//! Drives a session without a network: feeds it events and collects its output.

use std::time::Duration;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::{Kind, SyncEndpoint};
use proxbox_bridge::core::domain::outcome::RunReport;
use proxbox_bridge::core::domain::refusal::{ErrorResponse, Refusal};
use proxbox_bridge::core::domain::release::Release;
use proxbox_bridge::core::run::normalizer::NormalizerOptions;
use proxbox_bridge::core::run::plan::{Leg, RunPlan};
use proxbox_bridge::core::run::session::PendingRun;
use proxbox_bridge::core::run::session::{
    CloseReason, Session, SessionEvent, SessionLimits, SessionOutput, SessionSetup,
};
use proxbox_bridge::core::upstream::dialect::Dialect;
use proxbox_bridge::core::wire::sse::frame::FrameName;

use super::run::FinishedRun;

/// A session, and its output.
pub struct Drive {
    pub session: Session,
    out: SessionOutput,
    pub now: Duration,
    pub bytes: Vec<u8>,
    pub frames: Vec<String>,
    /// The last frame with its whole result.
    end_with_result: Vec<u8>,
    pub opened: Vec<Leg>,
    pub sent: Vec<String>,
    pub accepted: bool,
    pub refused: Option<Refusal>,
    pub end: Option<RunReport>,
    /// How often the connection was to be closed.
    pub closed: usize,
}

pub const LIMITS: SessionLimits = SessionLimits {
    accept_wait: Duration::from_secs(10),
    response_head: Duration::from_secs(600),
    idle: Duration::from_secs(1800),
    total: Duration::from_secs(21_600),
    settle: Duration::from_secs(3),
    settle_total: Duration::from_secs(30),
    retry_after: 30,
    event_bytes: 1 << 20,
};

/// A run of `kind` over one channel.
pub fn setup(kind: Kind, channel: Channel) -> SessionSetup {
    let endpoint = SyncEndpoint::for_kind(kind);
    let command = kind.row().command.filter(|_| channel == Channel::Websocket);
    let kinds = match (kind, channel) {
        (Kind::FullUpdate, Channel::Websocket) => vec![Kind::Devices, Kind::VirtualMachines],
        _ => vec![kind],
    };
    SessionSetup {
        endpoint,
        plan: RunPlan { legs: vec![Leg { endpoint, kinds, channel, command }], skipped: Vec::new() },
        options: NormalizerOptions::default(),
        limits: LIMITS,
        release: Some(Release::new(0, 0, 30)),
        dialect: Some(Dialect::V0_0_4),
        credential: None,
        run_id: "run-0123456789".to_owned(),
        notices: Vec::new(),
        guests: Vec::new(),
    }
}

impl Drive {
    pub fn start(setup: SessionSetup) -> Self {
        Self::start_late(setup, 0)
    }

    /// A session that has been queued, and has reported it this many times.
    pub fn start_late(setup: SessionSetup, times: usize) -> Self {
        let mut out = SessionOutput::default();
        let mut waiting = PendingRun::new(setup.endpoint.kind, setup.options.clone());
        for _ in 0..times {
            waiting.report("Waiting for its turn.", &mut out);
        }
        let session = waiting.drive(setup, &mut out);
        let mut drive = Self {
            session,
            out,
            now: Duration::ZERO,
            bytes: Vec::new(),
            frames: Vec::new(),
            end_with_result: Vec::new(),
            opened: Vec::new(),
            sent: Vec::new(),
            accepted: false,
            refused: None,
            end: None,
            closed: 0,
        };
        drive.follow();
        drive
    }

    pub fn event(&mut self, event: SessionEvent<'_>) -> &mut Self {
        self.session.handle(self.now, event, &mut self.out);
        self.follow();
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.event(SessionEvent::Text(text))
    }

    pub fn stream(&mut self, text: &str) -> &mut Self {
        self.event(SessionEvent::Bytes(text.as_bytes()))
    }

    pub fn open(&mut self) -> &mut Self {
        self.event(SessionEvent::Opened)
    }

    /// The backend closes the connection cleanly.
    pub fn hang_up(&mut self) -> &mut Self {
        self.event(SessionEvent::Closed(CloseReason::Cleanly))
    }

    pub fn close(&mut self, code: u16, reason: &str) -> &mut Self {
        self.event(SessionEvent::Closed(CloseReason::Frame { code, reason }))
    }

    pub fn answer(&mut self, status: u16, body: &str) -> &mut Self {
        self.event(SessionEvent::Answered(ErrorResponse {
            status,
            retry_after: None,
            body: body.as_bytes(),
            ..ErrorResponse::default()
        }))
    }

    /// The result of a finished run.
    pub fn run(&self) -> FinishedRun {
        FinishedRun::read(&self.bytes, self.end.clone().expect("the run is over"))
    }

    /// The data of `complete` with the full result.
    pub fn whole_end(&self) -> serde_json::Value {
        let text = std::str::from_utf8(&self.end_with_result).expect("frames are UTF-8");
        let data = text.strip_prefix("event: complete\ndata: ").expect("the last frame");
        serde_json::from_str(data).expect("an event is JSON")
    }

    /// The answer that a client got in place of a stream.
    pub fn refusal(&self) -> &Refusal {
        assert!(self.bytes.is_empty() && self.end.is_some());
        self.refused.as_ref().expect("the run was refused")
    }

    /// Lets time pass, with a tick at every deadline.
    pub fn wait(&mut self, time: Duration) -> &mut Self {
        let until = self.now + time;
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= until) {
            let before = (self.now, self.session.deadline());
            self.now = self.now.max(deadline);
            self.event(SessionEvent::Tick);
            assert_ne!(before, (self.now, self.session.deadline()), "a tick at a deadline changes something");
        }
        self.now = until;
        self
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.session.deadline()
    }

    fn follow(&mut self) {
        let out = std::mem::take(&mut self.out);
        assert!(!(out.accepted && out.refused.is_some()), "accepted and refused");
        assert!(!(self.accepted && out.refused.is_some()), "refused after it was accepted");
        self.accepted |= out.accepted;
        assert!(self.accepted || out.frames.is_empty(), "frames before the status line");
        assert!(
            self.end.is_none() || (out.frames.is_empty() && out.end.is_none()),
            "something after the end"
        );
        if out.refused.is_some() {
            self.refused = out.refused;
        }
        for frame in out.frames {
            let is_end = frame.name == FrameName::Complete;
            let longer = frame.with_payload();
            let bytes = if is_end { frame.bytes } else { longer.clone() };
            self.end_with_result = if is_end { longer.to_vec() } else { Vec::new() };
            self.bytes.extend_from_slice(&bytes);
            self.frames.push(String::from_utf8(bytes.to_vec()).expect("frames are UTF-8"));
        }
        self.closed += usize::from(out.close);
        self.opened.extend(out.open);
        self.sent.extend(out.send);
        if out.end.is_some() {
            self.end = out.end;
        }
    }
}
