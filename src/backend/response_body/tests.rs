use std::collections::VecDeque;
use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use futures::FutureExt;
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;

use super::*;
use crate::backend::connect::Stream;
use crate::backend::event_stream::{Framing, PIECE_BYTES};
use crate::backend::pooled_connection::RequestBody;

/// A connection on which a backend sends `pieces`, one a read, whatever it receives.
#[derive(Clone, Debug)]
struct Script {
    pieces: VecDeque<Bytes>,
    end: End,
    /// The next piece has not arrived.
    is_waiting: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
}

impl Script {
    /// `sent` in pieces of `sizes`, over and over.
    fn new(sent: &[u8], sizes: &[usize], end: End) -> Self {
        let mut rest = Bytes::copy_from_slice(sent);
        let mut pieces = VecDeque::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            pieces.push_back(rest.split_to(rest.len().min(*size)));
        }
        Self { pieces, end, is_waiting: true }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_waiting {
            self.is_waiting = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(piece) = self.pieces.front_mut() else {
            return Poll::Ready(match self.end {
                End::Close => Ok(()),
                End::Reset => Err(ErrorKind::ConnectionReset.into()),
            });
        };
        buf.put_slice(&piece.split_to(piece.len().min(buf.remaining())));
        if piece.is_empty() {
            self.pieces.pop_front();
            self.is_waiting = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for Script {}

/// No connections, of which some may be kept.
fn idle() -> Arc<IdleConnections> {
    Arc::new(IdleConnections::new(Duration::from_secs(5)))
}

/// A request that accepts `accepted`.
fn request(accepted: &'static str) -> Request<RequestBody> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Request::get("/x").header(HOST, "a").header(ACCEPT, accepted).body(body).unwrap()
}

/// The texts of an error and its causes, and what kind of error the last one is.
type Failure = (Vec<String>, Option<ErrorKind>);

fn failure(error: &(dyn Error + 'static)) -> Failure {
    let causes: Vec<_> = std::iter::successors(Some(error), |error| (*error).source()).collect();
    let kind = causes.last().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    (causes.iter().map(ToString::to_string).collect(), kind)
}

/// What was received of a response.
#[derive(Debug, Default, PartialEq)]
struct Received {
    head: Option<(StatusCode, HeaderMap)>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    failure: Option<Failure>,
}

/// Receives the response on `script` to a request that accepts `accepted`. Returns it, and whether it was an event
/// stream that could be taken over, and one that was.
async fn receive(script: Script, accepted: &'static str) -> (Received, [bool; 2]) {
    let mut connection = PooledConnection::new(Box::new(script)).await.unwrap();
    let mut received = Received::default();
    let response = match connection.send(request(accepted)).await {
        Ok(response) => ResponseBody::read(response, connection, &idle()),
        Err(error) => {
            received.failure = Some(failure(&error.into_error()));
            return (received, [false; 2]);
        }
    };
    let can_be_taken = Framing::of_event_stream(&response).is_some();
    let is_taken = matches!(response.body().reader, BodyReader::EventStream(_));
    received.head = Some((response.status(), response.headers().clone()));
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => received.data.extend(data),
            Ok(Err(frame)) => received.trailers = frame.into_trailers().ok(),
            Err(error) => received.failure = Some(failure(&error)),
        }
    }
    (received, [can_be_taken, is_taken])
}

/// Checks that an event stream on `script` is received like by hyper, and is taken over if it can be.
async fn assert_as_by_hyper(script: Script) -> Received {
    let (expected, [can_be_taken, is_taken]) = receive(script.clone(), "*/*").await;
    assert!(!is_taken);
    let (received, taken) = receive(script, "text/event-stream").await;
    assert_eq!(received, expected);
    assert_eq!(taken, [can_be_taken; 2]);
    received
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(texts)
}

/// The beginnings of responses, valid or not.
fn heads() -> impl Strategy<Value = String> {
    let before = one_of(&[
        "",
        "",
        "\r\n",
        "\n\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 100 Continue\n\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100\r\n\r\n",
    ]);
    let line = one_of(&[
        "1.1 200 OK", "1.1 200 OK", "1.1 200 OK", "1.1 404 Not Found", "1.1 200", "1.0 200 OK", "1.1 204 OK",
        "1.1 304 OK", "1.1 101 OK", "1.2 200 OK", "1.1 20 OK",
    ]);
    let kind = one_of(&[
        "text/event-stream", "text/event-stream", "Text/Event-Stream; charset=utf-8", "text/plain", "",
    ]);
    let framing = one_of(&[
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "transfer-encoding:  CHUNKED ",
        "X-A: b",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Content-Length: 0",
        "Content-Length: 1",
        "Content-Length: 12",
        "Content-Length: 12\r\nContent-Length: 12",
        "Content-Length: 1, 2",
        "Content-Length: 99999999999",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Bad Header: 1",
        "Connection: close",
    ]);
    (before, line, kind, framing, any::<bool>()).prop_map(|(before, line, kind, framing, is_bare)| {
        let head = format!("HTTP/{line}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n");
        before.to_owned() + &if is_bare { head.replace("\r\n", "\n") } else { head }
    })
}

/// The rest of responses, valid or not.
fn bodies() -> impl Strategy<Value = String> {
    let chunk = ("[ -~\n]{1,20}", one_of(&["", "", ";a", " ; a=\"b\"", "\t "]))
        .prop_map(|(data, extension)| format!("{:x}{extension}\r\n{data}\r\n", data.len()));
    let odd = one_of(&[
        "\r\n", "\n", "0", ";", "\r", " ", "5\r\nab", "0A\r\n", "x", "ffffffffffffffff\r\n",
        "fffffffffffffffff", "00000000000000000003\r\nabc\r\n", "2;a\nb\r\n", "0\r\n\r\n", "é",
    ])
    .prop_map(str::to_owned);
    let end = one_of(&[
        "0\r\n\r\n",
        "0\r\n\r\n",
        "000;last\r\n\r\n",
        "0\r\nX-Sum: 1\r\n\r\n",
        "0\r\na: 1\r\nx-b: \r\nA: 2\r\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\nX: 1\nY: 2\r\n\r\n",
        "0\r\n : 2\r\n\r\n",
        "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "0\r\nX: 1\r\n\r",
        "0\r\n\rx",
        "0\r\nX: 1\rY",
        "0\n",
        "",
    ]);
    let pieces = proptest::collection::vec(prop_oneof![8 => chunk, 1 => odd], 0..6);
    (pieces, end).prop_map(|(pieces, end)| pieces.concat() + end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_event_stream_is_received_as_by_hyper_in_any_pieces(
        head in heads(),
        body in bodies(),
        sizes in proptest::collection::vec(1_usize..60, 1..6),
        end in proptest::sample::select(vec![End::Close, End::Reset]),
    ) {
        let script = Script::new((head + &body).as_bytes(), &sizes, end);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(assert_as_by_hyper(script));
    }
}

#[tokio::test]
async fn every_part_of_an_event_stream_has_the_bounds_of_hyper() {
    let trailers = |count: usize| format!("0\r\n{}\r\n", "x: 1\r\n".repeat(count));
    let long = |bytes: usize| format!("0\r\nx: {}\r\n\r\n", "1".repeat(bytes - "x: \r\n\r\n".len()));
    for (body, text) in [
        (format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(16_383)), None),
        (format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(16_384)), Some("chunk extensions over limit")),
        (format!("1;{}\r\nx\r\n", "a".repeat(4095)).repeat(4) + "0;abc\r\n\r\n", None),
        (
            format!("1;{}\r\nx\r\n", "a".repeat(4095)).repeat(4) + "0;abcd\r\n\r\n",
            Some("chunk extensions over limit"),
        ),
        (trailers(100), None),
        (trailers(101), Some("chunk trailers count overflow")),
        (long(16_383), None),
        (long(16_384), Some("chunk trailers bytes over limit")),
        ("1".repeat(17), Some("invalid chunk size: overflow")),
        ("0".repeat(100_000) + "\r\n\r\n", None),
        ("7fffffffffffffff\r\nx".to_owned(), Some("end of file before message length reached")),
    ] {
        let script = Script::new((CHUNKED.to_owned() + &body).as_bytes(), &[8000], End::Close);
        let received = assert_as_by_hyper(script).await;
        let texts = received.failure.map(|(texts, _)| texts);
        assert_eq!(texts.as_ref().and_then(|texts| texts.last()).map(String::as_str), text);
    }
}

#[tokio::test]
async fn a_head_that_does_not_fit_is_refused_whatever_the_client_accepts() {
    for (lines, is_refused) in [(1, false), (20, true)] {
        let head =
            format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("X-A: {}\r\n", "a".repeat(4000)).repeat(lines));
        let script = Script::new(head.as_bytes(), &[5000], End::Close);
        let received = assert_as_by_hyper(script).await;
        assert_eq!(received.failure.is_some(), is_refused, "{:?}", received.failure);
    }
}

/// A connection that has answered a request for an event stream with `head` before it received all of it, and the
/// backend's side of it.
async fn answered(capacity: usize, head: &str) -> (Response<ResponseBody>, DuplexStream) {
    let (ours, mut backend) = duplex(capacity);
    let mut connection = PooledConnection::new(Box::new(ours)).await.unwrap();
    let (response, sent) =
        tokio::join!(connection.send(request("text/event-stream")), backend.write_all(head.as_bytes()));
    sent.unwrap();
    (ResponseBody::read(response.unwrap(), connection, &idle()), backend)
}

#[tokio::test]
async fn a_request_that_is_not_sent_yet_is_sent_by_hyper_during_the_response() {
    let (response, mut backend) = answered(10, CHUNKED).await;
    assert!(matches!(response.body().reader, BodyReader::Pooled(_)));
    let mut body = response.into_body();
    let mut received = Vec::new();
    let backend = async {
        while !received.ends_with(b"\r\n\r\n") {
            assert!(backend.read_buf(&mut received).await.unwrap() > 0);
        }
        backend.write_all(b"2\r\nok\r\n0\r\n\r\n").await.unwrap();
    };
    let (frame, ()) = tokio::join!(body.frame(), backend);
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "ok");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_event_stream_is_not_read_faster_than_its_client_reads() {
    /// The bytes of `chunks` that `backend` can send now.
    fn send(backend: &mut DuplexStream, chunks: &mut &[u8]) -> usize {
        let mut sent = 0;
        while let Some(written) = backend.write(chunks).now_or_never() {
            let written = written.unwrap();
            sent += written;
            *chunks = &chunks[written..];
        }
        sent
    }

    let (response, mut backend) = answered(64 * 1024, CHUNKED).await;
    let mut body = response.into_body();
    let chunks = [b"1000\r\n", &[b'x'; 0x1000][..], b"\r\n"].concat().repeat(64);
    let mut chunks = &chunks[..];
    send(&mut backend, &mut chunks);
    for _ in 0..8 {
        assert!(body.frame().await.unwrap().is_ok());
        for _ in 0..8 {
            yield_now().await;
        }
        assert!(send(&mut backend, &mut chunks) <= PIECE_BYTES, "the bridge buffers it");
    }
    drop(body);
    assert!(backend.write_all(chunks).await.is_err());
}

#[tokio::test]
async fn an_event_stream_over_http_1_1_is_taken_over_unless_it_has_another_coding() {
    for (line, framing, is_taken) in [
        ("1.1", "Transfer-Encoding: chunked", true),
        ("1.1", "Content-Length: 3", true),
        ("1.1", "Connection: close", true),
        ("1.1", "Transfer-Encoding: gzip, chunked", false),
        ("1.0", "Content-Length: 3", false),
    ] {
        let head = format!("HTTP/{line} 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n");
        let (_, taken) = receive(Script::new(head.as_bytes(), &[100], End::Close), "text/event-stream").await;
        assert_eq!(taken, [is_taken; 2], "{line} {framing}");
    }
}

#[tokio::test]
async fn an_event_stream_is_taken_over_however_much_of_its_turn_a_task_has_used() {
    for used in 0..=128 {
        yield_now().await;
        let (ours, mut backend) = duplex(4096);
        let mut connection = PooledConnection::new(Box::new(ours)).await.unwrap();
        let mut response = Box::pin(connection.send(request("text/event-stream")));
        assert!(response.as_mut().now_or_never().is_none());
        backend.write_all((CHUNKED.to_owned() + "2\r\nok\r\n0\r\n\r\n").as_bytes()).await.unwrap();
        yield_now().await;
        for _ in 0..used {
            consume_budget().await;
        }
        let response = response.await.unwrap();
        let response = ResponseBody::read(response, connection, &idle());
        assert!(matches!(response.body().reader, BodyReader::EventStream(_)), "{used}");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    }
}

#[tokio::test]
async fn a_body_that_has_failed_is_not_at_its_end() {
    let sent = CHUNKED.to_owned() + "0\r\nno trailer\r\n\r\n";
    let script = Script::new(sent.as_bytes(), &[sent.len()], End::Close);
    let mut connection = PooledConnection::new(Box::new(script)).await.unwrap();
    let response = connection.send(request("text/event-stream")).await.unwrap();
    let mut body = ResponseBody::read(response, connection, &idle()).into_body();
    assert!(body.frame().now_or_never().is_none());
    assert!(!body.is_end_stream());
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn a_connection_with_more_than_the_response_is_not_kept() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n{}",
    ] {
        let (ours, mut backend) = duplex(4096);
        let mut connection = PooledConnection::new(Box::new(ours)).await.unwrap();
        let (response, sent) =
            tokio::join!(connection.send(request("text/event-stream")), backend.write_all(answer.as_bytes()));
        sent.unwrap();
        let idle = idle();
        let response = ResponseBody::read(response.unwrap(), connection, &idle);
        let _ = response.into_body().collect().await.unwrap();
        assert!(idle.take().is_none(), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_closes_after_its_event_stream_and_with_its_client() {
    for is_whole in [true, false] {
        let (response, mut backend) = answered(4096, CHUNKED).await;
        backend.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
        let mut body = response.into_body();
        if is_whole {
            backend.write_all(b"0\r\n\r\n").await.unwrap();
            assert!(body.frame().await.is_none());
            assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
        }
        drop(body);
        assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn another_response_to_a_request_for_an_event_stream_leaves_its_connection_for_the_next() {
    let (ours, mut backend) = duplex(4096);
    let mut connection = PooledConnection::new(Box::new(ours)).await.unwrap();
    let idle = idle();
    for body in ["{}", "[]"] {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n";
        let answer = head.to_owned() + body;
        let (response, sent) =
            tokio::join!(connection.send(request("text/event-stream")), backend.write_all(answer.as_bytes()));
        sent.unwrap();
        let response = ResponseBody::read(response.unwrap(), connection, &idle);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        connection = idle.take().expect("an idle connection");
    }
}
