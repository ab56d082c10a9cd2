//! Responses that no current backend sends, but a proxy in front of one may.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::calls::Call;
use super::headers::{self, Headers, end_to_end};
use super::http1::Http1;
use crate::support::bridge::{TestBridge, config};

#[tokio::test]
async fn an_answer_is_taken_however_it_is_written_and_wherever_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TestBridge::start(config(listener.local_addr().unwrap(), &[])).await;
    for (output, status, expected, body) in [
        (
            "HTTP/1.1 200 OK\r\nsEt-cOoKie:a=1\r\nSET-COOKIE:  b=2  \r\ncontent-LENGTH: 2\r\n\r\nok",
            200,
            &[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-length", "2")][..],
            "ok",
        ),
        ("HTTP/1.1 404\r\nX-A: 1\r\nConnection: close\r\n\r\nto the end", 404, &[("x-a", "1")], "to the end"),
        ("HTTP/1.0 500 Old\r\nX-A: 1\r\n\r\nold", 500, &[("x-a", "1")], "old"),
        // This length is of another answer, and hyper leaves it out.
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n",
            304,
            &[("etag", "\"a\"")],
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=\"y\"\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
            200,
            &[],
            "ok!",
        ),
    ] {
        let backend = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(output.as_bytes()).await.unwrap();
        };
        let (call, mut client) = (Call::new("GET", "/x"), Http1::new(front.address));
        let ((), reply) = tokio::join!(backend, client.request(&call));
        assert_eq!((reply.status, reply.body.as_slice()), (status, body.as_bytes()), "{output}");
        let mut got = end_to_end(&reply.headers);
        for added in ["date", "via", "x-request-id"] {
            got.remove(added);
        }
        let mut wanted = Headers::new();
        for (name, value) in expected {
            headers::add(&mut wanted, name, value.as_bytes());
        }
        assert_eq!(got, wanted, "{output}");
    }
}
