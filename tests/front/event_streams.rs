//! Event streams of the backend that the bridge forwards without interpreting them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::bridge::{Client, TestBridge, config, dechunked};

/// A bridge in front of a backend whose connections the test serves.
struct Bridged {
    backend: TcpListener,
    front: TestBridge,
}

/// A client that has requested a path, and the connection on which the bridge forwards the request.
struct Requested {
    client: Client,
    backend: TcpStream,
}

/// How a client asks for an event stream: by the path, or by a header.
const REQUESTS: [(&str, &[(&str, &str)]); 2] =
    [("/admin/logs/stream", &[]), ("/x", &[("Accept", "text/event-stream")])];

impl Bridged {
    async fn start() -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TestBridge::start(config(backend.local_addr().unwrap(), &[])).await;
        Self { backend, front }
    }

    async fn request(&self, (path, headers): (&str, &[(&str, &str)])) -> Requested {
        let client = self.front.open(path, headers).await;
        let (mut backend, _) = self.backend.accept().await.unwrap();
        backend.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(backend.read_buf(&mut head).await.unwrap() > 0);
        }
        Requested { client, backend }
    }
}

impl Requested {
    async fn send(&mut self, text: &str) {
        self.backend.write_all(text.as_bytes()).await.unwrap();
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

#[tokio::test]
async fn each_event_is_forwarded_when_it_comes_in_every_framing() {
    let bridged = Bridged::start().await;
    for (framing, [first, second, end]) in [
        (
            "Transfer-Encoding: chunked",
            ["8\r\ndata: 1\n\r\n", "9\r\n\ndata: 2\n\r\n", "1\r\n\n\r\n0\r\n\r\n"],
        ),
        ("Content-Length: 18", ["data: 1\n", "\ndata: 2\n", "\n"]),
        ("X-Until: close", ["data: 1\n", "\ndata: 2\n", "\n"]),
        // hyper alone reads such a body.
        ("Transfer-Encoding: gzip", ["data: 1\n", "\ndata: 2\n", "\n"]),
    ] {
        for requested in REQUESTS {
            let mut pair = bridged.request(requested).await;
            pair.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            assert_eq!(pair.client.head().await.0, 103, "{framing}");
            // The border of the head is within a piece.
            pair.send(&format!("{HEAD}{framing}\r")).await;
            pair.send(&format!("\n\r\n{first}")).await;
            let (status, headers) = pair.client.head().await;
            assert_eq!(status, 200);
            let has_length = headers.iter().any(|(name, _)| name == "content-length");
            assert_eq!(has_length, framing.starts_with("Content-Length"), "{headers:?}");
            for (sent, received) in [("", "data: 1\n"), (second, "\ndata: 2\n")] {
                pair.send(sent).await;
                let seen = if has_length {
                    pair.client.bytes(received.len()).await
                } else {
                    pair.client.chunk().await
                };
                assert_eq!(String::from_utf8(seen).unwrap(), received, "{framing}");
            }
            pair.send(end).await;
            let Requested { mut client, backend } = pair;
            drop(backend);
            let rest = if has_length { client.bytes(1).await } else { client.answer_body().await };
            assert_eq!(rest, b"\n", "{framing}");
        }
    }
}

#[tokio::test]
async fn an_event_stream_that_breaks_is_cut_for_the_client_behind_what_was_received() {
    let bridged = Bridged::start().await;
    for (framing, rest) in [
        ("Transfer-Encoding: chunked", "8\r\ndata: 1\n\r\n"),
        ("Transfer-Encoding: chunked", "10\r\ndata: 1\n"),
        ("Transfer-Encoding: chunked", "8\r\ndata: 1\n\r\nfffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked", "8\r\ndata: 1\n\r\nno size"),
        ("Transfer-Encoding: chunked", "8\r\ndata: 1\n\r\n0\r\nno trailer\r\n\r\n"),
        ("Content-Length: 18", "data: 1\n"),
    ] {
        for requested in REQUESTS {
            let Requested { mut client, mut backend } = bridged.request(requested).await;
            backend.write_all(format!("{HEAD}{framing}\r\n\r\n{rest}").as_bytes()).await.unwrap();
            drop(backend);
            assert_eq!(client.head().await.0, 200);
            let received = client.rest().await;
            let is_other = if framing.starts_with("Content") {
                received != b"data: 1\n"
            } else {
                dechunked(&received) != (b"data: 1\n".to_vec(), false)
            };
            assert!(!is_other, "{rest:?}: {}", received.escape_ascii());
        }
    }
}

#[tokio::test]
async fn the_backend_of_an_event_stream_sees_that_the_client_has_left() {
    let bridged = Bridged::start().await;
    for requested in REQUESTS {
        let mut pair = bridged.request(requested).await;
        pair.send(&format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n")).await;
        assert_eq!(pair.client.head().await.0, 200);
        assert_eq!(pair.client.chunk().await, b"data: 1\n");
        let Requested { client, mut backend } = pair;
        drop(client);
        assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn trailers_of_an_event_stream_are_forwarded_if_they_were_announced() {
    let bridged = Bridged::start().await;
    let named = [("Accept", "text/event-stream"), ("TE", "trailers"), ("Connection", "TE")];
    let mut pair = bridged.request(("/x", &named)).await;
    pair.send(&format!("{HEAD}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")).await;
    assert_eq!(pair.client.head().await.0, 200);
    pair.send("8\r\ndata: 1\n\r\n0\r\nX-Sum: 42\r\n\r\n").await;
    assert_eq!(pair.client.chunk().await, b"data: 1\n");
    for line in ["0", "x-sum: 42", ""] {
        assert_eq!(pair.client.line().await, line);
    }
}
