//! Clients.
#![allow(dead_code, reason = "not every program uses all of it")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::source::MARKER;

/// The longest time for a read, or for a request and its response. Without it, a system that hangs would hang the load.
pub const LONGEST: Duration = Duration::from_secs(30);
/// What of the beginning and of the end of a stream is kept.
const TAIL: usize = 4096;
/// The beginning of a final event.
const COMPLETE: &[u8] = b"event: complete\n";

/// A client of one event stream.
pub struct StreamClient {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer was received by the last read.
    length: usize,
    /// The last bytes that were received.
    tail: Vec<u8>,
    /// The first bytes that were received: the head of the response.
    head: Vec<u8>,
    /// How many frames of the backend were received.
    pub frames: usize,
    /// How many final events were received.
    pub completes: usize,
}

impl StreamClient {
    /// Requests `target`. `host` is the name of the server.
    pub async fn open(address: SocketAddr, host: &str, target: &str) -> std::io::Result<Self> {
        Self::open_with(address, target, &format!("Host: {host}\r\n")).await
    }

    /// Requests `target`, with these header fields.
    pub async fn open_with(address: SocketAddr, target: &str, fields: &str) -> std::io::Result<Self> {
        let mut stream = timeout(LONGEST, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let request = format!("GET {target} HTTP/1.1\r\n{fields}Accept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(Self {
            stream,
            buffer: vec![0; 16 * 1024],
            length: 0,
            tail: Vec::new(),
            head: Vec::new(),
            frames: 0,
            completes: 0,
        })
    }

    /// Uses a larger buffer, for a stream as fast as it comes.
    pub fn fast(mut self) -> Self {
        self.buffer = vec![0; 256 * 1024];
        self
    }

    /// Frees the buffer of a stream that sends nothing more.
    pub fn small(mut self) -> Self {
        self.buffer = Vec::new();
        self
    }

    /// Closes with a reset, after which the port is free at once.
    pub fn resetting(self) -> Self {
        self.stream.set_zero_linger().expect("a socket");
        self
    }

    /// Reads once. Returns whether anything was received.
    pub async fn read(&mut self) -> std::io::Result<bool> {
        let read = timeout(LONGEST, self.stream.read(&mut self.buffer)).await??;
        self.length = read;
        let received = &self.buffer[..read];
        self.frames += count(&self.tail, received, MARKER);
        self.completes += count(&self.tail, received, COMPLETE);
        let room = TAIL.saturating_sub(self.head.len()).min(read);
        self.head.extend_from_slice(&received[..room]);
        self.tail.extend_from_slice(&received[read.saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        Ok(read > 0)
    }

    /// Reads until at least `frames` were received. Returns whether they were.
    pub async fn read_frames(&mut self, frames: usize) -> std::io::Result<bool> {
        while self.frames < frames {
            if !self.read().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the body has ended.
    pub fn has_ended(&self) -> bool {
        self.tail.ends_with(b"0\r\n\r\n")
    }

    /// Whether the stream was whole: a successful final event and the end of the body.
    pub fn is_ok(&self) -> bool {
        self.has_ended()
            && memchr::memmem::find(&self.tail, b"event: complete\ndata: {\"ok\": true").is_some()
    }

    /// Whether the stream ended as the contract says: one final event, last, after an error if it is not successful.
    pub fn has_proper_end(&self) -> bool {
        let tail = self.tail();
        let mut events = tail.rsplit("\nevent: ").filter_map(|event| event.lines().next());
        let [last, before] = [events.next(), events.next()];
        self.completes == 1
            && self.has_ended()
            && last == Some("complete")
            && (self.is_ok() || before == Some("error"))
    }

    /// Reads to the end. Returns the number of each virtual machine and when it was received. One in two chunks is left
    /// out.
    pub async fn arrivals(&mut self) -> std::io::Result<Vec<(usize, Instant)>> {
        let mut arrivals = Vec::new();
        while !self.has_ended() && self.read().await? {
            let now = Instant::now();
            let received = &self.buffer[..self.length];
            let numbers = memchr::memmem::find_iter(received, MARKER).filter_map(|at| {
                let digits = received.get(at + MARKER.len()..at + MARKER.len() + 7)?;
                std::str::from_utf8(digits).ok()?.parse().ok()
            });
            arrivals.extend(numbers.map(|number: usize| (number, now)));
        }
        Ok(arrivals)
    }

    /// The status of the response, once it was received.
    pub fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.head.get(9..12)?).ok()?.parse().ok()
    }

    /// The id of the job, once the head of the response was received.
    pub fn job(&self) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        let (_, id) = head.split_once("\r\nx-proxbox-bridge-job: ")?;
        Some(id.split_once("\r\n")?.0.to_owned())
    }

    /// The last bytes that were received, as text.
    pub fn tail(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }
}

/// How often `marker` is in `received`, or partly in what was received `before`.
fn count(before: &[u8], received: &[u8], marker: &[u8]) -> usize {
    let around = marker.len() - 1;
    let before = &before[before.len().saturating_sub(around)..];
    let edge = [before, &received[..received.len().min(around)]].concat();
    [edge.as_slice(), received].map(|part| memchr::memmem::find_iter(part, marker).count()).iter().sum()
}

/// Sends a request of an operator. Returns the whole response.
pub async fn request(address: SocketAddr, method: &str, path: &str, token: &str) -> std::io::Result<String> {
    let mut stream = timeout(LONGEST, TcpStream::connect(address)).await??;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    timeout(LONGEST, stream.read_to_end(&mut response)).await??;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// A client with one connection for its requests.
pub struct RequestClient {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RequestClient {
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = timeout(LONGEST, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Requests `path`. Returns the status of the whole response, which has a length.
    pub async fn get(&mut self, path: &str) -> std::io::Result<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bridge\r\nAccept: */*\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.received.clear();
        loop {
            if timeout(LONGEST, self.stream.read_buf(&mut self.received)).await?? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let mut headers = [httparse::EMPTY_HEADER; 40];
            let mut response = httparse::Response::new(&mut headers);
            let Ok(httparse::Status::Complete(head)) = response.parse(&self.received) else { continue };
            let length =
                response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
            let length =
                length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok()).unwrap_or(0);
            let status = response.code.unwrap_or(0);
            if self.received.len() >= head + length {
                return Ok(status);
            }
        }
    }
}
