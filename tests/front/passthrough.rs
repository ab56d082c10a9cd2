//! Paths that the bridge does not serve itself are forwarded unchanged.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::bridge::{Client, TestBridge, config, without_pseudonym};
use crate::support::scripted::{answer, bridged, full_body};

#[tokio::test(start_paused = true)]
async fn method_path_query_headers_and_body_arrive_byte_for_byte() {
    let (backend, front) = bridged(&[], |request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full_body(body))
    })
    .await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let target = "/a//b/../%2e%2E/c;d=1,2?x=%20+&&y&z";
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: bridge:8800\r\nX-Odd: a,  b\r\nAccept-Encoding: br\r\n\
             Content-Length: 5\r\n\r\nhello"
        );
        let answer = Client::raw(front.address, request.as_bytes()).await.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{method}");
        let received = backend.last();
        assert_eq!((received.method.as_str(), received.target.as_str()), (method, target));
        assert_eq!(received.header("x-odd"), Some("a,  b"));
        assert_eq!(received.header("accept-encoding"), Some("br"));
        assert_eq!(received.header("host"), Some("bridge:8800"));
        assert_eq!(received.header("content-length"), Some("5"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_of_any_status_is_forwarded_unchanged() {
    let (_backend, front) = bridged(&[], |request| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        let headers = [("x-odd", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("server", "uvicorn")];
        answer(status, &headers, if matches!(status, 204 | 304) { "" } else { "said" })
    })
    .await;
    for status in [200, 201, 204, 304, 307, 400, 401, 404, 409, 418, 422, 500, 502, 503, 504] {
        let answer = front.get(&format!("/{status}"), &[]).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.text(), if matches!(status, 204 | 304) { "" } else { "said" });
        let cookies: Vec<&str> = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(answer.header("server"), Some("uvicorn"));
        assert_eq!(answer.header("via"), Some("1.1 proxbox-bridge"));
    }
}

#[tokio::test(start_paused = true)]
async fn head_has_the_length_that_get_would_have_and_no_body() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[("content-length", "331")], "") }).await;
    let mut client = Client::send(front.address, "HEAD", "/static/x", &[]).await;
    let (status, headers) = client.head().await;
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-length".to_owned(), "331".to_owned())), "{headers:?}");
    // The connection is ready for the next request, and not in the middle of a body.
    client.write(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(backend.last().target, "/next");
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_one_connection_stays_on_it() {
    let (backend, front) = bridged(&[], |_| async {
        answer(200, &[("connection", "x-secret"), ("x-secret", "1"), ("keep-alive", "timeout=5")], "said")
    })
    .await;
    let headers = [
        ("Connection", "keep-alive, TE"),
        ("Keep-Alive", "timeout=9"),
        ("TE", "trailers, deflate"),
        ("Proxy-Connection", "keep-alive"),
    ];
    let answer = front.get("/x", &headers).await;
    assert_eq!(answer.header("x-secret"), None);
    assert_eq!(answer.header("keep-alive"), None);
    let received = backend.last();
    for name in ["keep-alive", "proxy-connection"] {
        assert_eq!(received.header(name), None, "{name}");
    }
    assert_eq!(received.header("te"), Some("trailers"));
    assert_eq!(received.header("via").map(without_pseudonym), Some("1.1 proxbox-bridge"));
}

#[tokio::test(start_paused = true)]
async fn the_backend_gets_forwarded_headers_with_the_client_and_the_host() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "said") }).await;
    let lies =
        [("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=10.0.0.1")];
    front.get("/x", &lies).await;
    let received = backend.last();
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert_eq!(received.header("x-forwarded-host"), Some(front.address.to_string().as_str()));
    assert_eq!(received.header("forwarded"), None);

    let trusting = TestBridge::start(config(backend.address, &[("trusted_proxies", "127.0.0.1")])).await;
    trusting.get("/x", &lies).await;
    let received = backend.last();
    assert_eq!(received.header("x-forwarded-for"), Some("10.0.0.1, 127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_sent_to_the_backend_and_the_client() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "said") }).await;
    let answer = front.get("/x", &[]).await;
    let received = backend.last();
    assert_eq!(answer.header("x-request-id"), received.header("x-request-id"));
    assert_eq!(received.header("traceparent").unwrap().len(), 55);

    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = front.get("/x", &[("X-Request-Id", "mine"), ("traceparent", parent)]).await;
    let received = backend.last();
    assert_eq!(
        (answer.header("x-request-id"), received.header("x-request-id")),
        (Some("mine"), Some("mine"))
    );
    assert_eq!(received.header("traceparent"), Some(parent));
}

#[tokio::test(start_paused = true)]
async fn pieces_of_an_answer_come_when_they_are_sent_and_trailers_after_them() {
    let (sender, receiver) = mpsc::unbounded_channel::<Frame<Bytes>>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let (_backend, front) = bridged(&[], move |_| {
        let mut receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok);
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            response
        }
    })
    .await;
    let mut client = front.open("/admin/logs/stream", &[("TE", "trailers"), ("Connection", "TE")]).await;
    sender.send(Frame::data(Bytes::from_static(b"first"))).unwrap();
    assert_eq!(client.head().await.0, 200);
    assert_eq!(client.chunk().await, b"first");
    sender.send(Frame::data(Bytes::from_static(b"second"))).unwrap();
    assert_eq!(client.chunk().await, b"second");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    sender.send(Frame::trailers(trailers)).unwrap();
    drop(sender);
    assert_eq!(client.line().await, "0");
    assert_eq!(client.line().await, "x-sum: 42");
    assert_eq!(client.line().await, "");
}

#[tokio::test(start_paused = true)]
async fn pieces_of_an_upload_arrive_before_the_next_is_sent() {
    let (sender, mut pieces) = mpsc::unbounded_channel();
    let (_backend, front) = bridged(&[], move |request| {
        let sender = sender.clone();
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.unwrap();
                match frame.into_data() {
                    Ok(data) => sender.send(String::from_utf8(data.to_vec()).unwrap()).unwrap(),
                    Err(frame) => {
                        let sum = frame.into_trailers().unwrap()["x-sum"].to_str().unwrap().to_owned();
                        sender.send(format!("trailer {sum}")).unwrap();
                    }
                }
            }
            answer(201, &[], "taken")
        }
    })
    .await;
    let head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n";
    let mut client = Client::raw(front.address, head).await;
    client.write(b"3\r\none\r\n").await;
    assert_eq!(pieces.recv().await.unwrap(), "one");
    client.write(b"3\r\ntwo\r\n").await;
    assert_eq!(pieces.recv().await.unwrap(), "two");
    client.write(b"0\r\nx-sum: 9\r\n\r\n").await;
    assert_eq!(pieces.recv().await.unwrap(), "trailer 9");
    assert_eq!(client.head().await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn expect_100_continue_is_answered_when_the_backend_reads_the_body() {
    let (_backend, front) = bridged(&[], |request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full_body(body))
    })
    .await;
    let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut client = Client::raw(front.address, head).await;
    assert_eq!(client.head().await.0, 100);
    client.write(b"body").await;
    assert_eq!(client.answer().await.text(), "body");
}

#[tokio::test(start_paused = true)]
async fn interim_answers_come_when_they_are_sent_and_in_their_turn() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TestBridge::start(config(listener.local_addr().unwrap(), &[])).await;
    let (seen, mut go_on) = mpsc::unbounded_channel::<()>();
    let backend = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // What the kernel holds back would come after the paused clock has jumped.
        stream.set_nodelay(true).unwrap();
        for turn in 0..4 {
            let mut head = vec![0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";
            stream.write_all(hint.as_bytes()).await.unwrap();
            if turn == 0 {
                go_on.recv().await.unwrap();
            }
            let rest = format!(
                "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nX-Turn: {turn}\r\nContent-Length: 4\r\n\r\nok\r\n"
            );
            stream.write_all(rest.as_bytes()).await.unwrap();
        }
    });
    let pipelined = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    let mut client = Client::raw(front.address, pipelined.as_bytes()).await;
    for turn in ["0", "1", "2"] {
        let (status, headers) = client.head().await;
        assert_eq!(status, 103);
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["link", "via"], "what belongs to one connection stays on it");
        if turn == "0" {
            seen.send(()).unwrap();
        }
        assert_eq!(client.head().await.0, 102);
        let (status, headers) = client.head().await;
        assert_eq!(status, 200);
        assert!(headers.contains(&("x-turn".to_owned(), turn.to_owned())), "{headers:?}");
        assert_eq!(client.line().await, "ok");
    }
    let old = Client::raw(front.address, b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await.answer().await;
    assert_eq!((old.status, old.text()), (200, "ok\r\n"), "HTTP/1.0 knows no interim answers");
    backend.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connections_to_the_backend_are_used_again_but_not_when_they_were_idle_for_long() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "said") }).await;
    for _ in 0..5 {
        assert_eq!(front.get("/x", &[]).await.status, 200);
    }
    assert_eq!(backend.connections(), 1);
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    assert_eq!(front.get("/x", &[]).await.status, 200);
    assert_eq!(backend.connections(), 2, "one that was idle for longer than backends keep it is not used");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_to_the_backend_is_closed_after_the_limit_or_when_the_backend_closes_it() {
    for (closes, seconds) in [(false, 4), (true, 0)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = [("limits.pool_idle", "4s")];
        let front = TestBridge::start(config(listener.local_addr().unwrap(), &settings)).await;
        let backend = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            stream
        };
        let (mut stream, answer) = tokio::join!(backend, front.get("/x", &[]));
        assert_eq!(answer.text(), "ok");
        let began = tokio::time::Instant::now();
        if closes {
            stream.shutdown().await.unwrap();
        }
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the bridge closes it");
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn a_backend_that_answers_early_gets_the_whole_request_and_the_next_one_on_its_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TestBridge::start(config(listener.local_addr().unwrap(), &[])).await;
    let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
    let mut client = Client::raw(front.address, head).await;
    let (backend, _) = listener.accept().await.unwrap();
    let (mut received, mut reply) = backend.into_split();
    let mut seen = Vec::new();
    let mut receive = async |until: &str| {
        while !String::from_utf8_lossy(&seen).contains(until) {
            assert!(received.read_buf(&mut seen).await.unwrap() > 0);
        }
    };
    let answered = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    receive("\r\n\r\n").await;
    reply.write_all(answered).await.unwrap();
    assert_eq!(client.next_answer().await.text(), "ok");
    client.write(b"body").await;
    receive("\r\n\r\nbody").await;
    let again = async {
        receive("GET /y ").await;
        reply.write_all(answered).await.unwrap();
    };
    let (answer, ()) = tokio::join!(front.get("/y", &[]), again);
    assert_eq!(answer.text(), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_done_is_never_sent_twice() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TestBridge::start(config(listener.local_addr().unwrap(), &[])).await;
    let backend = async {
        // It answers the first request, and breaks the connection at the second.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        assert!(stream.read(&mut head).await.unwrap() > 0);
        drop(stream);
        listener.accept().await.is_ok()
    };
    let client = async {
        assert_eq!(front.get("/x", &[]).await.text(), "ok");
        let answer =
            Client::raw(front.address, b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
                .await
                .answer()
                .await;
        assert_eq!(answer.status, 502);
        assert!(answer.detail().contains("connection broke"), "{}", answer.text());
    };
    tokio::select! {
        again = backend => panic!("a second connection: {again}"),
        () = client => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_used_again_behind_an_internal_error() {
    let (backend, front) = bridged(&[], |request| async move {
        let status = request.uri().path()[1..].parse().unwrap();
        answer(status, &[], "said")
    })
    .await;
    for (status, connections) in [(404, 1), (502, 1), (500, 1), (500, 2), (200, 3), (200, 3)] {
        assert_eq!(front.get(&format!("/{status}"), &[]).await.status, status);
        assert_eq!(backend.connections(), connections, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_refused_and_its_place_is_free_again() {
    let (_backend, front) = bridged(&[("limits.requests", "1")], |request| async {
        let _ = request.into_body().collect().await;
        answer(200, &[], "said")
    })
    .await;
    let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let (mut read, mut write) = TcpStream::connect(front.address).await.unwrap().into_split();
    write.write_all(head).await.unwrap();
    let began = tokio::time::Instant::now();
    let drip = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(29)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut output = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut output) => {}
    }
    let output = String::from_utf8(output).unwrap();
    assert!(output.starts_with("HTTP/1.1 408 ") && output.contains("limits.client_body_rate"), "{output}");
    assert!((30..=33).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(front.get("/y", &[]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_or_is_too_long_is_the_clients_own_fault() {
    let (backend, front) = bridged(&[("limits.body_bytes", "1024")], |request| async {
        let _ = request.into_body().collect().await;
        answer(200, &[], "said")
    })
    .await;
    let slow = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello";
    let answer = Client::raw(front.address, slow).await.answer().await;
    assert_eq!(answer.status, 408);
    assert!(answer.detail().contains("limits.client_body"), "{}", answer.text());

    let long = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n";
    let answer = Client::raw(front.address, long).await.answer().await;
    assert_eq!(answer.status, 413);
    assert!(answer.detail().contains("limits.body_bytes"), "{}", answer.text());

    let mut chunked = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        chunked.extend(format!("200\r\n{}\r\n", "x".repeat(512)).bytes());
    }
    chunked.extend(b"0\r\n\r\n");
    assert_eq!(Client::raw(front.address, &chunked).await.answer().await.status, 413);
    let received: Vec<String> = backend.requests().into_iter().map(|received| received.target).collect();
    assert!(received.len() <= 2, "what is known to be too long is not sent at all: {received:?}");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_of_the_backend_to_itself_reaches_no_client_of_a_stream() {
    let (backend, front) = bridged(&[], |request| async move {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/version" => answer(200, &[], "{\"version\":\"0.0.11\"}"),
            path if path.ends_with("/stream/") => answer(307, &[("location", "http://backend/x")], ""),
            _ => answer(200, &[("content-type", "text/event-stream")], STREAM),
        }
    })
    .await;
    for path in [
        "/full-update/stream", "/full-update/stream/", "/dcim/devices/create/stream/",
        // Backends decode a path before they look for it.
        "/full%2Dupdate/%73tream", "/full-update%2fstream", "/dcim/devices%2Fcreate/stream",
        "/dcim/devices/%63reate/stream",
    ] {
        let answer = front.get(path, &[("X-Proxbox-API-Key", "key")]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.text().contains("event: complete"), "{path}");
    }
    assert!(backend.requests().iter().all(|received| !received.target.ends_with('/')));
}

const STREAM: &str = "event: complete\ndata: {\"ok\": true, \"message\": \"Done.\"}\n\n";

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_backend_has_closed_costs_no_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TestBridge::start(config(listener.local_addr().unwrap(), &[])).await;
    let backend = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            seen.push(String::from_utf8_lossy(&head[..read]).split(' ').next().unwrap().to_owned());
            // Like uvicorn after its keep-alive limit, it closes silently.
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        seen
    });
    for method in ["GET", "POST", "POST"] {
        let request = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = Client::raw(front.address, request.as_bytes()).await.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{method}");
    }
    assert_eq!(backend.await.unwrap(), ["GET", "POST", "POST"]);
}

#[tokio::test]
async fn a_refused_body_is_drained_for_a_while() {
    let (_backend, front) =
        bridged(&[("limits.body_bytes", "1024")], |_| async { answer(200, &[], "never") }).await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx").await.unwrap();
    let mut answer = String::new();
    // Read to the end: the bridge has sent its whole response.
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("limits.body_bytes"), "{answer}");
    // A proxy in front keeps sending, and would treat a reset as no response at all.
    for _ in 1..100 {
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn te_is_forwarded_only_if_the_connection_header_names_it() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "said") }).await;
    for (connection, passed) in [("TE", Some("trailers")), ("keep-alive", None)] {
        front.get("/x", &[("TE", "trailers, deflate;q=0.5"), ("Connection", connection)]).await;
        let received = backend.last();
        assert_eq!(received.header("te"), passed, "{connection}");
        assert_eq!(received.header("connection"), passed.map(|_| "te"), "{connection}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_names_stays_on_it_unless_the_backend_needs_it() {
    let (backend, front) = bridged(&[], |_| async { answer(200, &[], "said") }).await;
    let named = [("Connection", "x-hop, Keep-Alive"), ("X-Hop", "1"), ("X-Kept", "1")];
    assert_eq!(front.get("/x", &named).await.status, 200);
    let received = backend.last();
    assert_eq!((received.header("x-hop"), received.header("x-kept")), (None, Some("1")));
    for (named, header) in [("X-Proxbox-API-Key", "x-proxbox-*"), ("close, Host", "host")] {
        let answer = front.get("/x", &[("Connection", named), ("X-Proxbox-API-Key", "key")]).await;
        let detail = format!("names the end-to-end header {header}; remove it from Connection.");
        assert!(answer.status == 400 && answer.detail().contains(&detail), "{}", answer.text());
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_byte_of_a_stranger_does_not_hide_what_a_trusted_proxy_appends() {
    let (backend, front) =
        bridged(&[("trusted_proxies", "127.0.0.1")], |_| async { answer(200, &[], "said") }).await;
    let head = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: caf\xe9, 198.51.100.7\r\n\r\n";
    assert_eq!(Client::raw(front.address, head).await.answer().await.status, 200);
    assert_eq!(backend.last().header("x-forwarded-for"), Some("198.51.100.7, 127.0.0.1"));
}
