//! What the fuzz targets, and the test over their saved corpus, do with the input bytes.

use std::time::Duration;

use proxbox_bridge::core::domain::channel::Channel;
use proxbox_bridge::core::domain::kind::Kind;
use proxbox_bridge::core::domain::refusal::ErrorResponse;
use proxbox_bridge::core::run::session::{CloseReason, SessionEvent};
use proxbox_bridge::core::upstream::dialect::{self, Dialect};
use proxbox_bridge::core::wire::sse::parser::{SseItem, SseParser};

use super::drive::{Drive, setup};
use super::stream;

/// The events of a stream do not depend on its chunking.
pub fn sse(data: &[u8]) {
    let cut = data.first().map_or(1, |byte| usize::from(*byte).max(1));
    assert_eq!(events(data, data.len().max(1)), events(data, cut));
}

fn events(data: &[u8], piece: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut parser = SseParser::new(4096);
    let mut seen = Vec::new();
    for piece in data.chunks(piece) {
        parser.feed(piece, |item| {
            seen.push(match item {
                SseItem::Event { name, data } => (name.to_vec(), data.to_vec()),
                SseItem::Oversized { name, bytes, .. } => (name.to_vec(), bytes.to_string().into_bytes()),
            });
        });
    }
    seen
}

/// Every text parses to some message.
pub fn dialect(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = dialect::parse_frame(&text);
    let _ = dialect::parse_frame_with_payload(&text);
}

const DIALECTS: [Option<Dialect>; 7] = [
    None,
    Some(Dialect::V0_0_2),
    Some(Dialect::V0_0_3),
    Some(Dialect::V0_0_4),
    Some(Dialect::V0_0_7),
    Some(Dialect::V0_0_23),
    Some(Dialect::V0_0_27),
];
const CHANNELS: [Channel; 3] = [Channel::Native, Channel::Websocket, Channel::Json];
const KINDS: [Kind; 3] = [Kind::Devices, Kind::VirtualMachines, Kind::FullUpdate];

/// Whatever happens, a run ends, and its stream holds the contract. The first byte chooses the run; then
/// each thing that happens is one byte for what, one for its length, and its bytes.
pub fn session(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let choice = usize::from(*first);
    let mut setup = setup(KINDS[choice % 3], CHANNELS[choice / 3 % 3]);
    setup.dialect = DIALECTS[choice / 9 % 7];
    setup.credential = "0123456789abcdef".parse().ok().filter(|_| choice >= 128);
    setup.options.all_events = choice % 2 == 0;
    let mut drive = Drive::start(setup);
    while let [what, length, more @ ..] = rest {
        let (bytes, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        apply_input(&mut drive, *what, bytes);
    }
    drive.wait(Duration::from_secs(30_000));
    assert!(drive.end.is_some(), "the run has no end");
    if drive.accepted {
        stream::read(&drive.bytes);
    } else {
        assert!(drive.refused.is_some(), "neither refused nor accepted");
    }
}

fn apply_input(drive: &mut Drive, what: u8, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match what % 10 {
        0 => drive.event(SessionEvent::Opened),
        1 | 2 => drive.event(SessionEvent::Bytes(bytes)),
        3 | 4 => drive.text(&text),
        5 => drive.event(SessionEvent::Answered(ErrorResponse {
            status: 200,
            retry_after: None,
            body: bytes,
            ..ErrorResponse::default()
        })),
        6 => drive.event(SessionEvent::Answered(ErrorResponse {
            status: 401,
            retry_after: Some(&text),
            body: bytes,
            ..ErrorResponse::default()
        })),
        7 => drive.event(SessionEvent::Closed(CloseReason::Cleanly)),
        8 => drive.event(SessionEvent::Closed(CloseReason::Frame { code: 4001, reason: &text })),
        _ => drive.wait(Duration::from_secs(bytes.len() as u64)),
    };
}
