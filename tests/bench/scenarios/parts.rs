//! Parts of the core.

use std::hint::black_box;
use std::time::Duration;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::event::{Step, StepStatus};
use proxbox_bridge::core::domain::kind::{Kind, SyncEndpoint, WsCommand};
use proxbox_bridge::core::run::normalizer::{Normalizer, NormalizerOptions};
use proxbox_bridge::core::run::plan::Leg;
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent, SessionOutput};
use proxbox_bridge::core::upstream::dialect::{Dialect, parse_frame};
use proxbox_bridge::core::upstream::native::parse_event;
use proxbox_bridge::core::wire::sse::encoder::SseEncoder;
use proxbox_bridge::core::wire::sse::parser::{SseItem, SseParser};
use proxbox_bridge::recording::{Direction, RecordedEvent};

use super::{native_stream, recording, session};

/// Full updates of two vocabularies of events.
const NATIVE: [&str; 2] = ["0.0.11.post2/sse/full-update.ndjson", "0.0.30.post2/sse/full-update.ndjson"];
/// Full updates of three dialects of `/ws`.
const WEBSOCKET: [(&str, Dialect); 3] = [
    ("0.0.2.post1/ws/full-update-sync.ndjson", Dialect::V0_0_2),
    ("0.0.11.post2/ws/full-update-sync.ndjson", Dialect::V0_0_7),
    ("0.0.30.post2/ws/full-update-sync.ndjson", Dialect::V0_0_27),
];
/// The size of what is read from a socket at once.
const PIECE: usize = 8192;

/// The events of the recorded native streams, with their names.
fn native_events() -> Vec<(String, String)> {
    let mut events = Vec::new();
    for name in NATIVE {
        SseParser::new(1 << 20).feed(&native_stream(name), |item| {
            if let SseItem::Event { name, data } = item {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                events.push((text(name), text(data)));
            }
        });
    }
    assert!(events.len() > 200, "{}", events.len());
    events
}

/// The text frames of a recorded conversation that the backend sent.
fn websocket_frames(name: &str) -> Vec<String> {
    let frames = recording(name).frames.into_iter().filter_map(|frame| match frame.event {
        RecordedEvent::Text(text) if frame.direction == Direction::In => Some(text),
        _ => None,
    });
    frames.collect()
}

pub fn parser(rounds: u64) {
    let streams = NATIVE.map(native_stream);
    for _ in 0..rounds {
        for stream in &streams {
            let mut parser = SseParser::new(1 << 20);
            for piece in stream.chunks(PIECE) {
                parser.feed(black_box(piece), |item| {
                    black_box(item);
                });
            }
        }
    }
}

pub fn native(rounds: u64) {
    let events = native_events();
    for _ in 0..rounds {
        for (name, data) in &events {
            black_box(parse_event(black_box(name), data).expect("a recorded event"));
        }
    }
}

pub fn dialect(rounds: u64) {
    let frames: Vec<String> = WEBSOCKET.iter().flat_map(|(name, _)| websocket_frames(name)).collect();
    for _ in 0..rounds {
        for frame in &frames {
            black_box(parse_frame(black_box(frame)));
        }
    }
}

/// Facts are consumed, so that their parsing counts, too.
pub fn normalizer(rounds: u64) {
    let events = native_events();
    for _ in 0..rounds {
        let mut normalizer = Normalizer::new(Kind::FullUpdate, NormalizerOptions::default());
        let mut out = Vec::new();
        normalizer.start(&mut out);
        normalizer.begin_leg(&[Kind::FullUpdate], &mut out);
        for (name, data) in &events {
            let fact = parse_event(name, data).expect("a recorded event");
            normalizer.apply(black_box(fact), &mut out);
        }
        black_box(normalizer.finish(None, &mut out));
    }
}

pub fn encoder(rounds: u64) {
    let step = |number: usize| Step {
        rowid: Some(format!("vm{number:04}").into()),
        ..Step::stage(
            "virtual_machine",
            StepStatus::Completed,
            format!("Synced virtual machine café {number}"),
        )
    };
    let steps: Vec<Step<'_>> = (0..200).map(step).collect();
    for _ in 0..rounds {
        let (mut encoder, frame) = SseEncoder::start(&steps[0]);
        black_box(frame);
        for step in &steps {
            black_box(encoder.step(black_box(step)));
        }
    }
}

fn session(
    kind: Kind,
    (channel, dialect): (Channel, Dialect),
    events: impl FnOnce(&mut dyn FnMut(SessionEvent<'_>)),
) {
    let endpoint = SyncEndpoint::for_kind(kind);
    let command = Some(WsCommand::FullUpdate).filter(|_| channel == Channel::Websocket);
    let kinds = if command.is_some() { vec![Kind::Devices, Kind::VirtualMachines] } else { vec![kind] };
    let mut out = SessionOutput::default();
    let mut session = session::start(Leg { endpoint, kinds, channel, command }, dialect, &mut out);
    let mut handle = |event: SessionEvent<'_>| {
        session.handle(Duration::ZERO, event, &mut out);
        black_box(out.frames.len());
        out.frames.clear();
    };
    handle(SessionEvent::Opened);
    events(&mut handle);
    handle(SessionEvent::Closed(CloseReason::Cleanly));
}

pub fn native_session(rounds: u64) {
    let streams = NATIVE.map(native_stream);
    for _ in 0..rounds {
        for stream in &streams {
            session(Kind::FullUpdate, (Channel::Native, Dialect::V0_0_7), |handle| {
                for piece in stream.chunks(PIECE) {
                    handle(SessionEvent::Bytes(black_box(piece)));
                }
            });
        }
    }
}

pub fn websocket_session(rounds: u64) {
    let conversations = WEBSOCKET.map(|(name, dialect)| (websocket_frames(name), dialect));
    for _ in 0..rounds {
        for (frames, dialect) in &conversations {
            session(Kind::FullUpdate, (Channel::Websocket, *dialect), |handle| {
                for frame in frames {
                    handle(SessionEvent::Text(black_box(frame)));
                }
            });
        }
    }
}
