//! HTTP/2 on the client listener, and clients that misuse it.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{self, SendRequest};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::hostile::metric;
use crate::support::bridge::{TestBridge, config};
use crate::support::manual::ManualBackend;
use crate::support::scripted::{Backend, answer, bridged};

const STREAM: &str = "/dcim/devices/create/stream";

/// A client of HTTP/2 with prior knowledge.
pub(super) struct Http2Client {
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2Client {
    pub(super) async fn open(front: &TestBridge) -> Self {
        Self::with(front, &client::Builder::new()).await
    }

    async fn with(front: &TestBridge, builder: &client::Builder) -> Self {
        let stream = TcpStream::connect(front.address).await.unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    pub(super) async fn get(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut request = Request::get(format!("http://bridge.test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send.clone().ready().await?.send_request(request.body(()).unwrap(), true)?.0.await
    }
}

async fn text(response: Response<RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        text.extend(piece);
    }
    String::from_utf8(text).unwrap()
}

async fn assert_serves(front: &TestBridge) {
    let mut client = Http2Client::open(front).await;
    assert_eq!(text(client.get("/x", &[]).await.unwrap()).await, "here");
}

async fn served_backend() -> (Backend, TestBridge) {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "here") }).await;
    (backend, front)
}

#[tokio::test(start_paused = true)]
async fn a_request_arrives_as_one_of_http_1_and_its_crumbs_are_one_cookie() {
    let (backend, front) = served_backend().await;
    let mut client = Http2Client::open(&front).await;
    let response =
        client.get("/x?y=%20", &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, "here"));
    let received = backend.last();
    assert_eq!(received.target, "/x?y=%20");
    assert_eq!(received.header("host"), Some("bridge.test"));
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
    assert_eq!(received.header("te"), Some("trailers"));
}

#[tokio::test(start_paused = true)]
async fn a_sync_is_a_stream_of_http_2_like_any_other() {
    let (mut backend, front) = ManualBackend::bridged(&[]).await;
    let mut client = Http2Client::open(&front).await;
    let opening = tokio::spawn(async move { (client.get(STREAM, &[]).await.unwrap(), client) });
    let mut stream = backend.next_stream().await;
    let (response, _client) = opening.await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    for name in ["connection", "transfer-encoding", "content-length"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    stream.device("pve1", "completed").await;
    stream.complete().await;
    let text = text(response).await;
    assert!(text.contains("Synced device pve1") && text.contains("\"ok\": true"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_http_2_may_not_say_is_refused() {
    let (backend, front) = served_backend().await;
    for (path, headers, status) in [
        ("/x", &[("host", "other.test")][..], 400),
        ("/x", &[("content-length", "0"), ("content-length", "0")], 400),
        ("/x", &[("expect", "200-ok")], 417),
        (STREAM, &[("content-length", "4")], 400),
    ] {
        // A wrong length may reset the stream.
        match Http2Client::open(&front).await.get(path, headers).await {
            Ok(response) => assert_eq!(response.status(), status, "{headers:?}"),
            Err(error) => assert!(error.is_reset(), "{headers:?}: {error}"),
        }
    }
    assert!(backend.requests().is_empty(), "{:?}", backend.requests());

    // A body that was not announced.
    let client = Http2Client::open(&front).await;
    let request = Request::get(format!("http://bridge.test{STREAM}")).body(()).unwrap();
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut body) = send.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"hi"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 400);
    assert_serves(&front).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_with_a_fragment_is_refused_and_harms_no_other_request() {
    let (backend, front) = served_backend().await;
    let rejected = metric(&front, "target").await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    let mut requests = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    requests.extend(frame(SETTINGS, 0, 0, &[]));
    // The path is plain, and in the Huffman code, and is then remembered.
    requests.extend(frame(HEADERS, 0x5, 1, b"\x82\x86\x04\x04/x#y\x01\x01a"));
    requests.extend(frame(HEADERS, 0x5, 3, b"\x82\x86\x44\x84\x63\xcf\xfd\x7a\x01\x01a"));
    requests.extend(frame(HEADERS, 0x5, 5, b"\x82\x86\xbe\x01\x01a"));
    requests.extend(frame(HEADERS, 0x5, 7, GET));
    stream.write_all(&requests).await.unwrap();
    let mut received = Vec::new();
    while !frames(&received).any(|(kind, payload)| kind == DATA && payload == b"here") {
        assert!(
            stream.read_buf(&mut received).await.unwrap() > 0,
            "{:?}",
            frames(&received).collect::<Vec<_>>()
        );
    }
    let resets: Vec<&[u8]> =
        frames(&received).filter(|(kind, _)| *kind == RST_STREAM).map(|(_, code)| code).collect();
    assert_eq!(resets, [&[0, 0, 0, 1]; 3], "PROTOCOL_ERROR");
    assert_eq!(backend.requests().len(), 1, "{:?}", backend.requests());
    // The third path is one that the bridge does not see.
    assert!(metric(&front, "target").await >= rejected + 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_and_resets_streams_for_ever_is_sent_away() {
    let (backend, front) = served_backend().await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&opening).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let listen = async { while read.read_buf(&mut received).await.is_ok_and(|read| read > 0) {} };
    let attack = async {
        for number in 0..20_000 {
            let id = 1 + 2 * number;
            let mut pair = frame(HEADERS, 0x5, id, GET);
            pair.extend(frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
            if write.write_all(&pair).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(listen, attack);
    let (kind, last) = frames(&received).last().unwrap();
    assert_eq!((kind, &last[4..8]), (GOAWAY, &[0, 0, 0, 11][..]), "ENHANCE_YOUR_CALM");
    assert!(backend.requests().len() < 1000, "{}", backend.requests().len());
    assert_serves(&front).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_fails_only_its_own_request() {
    let (backend, front) = served_backend().await;
    let mut client = Http2Client::open(&front).await;
    let large = "x".repeat(8000);
    let names: Vec<String> = (0..12).map(|number| format!("x-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), large.as_str())).collect();
    match client.get("/x", &headers).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert!(backend.requests().is_empty());
    assert_serves(&front).await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The whole frames in `bytes`: their types and their payloads.
fn frames(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?) << 8 | usize::from(*rest.get(2)?);
        let (kind, payload) = (*rest.get(3)?, rest.get(9..9 + length)?);
        rest = &rest[9 + length..];
        Some((kind, payload))
    })
}

const GOAWAY: u8 = 7;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

/// `GET /x` to `http://a`, in HPACK: indexed fields, and two literals without indexing.
const GET: &[u8] = &[0x82, 0x86, 0x04, 0x02, b'/', b'x', 0x01, 0x01, b'a'];

/// The same with POST.
const POST: &[u8] = &[0x83, 0x86, 0x04, 0x02, b'/', b'x', 0x01, 0x01, b'a'];

/// Sends `frames` after the preface until the bridge closes, or has read 64 MiB.
async fn flood(front: &TestBridge, first: &[u8], again: &[u8]) {
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening.extend(first);
    stream.write_all(&opening).await.unwrap();
    let (mut read, mut write) = stream.split();
    let drain = async { while read.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
    let fill = async {
        let piece = again.repeat(1 + 65_536 / again.len());
        for _ in 0..1024 {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
        panic!("64 MiB were taken");
    };
    tokio::select! {
        () = drain => {}
        () = fill => {}
    }
}

#[tokio::test(start_paused = true)]
async fn floods_of_frames_that_ask_for_nothing_end_the_connection() {
    let (backend, front) = served_backend().await;
    // A head that never ends.
    let begun = frame(HEADERS, 0x1, 1, GET);
    flood(&front, &begun, &frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y'])).await;
    // Headers on a closed stream, and a frame on stream 0 that needs a stream.
    flood(&front, &[], &frame(DATA, 0, 0, b"x")).await;
    flood(&front, &frame(DATA, 0, 7, b"x"), &frame(PING, 0, 0, &[0; 8])).await;
    // Something else in the middle of a head.
    flood(&front, &begun, &frame(PING, 0, 0, &[0; 8])).await;
    assert!(backend.requests().is_empty(), "{:?}", backend.requests());
    assert_serves(&front).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_opens_no_window_is_dropped_and_the_sync_continues() {
    let mut backend = ManualBackend::start().await;
    let settings = [("limits.client_write", "20s"), ("jobs.on_disconnect", "continue")];
    let front = TestBridge::start(config(backend.address, &settings)).await;
    let mut shut = client::Builder::new();
    shut.initial_window_size(0);
    let mut stuck = Http2Client::with(&front, &shut).await;
    let opening = tokio::spawn(async move {
        let response = stuck.get(STREAM, &[]).await.unwrap();
        (response, stuck)
    });
    let mut stream = backend.next_stream().await;
    let (response, _stuck) = opening.await.unwrap();
    let healthy = front.open(STREAM, &[]).await;
    for number in 0..200 {
        stream.device(&format!("pve{number}"), "completed").await;
    }
    let began = tokio::time::Instant::now();
    let next = response.into_body().data().await;
    assert!(next.is_none_or(|next| next.is_err()), "nothing can come through a window that is shut");
    assert!(began.elapsed() <= Duration::from_secs(41), "{:?}", began.elapsed());
    stream.device("last", "completed").await;
    stream.complete().await;
    assert!(healthy.answer().await.text().contains("Synced device last"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_closed_in_good_order() {
    let (_backend, front) = served_backend().await;
    let mut client = Http2Client::open(&front).await;
    text(client.get("/x", &[]).await.unwrap()).await;
    let began = tokio::time::Instant::now();
    let _held = client.send.clone();
    client.connection.await.unwrap().unwrap();
    assert!((74..=120).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_more_streams_are_open_at_once_than_may() {
    let (backend, front) = served_backend().await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    // Requests whose bodies never arrive.
    for number in 0..200 {
        opening.extend(frame(HEADERS, 0x4, 1 + 2 * number, POST));
    }
    stream.write_all(&opening).await.unwrap();
    let mut received = Vec::new();
    let refused = loop {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0, "{} bytes", received.len());
        let refused =
            frames(&received).filter(|(kind, payload)| *kind == RST_STREAM && payload[3] == 7).count();
        if refused >= 200 - 128 {
            break refused;
        }
    };
    assert_eq!(refused, 200 - 128, "those that are one too many");
    assert!(backend.requests().len() <= 128);
}

#[tokio::test(start_paused = true)]
async fn the_limits_on_heads_hold_here_too() {
    let (backend, front) = served_backend().await;
    let long = format!("/{}", "x".repeat(20_000));
    assert_eq!(Http2Client::open(&front).await.get(&long, &[]).await.unwrap().status(), 414);
    let names: Vec<String> = (0..150).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(Http2Client::open(&front).await.get("/x", &many).await.unwrap().status(), 431);
    assert!(backend.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_asks_for_anything_has_the_time_of_a_head() {
    let (_backend, front) = served_backend().await;
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // The preface alone, with settings, and with a head that does not end.
    for more in [vec![], frame(SETTINGS, 0, 0, &[]), frame(HEADERS, 0x1, 1, GET)] {
        opening.extend(more);
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        stream.write_all(&opening).await.unwrap();
        let began = tokio::time::Instant::now();
        // It reads, and answers no ping.
        let mut received = Vec::new();
        while stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {}
        assert!((15..=18).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        if opening.len() > 24 {
            assert!(frames(&received).any(|(kind, _)| kind == GOAWAY), "the client is told");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stops_asking_is_closed_although_its_client_answers_no_ping() {
    let (_backend, front) = served_backend().await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening.extend(frame(HEADERS, 0x5, 1, GET));
    stream.write_all(&opening).await.unwrap();
    let began = tokio::time::Instant::now();
    while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    assert!((75..=78).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn trailers_cannot_say_what_only_heads_may() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (_backend, front) = bridged(&[], move |request| {
        let sender = sender.clone();
        async move {
            use http_body_util::BodyExt;
            let body = request.into_body().collect().await.unwrap();
            sender.send(body.trailers().cloned().unwrap_or_default()).unwrap();
            answer(200, &[], "here")
        }
    })
    .await;
    let client = Http2Client::open(&front).await;
    let request = Request::post("http://bridge.test/x").header("trailer", "x-sum, x-forwarded-for");
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("1"));
    trailers.insert("x-forwarded-for", http::HeaderValue::from_static("10.0.0.1"));
    body.send_trailers(trailers).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let seen = seen.recv().await.unwrap();
    assert_eq!(seen.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-sum"]);
}
