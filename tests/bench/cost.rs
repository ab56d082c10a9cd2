//! What one frame costs: the parser, a legacy frame, a native event.
//!
//! Each benchmark does `FRAMES` frames in one run and reports the throughput in items, so that the time
//! for one is the inverse. Budget: under 150 ns for an event of the parser, under 1 µs from the bytes of
//! a legacy frame to its encoded step.

#[path = "session.rs"]
mod session;

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::{Kind, SyncEndpoint};
use proxbox_bridge::core::run::plan::Leg;
use proxbox_bridge::core::run::session::{Session, SessionEvent, SessionOutput};
use proxbox_bridge::core::upstream::dialect::Dialect;
use proxbox_bridge::core::wire::sse::parser::SseParser;

const FRAMES: usize = 1000;

fn main() {
    divan::main();
}

fn session(channel: Channel) -> Session {
    let kind = Kind::VirtualMachines;
    let command = kind.row().command.filter(|_| channel == Channel::Websocket);
    let leg = Leg { endpoint: SyncEndpoint::for_kind(kind), kinds: vec![kind], channel, command };
    let mut out = SessionOutput::default();
    let mut session = session::start(leg, Dialect::V0_0_4, &mut out);
    session.handle(Duration::ZERO, SessionEvent::Opened, &mut out);
    if channel == Channel::Websocket {
        session.handle(Duration::ZERO, SessionEvent::Text("Connected!"), &mut out);
    }
    session
}

fn legacy_frames() -> Vec<String> {
    (0..FRAMES)
        .map(|n| {
            format!(
                "{{\"object\":\"virtual_machine\",\"type\":\"create\",\"data\":{{\"sync_status\":\"syncing\",\
                 \"name\":\"vm{n}\",\"netbox_id\":\"undefined\",\"status\":\"undefined\",\
                 \"cluster\":\"lab-cluster\",\"device\":\"pve1\",\"role\":\"undefined\",\"vcpus\":\"undefined\",\
                 \"memory\":\"undefined\",\"disk\":\"undefined\",\"vm_interfaces\":\"undefined\",\
                 \"completed\":false,\"rowid\":\"vm{n}\"}}}}"
            )
        })
        .collect()
}

fn native_stream() -> Vec<u8> {
    legacy_frames()
        .iter()
        .enumerate()
        .map(|(n, payload)| {
            format!(
                "event: step\ndata: {{\"step\": \"virtual_machine\", \"status\": \"progress\", \"message\": \
                 \"Processing virtual_machine vm{n}\", \"rowid\": \"vm{n}\", \"payload\": {payload}}}\n\n"
            )
        })
        .collect::<String>()
        .into_bytes()
}

#[divan::bench]
fn sse_event(bencher: Bencher<'_, '_>) {
    let stream = native_stream();
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        let mut parser = SseParser::new(1 << 20);
        let mut events = 0;
        // As they come from a socket.
        for piece in stream.chunks(8192) {
            parser.feed(black_box(piece), |item| {
                black_box(item);
                events += 1;
            });
        }
        assert_eq!(events, FRAMES);
    });
}

#[divan::bench]
fn legacy_frame_to_step(bencher: Bencher<'_, '_>) {
    let frames = legacy_frames();
    bencher.counter(ItemsCount::new(FRAMES)).with_inputs(|| session(Channel::Websocket)).bench_local_values(
        |mut session| {
            let mut steps = 0;
            for frame in &frames {
                let mut out = SessionOutput::default();
                session.handle(Duration::ZERO, SessionEvent::Text(black_box(frame)), &mut out);
                steps += black_box(out.frames).len();
            }
            assert_eq!(steps, FRAMES);
            session
        },
    );
}

#[divan::bench]
fn native_event_to_step(bencher: Bencher<'_, '_>) {
    let stream = native_stream();
    bencher.counter(ItemsCount::new(FRAMES)).with_inputs(|| session(Channel::Native)).bench_local_values(
        |mut session| {
            let mut steps = 0;
            for piece in stream.chunks(8192) {
                let mut out = SessionOutput::default();
                session.handle(Duration::ZERO, SessionEvent::Bytes(black_box(piece)), &mut out);
                steps += black_box(out.frames).len();
            }
            assert_eq!(steps, FRAMES);
            session
        },
    );
}
