//! Handwritten recordings, and clients that expose raw bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use proxbox_bridge::recording::{Direction, Headers, Protocol, RecordedEvent, RecordedKey, Recording};
use proxbox_bridge::replay::{Library, ReplayHandle, ReplayOptions, Speed};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::bridge::{Answer, Client, dechunked, replayed};

pub const OLD: &str = "0.0.2.post1";
pub const WITH_KEYS: &str = "0.0.11.post2";
pub const WITH_ENVELOPES: &str = "0.0.30.post2";

pub const AT_ONCE: ReplayOptions = ReplayOptions {
    speed: Speed::Max,
    api_key: None,
    cut_after: None,
    stall_after: None,
    garbage_after: None,
};

pub async fn serve(version: &str, recordings: Vec<Recording>, options: ReplayOptions) -> ReplayHandle {
    let library = Library::from_recordings(version, recordings).unwrap();
    replayed(library, options).await
}

/// Fails a test that hangs.
pub async fn within_deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this hangs")
}

/// An empty recording of HTTP.
pub fn recording(version: &str, key: RecordedKey) -> Recording {
    Recording::new(version, Protocol::Http, key)
}

/// The `recording` of a `GET`: its response head, and the body in these parts, 100 ms apart.
pub fn response(recording: Recording, path: &str, status: u16, kind: &str, parts: &[&str]) -> Recording {
    let headers: Headers = vec![
        ("server".into(), "uvicorn".into()),
        ("content-type".into(), kind.into()),
        ("Transfer-Encoding".into(), "chunked".into()),
        ("content-length".into(), "7".into()),
    ];
    let mut recording = recording.with(10.0, Direction::Out, RecordedEvent::get(path)).with(
        110.0,
        Direction::In,
        RecordedEvent::Response { status, headers },
    );
    for (index, part) in parts.iter().enumerate() {
        recording.push(
            210.0 + 100.0 * index as f64,
            Direction::In,
            RecordedEvent::Body(part.to_string().into()),
        );
    }
    recording
}

pub fn sse(version: &str, key: RecordedKey, path: &str, parts: &[&str]) -> Recording {
    response(recording(version, key), path, 200, "text/event-stream; charset=utf-8", parts)
}

pub fn json(version: &str, key: RecordedKey, path: &str, status: u16, body: &str) -> Recording {
    response(recording(version, key), path, status, "application/json", &[body]).with(
        300.0,
        Direction::In,
        RecordedEvent::End,
    )
}

/// A recording of an accepted `/ws` up to its greeting.
pub fn greeted(version: &str) -> Recording {
    let key = if version == OLD { RecordedKey::None } else { RecordedKey::Sent };
    let recording = Recording::new(version, Protocol::Websocket, key)
        .with(0.0, Direction::Out, RecordedEvent::get("/ws"))
        .with(20.0, Direction::In, RecordedEvent::Response { status: 101, headers: Headers::new() });
    let recording = match key {
        RecordedKey::None => recording,
        _ => recording.with(500.0, Direction::Out, RecordedEvent::text(r#"{"api_key":"<api-key>"}"#)),
    };
    recording.with(750.0, Direction::In, RecordedEvent::text("Connected!")).with(
        750.0,
        Direction::In,
        RecordedEvent::text("Connected 2!"),
    )
}

/// Appends a command with its answers, 100 ms apart, and the moment it returned.
pub fn command(mut recording: Recording, command: &str, answers: &[&str]) -> Recording {
    let start = recording.frames.last().unwrap().t_ms + 1000.0;
    recording.push(start, Direction::Out, RecordedEvent::text(command));
    for (index, answer) in answers.iter().enumerate() {
        recording.push(start + 100.0 * index as f64, Direction::In, RecordedEvent::text(*answer));
    }
    let end = start + 100.0 * answers.len() as f64;
    recording.with(end, Direction::Ctl, RecordedEvent::Returned)
}

const RIGHT_KEY: (&str, &str) = ("X-Proxbox-API-Key", "right");

/// Sends a request on a connection that the server closes afterwards.
pub async fn send(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Client {
    Client::send(address, method, target, &[&[("Connection", "close")], headers].concat()).await
}

/// The response, and whether its body ended as its framing requires.
async fn received(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> (Answer, bool) {
    let mut client = send(address, method, target, headers).await;
    let (status, headers) = within_deadline(client.head()).await;
    let mut answer = Answer { status, headers, body: within_deadline(client.rest()).await };
    if answer.header("transfer-encoding") != Some("chunked") {
        return (answer, true);
    }
    let (body, ended) = dechunked(&answer.body);
    answer.body = body;
    (answer, ended)
}

pub async fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    received(address, method, target, headers).await.0
}

pub async fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[RIGHT_KEY]).await
}

/// The body of the response to a `GET`, and whether it ended cleanly.
pub async fn get_body(address: SocketAddr, target: &str) -> (Vec<u8>, bool) {
    let (answer, ended) = received(address, "GET", target, &[RIGHT_KEY]).await;
    (answer.body, ended)
}

/// A client on `/ws`.
pub struct Ws(pub WebSocketStream<TcpStream>);

impl Ws {
    /// Connects, and sends `key` if there is one.
    pub async fn connect(address: SocketAddr, key: Option<&str>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/ws");
        let (stream, _) = within_deadline(tokio_tungstenite::client_async(url, stream)).await.unwrap();
        let mut ws = Self(stream);
        if let Some(key) = key {
            ws.send(&format!("{{\"api_key\":\"{key}\"}}")).await;
        }
        ws
    }

    pub async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next message that is no ping: a text, or `close CODE REASON`, or `gone`.
    pub async fn receive(&mut self) -> String {
        loop {
            match within_deadline(self.0.next()).await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return format!("close {} {}", u16::from(frame.code), frame.reason);
                }
                Some(Ok(Message::Close(None))) => return "close".to_owned(),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return "gone".to_owned(),
            }
        }
    }

    pub async fn expect_texts(&mut self, texts: &[&str]) {
        for text in texts {
            assert_eq!(self.receive().await, *text);
        }
    }

    /// Asserts that the server sends nothing more: a ping is answered in order.
    pub async fn expect_only_a_pong(&mut self) {
        self.0.send(Message::Ping("still there?".into())).await.unwrap();
        match within_deadline(self.0.next()).await {
            Some(Ok(Message::Pong(_))) => {}
            other => panic!("not a pong: {other:?}"),
        }
    }
}
