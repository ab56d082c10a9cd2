//! Every recording of a real backend is replayed as it was recorded.

use crate::support::bridge::replayed;
use std::path::{Path, PathBuf};

use proxbox_bridge::core::upstream::dialect::BARRIER;
use proxbox_bridge::recording::{Direction, Protocol, RecordedEvent, RecordedKey, Recording};
use proxbox_bridge::replay::{Library, ReplayHandle};

use super::client::{AT_ONCE, Ws, request, send, within_deadline};

/// The folders of all versions.
fn versions() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings");
    let entries = root.read_dir().unwrap();
    let versions: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    assert!(!versions.is_empty(), "no recordings in {}", root.display());
    versions
}

/// Every recording of a version, with its name.
fn recordings(version: &Path) -> Vec<(String, Recording)> {
    let folders = version.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| folder.read_dir().unwrap().map(|entry| entry.unwrap().path()));
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    files
        .map(|path| {
            let name = path.strip_prefix(version).unwrap().with_extension("");
            (name.to_str().unwrap().to_owned(), Recording::read(&path).unwrap())
        })
        .collect()
}

async fn using(version: &Path, name: &str) -> ReplayHandle {
    let library = Library::load(version, &[name.to_owned()]).unwrap();
    replayed(library, AT_ONCE).await
}

#[tokio::test]
async fn every_recorded_response_is_replayed_unchanged() {
    for version in versions() {
        for (name, recording) in recordings(&version) {
            if recording.header.protocol == Protocol::Http {
                let server = using(&version, &name).await;
                check_response(&server, &name, &recording).await;
            }
        }
    }
}

async fn check_response(server: &ReplayHandle, name: &str, recording: &Recording) {
    let (method, target) = recording.request().unwrap();
    let (mut status, mut body, mut ended) = (None, Vec::new(), false);
    for frame in &recording.frames {
        match &frame.event {
            RecordedEvent::Response { status: recorded, .. } => status = Some(*recorded),
            RecordedEvent::Body(bytes) => body.extend_from_slice(bytes),
            RecordedEvent::End => ended = true,
            _ => {}
        }
    }
    let headers: &[(&str, &str)] =
        if recording.header.key == RecordedKey::None { &[] } else { &[("x-proxbox-api-key", "any")] };
    if !ended {
        // It ends when the client leaves.
        drop(send(server.local_addr(), method, target, headers).await);
        within_deadline(server.log().wait_until_idle()).await;
        return;
    }
    let reply = request(server.local_addr(), method, target, headers).await;
    assert_eq!(Some(reply.status), status, "{name}");
    assert!(reply.body == body, "{name}: {} bytes in place of {}", reply.body.len(), body.len());
}

#[tokio::test]
async fn every_recorded_conversation_can_be_held_again() {
    for version in versions() {
        for (name, recording) in recordings(&version) {
            let accepted = recording
                .frames
                .iter()
                .any(|frame| matches!(frame.event, RecordedEvent::Response { status: 101, .. }));
            let on_ws = recording.request().is_some_and(|(_, target)| target == "/ws");
            if recording.header.protocol == Protocol::Websocket && accepted && on_ws {
                let server = using(&version, &name).await;
                check_conversation(&server, &version, &name, &recording).await;
            }
        }
    }
}

/// Sends the texts of the recorded client and expects those that it received, up to the first other message.
async fn check_conversation(server: &ReplayHandle, version: &Path, name: &str, recording: &Recording) {
    let expects_key = !version.ends_with("0.0.2.post1") && !version.ends_with("0.0.3");
    let shows_key = recording.frames.iter().any(
        |frame| matches!(&frame.event, RecordedEvent::Text(text) if frame.direction == Direction::Out && text.contains("api_key")),
    );
    if expects_key != shows_key || recording.header.key == RecordedKey::Wrong {
        return;
    }
    let mut ws = Ws::connect(server.local_addr(), None).await;
    // Clients that did not wait for the greeting, or for an answer, got it elsewhere than it is now.
    let mut said = Vec::new();
    let mut heard = Vec::new();
    for frame in &recording.frames {
        match (&frame.event, frame.direction) {
            (RecordedEvent::Text(text), Direction::Out) => said.push(text.clone()),
            (RecordedEvent::Text(text), Direction::In) => heard.push(text.clone()),
            (RecordedEvent::Binary(_), _) => break,
            (RecordedEvent::Close { code, reason }, Direction::In) => {
                heard.push(format!("close {} {reason}", code.unwrap()));
            }
            _ => {}
        }
    }
    if said.iter().any(|text| text == BARRIER) {
        // A bridge recorded it: both of its commands were sent before the first one was answered.
        return;
    }
    for text in &said {
        ws.send(text).await;
    }
    for (index, expected) in heard.iter().enumerate() {
        assert_eq!(&ws.receive().await, expected, "{}: {name}, answer {index}", version.display());
    }
}
