//! Raw connections, whose bytes a test reads and writes itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// A WebSocket handshake request, without the empty line at its end.
pub(super) const OPENING: &str = "GET /virtualization/virtual-machines/7/console?a=%2F HTTP/1.1\r\n\
    Host: bridge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The 101 response of a backend.
pub(super) const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// One end of a connection.
pub(super) struct Wire {
    pub(super) reader: WireReader,
    pub(super) writer: WireWriter,
}

/// The read half.
pub(super) struct WireReader(BufReader<OwnedReadHalf>);

/// The write half.
pub(super) struct WireWriter(OwnedWriteHalf);

/// The head of a request or of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) first: String,
    /// Names in lower case, in their order.
    pub(super) headers: Vec<(String, String)>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: WireReader(BufReader::new(reader)), writer: WireWriter(writer) }
    }

    /// A client that has sent `words`.
    pub(super) async fn to(address: SocketAddr, words: impl AsRef<[u8]>) -> Self {
        let mut wire = Self::new(TcpStream::connect(address).await.unwrap());
        wire.writer.send(words).await;
        wire
    }

    /// A client with a small receive buffer.
    pub(super) async fn small(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::new(socket.connect(address).await.unwrap())
    }

    /// A client that requests a WebSocket.
    pub(super) async fn opening(address: SocketAddr) -> Self {
        Self::to(address, format!("{OPENING}\r\n")).await
    }

    /// The backend's end of the next connection.
    pub(super) async fn at(listener: &TcpListener) -> Self {
        Self::new(listener.accept().await.unwrap().0)
    }

    /// Drops the connection.
    pub(super) fn reset(self) {
        self.reader.0.get_ref().as_ref().set_zero_linger().unwrap();
        self.writer.0.forget();
    }
}

impl WireReader {
    pub(super) async fn head(&mut self) -> Head {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(in_time(self.0.read_u8()).await.expect("a whole head"));
            }
            line.truncate(line.len() - 2);
            if line.is_empty() {
                break;
            }
            lines.push(String::from_utf8(line).unwrap());
        }
        let headers = lines[1..].iter().map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Head { headers: headers.collect(), first: lines[0].clone() }
    }

    /// Asserts that the next bytes are `words`.
    pub(super) async fn expect_bytes(&mut self, words: impl AsRef<[u8]>) {
        let words = words.as_ref();
        let mut received = vec![0; words.len()];
        in_time(self.0.read_exact(&mut received)).await.unwrap();
        assert!(received == words, "{:.200} is not {:.200}", lossy(&received), lossy(words));
    }

    /// Waits for as many bytes as `heard` has room for.
    pub(super) async fn fill(&mut self, received: &mut [u8]) {
        in_time(self.0.read_exact(received)).await.unwrap();
    }

    /// All bytes up to the end of the connection, clean or not.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = in_time(self.0.read_to_end(&mut rest)).await;
        rest
    }

    /// Whether no byte arrives while all tasks are idle. For paused time.
    pub(super) async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_secs(1), self.0.fill_buf()).await.is_err()
    }
}

impl WireWriter {
    pub(super) async fn send(&mut self, words: impl AsRef<[u8]>) {
        self.0.write_all(words.as_ref()).await.unwrap();
    }

    /// Says something until `most` bytes are taken, or no more as long as everybody waits. Gives whether they
    /// were. For paused time.
    pub(super) async fn flood(&mut self, most: usize) -> bool {
        let mut taken = 0;
        while taken < most {
            match timeout(Duration::from_secs(1), self.0.write(&[b'x'; 16 * 1024])).await {
                Ok(Ok(bytes)) => taken += bytes,
                _ => return false,
            }
        }
        true
    }

    /// Closes the write half.
    pub(super) async fn close(&mut self) {
        self.0.shutdown().await.unwrap();
    }
}

impl Head {
    pub(super) fn status(&self) -> u16 {
        self.first[9..12].parse().unwrap()
    }

    /// All values of a header.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Longer than any limit of the bridge. All waits here are in paused time.
async fn in_time<T>(wanted: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(600), wanted).await.expect("something in time")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
