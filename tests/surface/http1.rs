//! An HTTP/1.1 client that keeps its connection open as long as it can.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::calls::{Call, HOST, RequestBody};
use super::headers::{self, Headers};

/// A response.
#[derive(Debug, Default)]
pub(super) struct ReceivedResponse {
    pub(super) status: u16,
    /// Nothing over HTTP/2.
    pub(super) reason: Option<String>,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Headers,
}

pub(super) struct Http1 {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// What was read and belongs to nothing yet.
    buffer: Vec<u8>,
}

impl Http1 {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: Vec::new() }
    }

    pub(super) async fn request(&mut self, call: &Call) -> ReceivedResponse {
        let request = written(call);
        // A connection that was closed meanwhile has sent no byte of a response.
        if self.stream.is_some() {
            if self.send(&request).await && self.fill().await {
                return self.reply(call).await;
            }
            self.stream = None;
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.stream = Some(stream);
        assert!(self.send(&request).await && self.fill().await, "no answer to {call}");
        self.reply(call).await
    }

    async fn send(&mut self, request: &[u8]) -> bool {
        self.stream.as_mut().unwrap().write_all(request).await.is_ok()
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        let read = self.stream.as_mut().unwrap().read_buf(&mut self.buffer).await;
        matches!(read, Ok(1..))
    }

    async fn reply(&mut self, call: &Call) -> ReceivedResponse {
        let mut reply = loop {
            if let Some(reply) = self.head() {
                break reply;
            }
            assert!(self.fill().await, "half a head in answer to {call}");
        };
        if call.method == "HEAD" || matches!(reply.status, 204 | 304) {
        } else if reply.headers.contains_key("transfer-encoding") {
            loop {
                let line = self.line().await;
                let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap(), 16).unwrap();
                if size == 0 {
                    break;
                }
                reply.body.extend(self.exactly(size).await);
                assert_eq!(self.line().await, b"", "the end of a chunk in answer to {call}");
            }
            loop {
                let line = self.line().await;
                let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
                let name = String::from_utf8(line[..colon].to_vec()).unwrap();
                headers::add(&mut reply.trailers, &name, line[colon + 1..].trim_ascii());
            }
        } else {
            let length = headers::one(&reply.headers, "content-length").unwrap();
            reply.body = self.exactly(std::str::from_utf8(length).unwrap().parse().unwrap()).await;
        }
        assert_eq!(headers::short(&self.buffer), "", "more than the answer to {call}");
        if headers::one(&reply.headers, "connection") == Some(b"close") {
            self.stream = None;
        }
        reply
    }

    fn head(&mut self) -> Option<ReceivedResponse> {
        let mut parsed = [httparse::EMPTY_HEADER; 200];
        let mut response = httparse::Response::new(&mut parsed);
        let httparse::Status::Complete(length) = response.parse(&self.buffer).unwrap() else { return None };
        let mut reply = ReceivedResponse {
            status: response.code.unwrap(),
            reason: response.reason.map(str::to_owned),
            ..ReceivedResponse::default()
        };
        for header in response.headers.iter() {
            headers::add(&mut reply.headers, header.name, header.value);
        }
        self.buffer.drain(..length);
        Some(reply)
    }

    async fn line(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return line;
            }
            assert!(self.fill().await, "the end within a line");
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "the end within a body");
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }
}

/// `call` as it goes over the wire.
fn written(call: &Call) -> Vec<u8> {
    let mut request = format!("{} {} HTTP/1.1\r\nHost: {HOST}\r\n", call.method, call.target).into_bytes();
    for (name, value) in &call.headers {
        request.extend(name.as_bytes());
        request.extend(b": ");
        request.extend(value);
        request.extend(b"\r\n");
    }
    match &call.body {
        RequestBody::Nothing => request.extend(b"\r\n"),
        RequestBody::Whole(body) => {
            request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            request.extend(body);
        }
        RequestBody::Pieces(pieces) => {
            request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in pieces {
                request.extend(format!("{:x}\r\n", piece.len()).bytes());
                request.extend(piece);
                request.extend(b"\r\n");
            }
            request.extend(b"0\r\n\r\n");
        }
    }
    request
}
