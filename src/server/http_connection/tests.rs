use std::future::poll_fn;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures::channel::mpsc;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::config::Flags;
use crate::core::http::guard::HeadLimits;
use crate::respond;
use crate::server::LINGER;
use crate::server::http1_guard::GuardSignals;

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;
type Received = mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>;

/// A connection and its client. The connection answers `/feed` with `frames`, and everything else at once.
struct Pair<C> {
    connection: C,
    client: DuplexStream,
    frames: Frames,
}

/// The response to a request for `path`.
fn response(path: &str, frames: &Mutex<Option<Received>>) -> Response<Body> {
    match frames.lock().take().filter(|_| path == "/feed") {
        Some(frames) => respond::stream(StreamBody::new(frames).boxed_unsync()),
        None => respond::message(http::StatusCode::OK, path, ""),
    }
}

/// How many bytes a transport holds.
const CAPACITY: usize = 1000;

/// A connection that hyper alone serves.
fn hyper_alone(capacity: usize) -> Pair<impl Future<Output = Result<(), BoxError>>> {
    let ((ours, client), (frames, received)) = (duplex(capacity), mpsc::unbounded());
    let received = Mutex::new(Some(received));
    let service = service_fn(move |request: Request<Incoming>| {
        let response = response(request.uri().path(), &received);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(ours), service);
    Pair { connection: async { connection.await.map_err(Into::into) }, client, frames }
}

trait ServedConnection: Future<Output = Result<(), BoxError>> + Unpin {
    fn is_streaming(&self) -> bool;
    fn close(&mut self);
}

impl<T, S> ServedConnection for HttpConnection<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible> + Unpin,
    S::Future: 'static,
    StreamExecutor: Http2ServerConnExec<S::Future, Body>,
{
    fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming(..))
    }

    fn close(&mut self) {
        self.graceful_shutdown();
    }
}

fn served(capacity: usize) -> Pair<impl ServedConnection> {
    let ((ours, client), (frames, received)) = (duplex(capacity), mpsc::unbounded());
    let (slot, received) = (Arc::new(StreamSlot::default()), Mutex::new(Some(received)));
    let bounds = HeadLimits { head_bytes: 1024, header_count: 10, target_bytes: 100 };
    let signals = GuardSignals { slot: Arc::clone(&slot), ..GuardSignals::default() };
    let io = Http1Guard::new(TokioIo::new(ours), Ipv4Addr::LOCALHOST.into(), bounds, LINGER, signals);
    let wrapping = Arc::clone(&slot);
    let service = service_fn(move |request: Request<Incoming>| {
        let closes = request.headers().contains_key("connection");
        let keep_alive = if closes { KeepAlive::No } else { KeepAlive::Yes };
        let response = wrapping.wrap(response(request.uri().path(), &received), keep_alive);
        async { Ok::<_, Infallible>(response) }
    });
    let flags = Flags { backend: Some("http://127.0.0.1:1".to_owned()), ..Flags::default() };
    let config = Arc::new(Config::load(&flags, []).unwrap());
    Pair { connection: HttpConnection::new(io, service, slot, config), client, frames }
}

/// Runs `connection` until it is streaming.
async fn streaming(connection: &mut impl ServedConnection) {
    poll_fn(|cx| {
        assert!(connection.poll_unpin(cx).is_pending());
        if connection.is_streaming() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(bytes.into()))
}

/// Reads until `end` was read.
async fn read_until(client: &mut DuplexStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "{}", read.escape_ascii());
    }
    String::from_utf8(read).unwrap()
}

/// All bytes that the client of a whole connection receives: of a stream, and of the request behind it.
async fn transcript(mut client: DuplexStream, frames: Frames) -> String {
    client.write_all(request("/feed", "").as_bytes()).await.unwrap();
    let mut all = read_until(&mut client, "\r\n\r\n").await;
    frames.unbounded_send(data("first")).unwrap();
    all.push_str(&read_until(&mut client, "first\r\n").await);
    for length in [1, 15, 16, 255, 4096, 70_000, 0] {
        frames.unbounded_send(data(vec![b'x'; length])).unwrap();
    }
    for _ in 0..2 * 16 {
        frames.unbounded_send(data("small")).unwrap();
    }
    let trailers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("a"))]);
    frames.unbounded_send(Ok(Frame::trailers(trailers))).unwrap();
    drop(frames);
    all.push_str(&read_until(&mut client, "\r\n0\r\n\r\n").await);
    client.write_all(request("/", "Connection: close\r\n").as_bytes()).await.unwrap();
    client.read_to_string(&mut all).await.unwrap();
    all
}

/// A transcript without the values of `date`.
fn undated(transcript: &str) -> Vec<&str> {
    transcript.split("\r\n").map(|line| if line.starts_with("date: ") { "date" } else { line }).collect()
}

#[tokio::test]
async fn a_stream_that_is_taken_over_has_the_bytes_of_hyper_and_another_request_may_follow() {
    let Pair { connection, client, frames } = hyper_alone(CAPACITY);
    let (ended, expected) = tokio::join!(connection, transcript(client, frames));
    ended.unwrap();
    // The head does not fit into the smaller one: it is being written when the stream first waits.
    for capacity in [16, CAPACITY] {
        let Pair { mut connection, client, frames } = served(capacity);
        let (ended, received) = tokio::join!(
            async {
                streaming(&mut connection).await;
                connection.await
            },
            transcript(client, frames)
        );
        ended.unwrap();
        assert_eq!(undated(&received), undated(&expected));
    }
}

#[tokio::test]
async fn a_request_that_is_sent_during_a_stream_is_answered_behind_it() {
    for at_once in [true, false] {
        let Pair { mut connection, mut client, frames } = served(CAPACITY);
        let next = request("/next", "Connection: close\r\n");
        let talk = async {
            let behind = if at_once { next.as_str() } else { "" };
            client.write_all((request("/feed", "") + behind).as_bytes()).await.unwrap();
            read_until(&mut client, "\r\n\r\n").await;
            if !at_once {
                client.write_all(next.as_bytes()).await.unwrap();
            }
            frames.unbounded_send(data("first")).unwrap();
            read_until(&mut client, "first\r\n").await;
            drop(frames);
            let mut rest = String::new();
            client.read_to_string(&mut rest).await.unwrap();
            rest
        };
        let serve = async {
            streaming(&mut connection).await;
            connection.await
        };
        let (ended, rest) = tokio::join!(serve, talk);
        ended.unwrap();
        assert!(rest.starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n") && rest.contains("/next"), "{rest}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_noticed_while_nothing_is_sent() {
    let Pair { mut connection, mut client, frames } = served(CAPACITY);
    client.write_all(request("/feed", "").as_bytes()).await.unwrap();
    streaming(&mut connection).await;
    assert!(!frames.is_closed());
    drop(client);
    connection.await.unwrap_err();
    assert!(frames.is_closed());
}

#[tokio::test]
async fn a_stream_that_fails_has_no_end_and_the_connection_closes() {
    let Pair { mut connection, mut client, frames } = served(CAPACITY);
    client.write_all(request("/feed", "").as_bytes()).await.unwrap();
    streaming(&mut connection).await;
    frames.unbounded_send(data("last")).unwrap();
    frames.unbounded_send(Err("the backend is gone".into())).unwrap();
    let mut received = String::new();
    let serve = async { connection.await.unwrap_err().to_string() };
    let (error, read) = tokio::join!(serve, client.read_to_string(&mut received));
    read.unwrap();
    assert_eq!(error, "the backend is gone");
    assert!(received.ends_with("\r\n\r\n4\r\nlast\r\n"), "{received}");
}

#[tokio::test]
async fn a_connection_closes_behind_a_stream_if_it_is_the_last_one_or_the_bridge_stops() {
    for (headers, during) in [("Connection: close\r\n", false), ("", true)] {
        let Pair { mut connection, mut client, frames } = served(CAPACITY);
        client.write_all(request("/feed", headers).as_bytes()).await.unwrap();
        streaming(&mut connection).await;
        if during {
            connection.close();
        }
        frames.unbounded_send(data("last")).unwrap();
        drop(frames);
        let mut received = String::new();
        let (ended, read) = tokio::join!(connection, client.read_to_string(&mut received));
        ended.unwrap();
        read.unwrap();
        assert!(received.ends_with("\r\n\r\n4\r\nlast\r\n0\r\n\r\n"), "{received}");
    }
}
