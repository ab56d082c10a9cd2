//! Logs of jobs: from recordings of real backends, and from the golden streams.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::core::domain::channel::Channel;
use crate::core::domain::event::StepStatus;
use crate::core::domain::kind::{Kind, SyncEndpoint, WsCommand};
use crate::core::legacy_client::{
    ClientCommand, GREETING, LegacyClient, parse_command, unknown_command_frames,
};
use crate::core::run::normalizer::NormalizerOptions;
use crate::core::run::plan::{Leg, RunPlan};
use crate::core::run::session::{
    CloseReason, PendingRun, Session, SessionEvent, SessionLimits, SessionOutput, SessionSetup,
};
use crate::core::upstream::dialect::{BARRIER, Dialect};
use crate::core::upstream::lenient::LenientText;
use crate::core::wire::sse::frame::{Frame, FrameName};

/// The frames of one log.
pub(super) type Log = Vec<Vec<u8>>;

pub(super) const RUN_ID: &str = "run-0123456789";

/// The log in a golden stream.
pub(super) fn golden(snapshot: &str) -> Log {
    let body = &snapshot[snapshot.find("\nevent: ").expect("it is a stream") + 1..];
    body.trim_end().split("\n\n").map(|frame| format!("{frame}\n\n").into_bytes()).collect()
}

/// The frame of an event whose payload is a field of its data.
pub(super) fn frame(event: &[u8]) -> Frame {
    #[derive(Default, Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'a"))]
    struct Fields<'a> {
        status: LenientText<'a>,
        payload: Option<&'a RawValue>,
    }

    let text = str::from_utf8(event).ok();
    let event_parts = text.and_then(|text| text.strip_prefix("event: ")?.split_once("\ndata: "));
    let (name, data) = event_parts.unwrap_or_default();
    let fields: Fields<'_> = serde_json::from_str(data).unwrap_or_default();
    let name = match name {
        "step" => FrameName::from_name(fields.status.or_empty())
            .filter(|name| matches!(name, FrameName::Step(_)))
            .unwrap_or(FrameName::Step(StepStatus::Progress)),
        "error" => FrameName::Error,
        "complete" => FrameName::Complete,
        _ => FrameName::Extra,
    };
    let payload = fields.payload.map(|payload| Bytes::copy_from_slice(payload.get().as_bytes()));
    Frame { name, bytes: Bytes::copy_from_slice(event), payload }
}

/// The objects with a table in a log, by type and name, and whether they completed.
pub(super) fn objects(log: &Log) -> BTreeMap<(String, String), bool> {
    let mut objects = BTreeMap::new();
    for step in events(log, "step") {
        let text = |key: &str| step[key].as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        let (Some(word), Some(name)) = (text("step"), text("rowid")) else { continue };
        if matches!(word.as_str(), "device" | "virtual_machine") {
            *objects.entry((word, name)).or_default() |= step["status"] == "completed";
        }
    }
    objects
}

/// The number of objects of a type in a log, and how many of them completed.
pub(super) fn count_objects(log: &Log, object: &str) -> (usize, usize) {
    let objects = objects(log);
    let ends: Vec<bool> =
        objects.iter().filter(|((word, _), _)| word == object).map(|(_, done)| *done).collect();
    (ends.len(), ends.iter().filter(|done| **done).count())
}

/// The data of the events named `name`.
pub(super) fn events(log: &Log, name: &str) -> Vec<Value> {
    let head = format!("event: {name}\ndata: ");
    let data = log.iter().filter_map(|frame| std::str::from_utf8(frame).ok()?.strip_prefix(&head));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// A full update of one leg, and its log.
struct Driven {
    session: Session,
    out: SessionOutput,
    log: Log,
    sent: Vec<String>,
}

impl Driven {
    fn new(channel: Channel, dialect: Dialect) -> Self {
        let kind = Kind::FullUpdate;
        let (command, kinds) = match channel {
            Channel::Websocket => (kind.row().command, vec![Kind::Devices, Kind::VirtualMachines]),
            _ => (None, vec![kind]),
        };
        let endpoint = SyncEndpoint::for_kind(kind);
        let long = Duration::from_secs(600);
        let options = NormalizerOptions { payloads: true, ..NormalizerOptions::default() };
        let setup = SessionSetup {
            endpoint,
            plan: RunPlan { legs: vec![Leg { endpoint, kinds, channel, command }], skipped: Vec::new() },
            options: options.clone(),
            limits: SessionLimits {
                accept_wait: long,
                response_head: long,
                idle: long,
                total: long * 100,
                settle: Duration::from_secs(3),
                settle_total: Duration::from_secs(30),
                retry_after: 30,
                event_bytes: 1 << 20,
            },
            release: None,
            dialect: Some(dialect),
            credential: Some("0123456789abcdef".parse().unwrap()),
            run_id: RUN_ID.to_owned(),
            notices: Vec::new(),
            guests: Vec::new(),
        };
        let mut out = SessionOutput::default();
        let session = PendingRun::new(kind, options).drive(setup, &mut out);
        let mut driven = Self { session, out, log: Vec::new(), sent: Vec::new() };
        driven.event(SessionEvent::Opened);
        driven
    }

    fn event(&mut self, event: SessionEvent<'_>) {
        self.session.handle(Duration::from_secs(1), event, &mut self.out);
        let SessionOutput { frames, send, .. } = std::mem::take(&mut self.out);
        self.log.extend(frames.iter().map(|frame| frame.with_payload().to_vec()));
        self.sent.extend(send);
    }

    fn over(mut self) -> Log {
        if let Some(deadline) = self.session.deadline() {
            // The wait for late events is over.
            self.session.handle(deadline, SessionEvent::Tick, &mut self.out);
            self.log.extend(self.out.frames.iter().map(|frame| frame.bytes.to_vec()));
        }
        assert!(self.session.deadline().is_none(), "the run is over");
        self.log
    }
}

/// The log of a job over `/ws`, from a recording.
pub(super) fn log_of_socket(recording: &str, dialect: Dialect) -> Log {
    let mut driven = Driven::new(Channel::Websocket, dialect);
    for line in recording.lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        match (line["dir"].as_str().unwrap(), line["kind"].as_str().unwrap()) {
            ("in", "text") => driven.event(SessionEvent::Text(line["text"].as_str().unwrap())),
            ("in", "close") => {
                driven.event(SessionEvent::Closed(CloseReason::Frame { code: 1000, reason: "" }))
            }
            ("ctl", "returned") if !dialect.correlates() => {
                driven.event(SessionEvent::Text(&format!("Invalid command: {BARRIER}")));
            }
            ("ctl", "returned") => driven.event(SessionEvent::Text("Invalid sync command")),
            _ => {}
        }
    }
    driven.over()
}

/// The log of a job over a native stream, from a recording.
pub(super) fn log_of_stream(recording: &str) -> Log {
    let mut driven = Driven::new(Channel::Native, Dialect::V0_0_7);
    for line in recording.lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        if let (Some("body"), Some(text)) = (line["kind"].as_str(), line["text"].as_str()) {
            driven.event(SessionEvent::Bytes(text.as_bytes()));
        }
    }
    driven.event(SessionEvent::Closed(CloseReason::Cleanly));
    driven.over()
}

/// The log of a bridge in front of this one. It receives the frames that pages receive; `log` is the log of this
/// bridge.
pub(super) fn relayed(log: &Log, dialect: Dialect) -> Log {
    let mut driven = Driven::new(Channel::Websocket, dialect);
    let mut answers: Vec<String> = Vec::new();
    if !dialect.wants_key() {
        answers.extend(GREETING.map(str::to_owned));
    }
    for _ in 0..4 {
        for frame in std::mem::take(&mut driven.sent) {
            match parse_command(&frame) {
                ClientCommand::Key(_) => answers.extend(GREETING.map(str::to_owned)),
                ClientCommand::Sync { command, run_id } => {
                    answers.extend(page(log, command, run_id.as_deref()).0);
                }
                ClientCommand::Unknown { text, run_id } => {
                    answers.extend(unknown_command_frames(&text, run_id.as_deref()));
                }
            }
        }
        for answer in answers.drain(..) {
            driven.event(SessionEvent::Text(&answer));
        }
    }
    driven.over()
}

/// All frames that a page receives for a log.
pub(super) fn page(log: &Log, command: WsCommand, run_id: Option<&str>) -> (Vec<String>, LegacyClient) {
    let mut page = LegacyClient::new(command, run_id.map(str::to_owned));
    let mut out = page.greeting();
    for frame in log {
        assert_eq!(page.ending, None, "complete is the last frame");
        page.push_frame(&self::frame(frame), &mut out);
    }
    (out, page)
}
