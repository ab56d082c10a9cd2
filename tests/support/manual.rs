//! A backend that says what a test makes it say, when it makes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// A backend of which every stream is played by hand. It wants no key.
pub struct ManualBackend {
    pub address: SocketAddr,
    traits: Arc<Traits>,
    streams: mpsc::UnboundedReceiver<ManualStream>,
    task: JoinHandle<()>,
}

/// How it answers everything else.
#[derive(Default)]
struct Traits {
    /// The release that it says it has.
    release: Option<&'static str>,
    /// It reports that a full update runs.
    is_active: AtomicBool,
    /// That report is compressed.
    compresses: AtomicBool,
    /// It refuses every stream.
    refuses: AtomicBool,
}

/// A stream of it that was asked for.
pub struct ManualStream {
    pub target: String,
    stream: TcpStream,
}

impl ManualBackend {
    /// One whose release nobody knows.
    pub async fn start() -> Self {
        Self::with(Traits::default()).await
    }

    /// One of `release`.
    pub async fn with_release(release: &'static str) -> Self {
        Self::with(Traits { release: Some(release), ..Traits::default() }).await
    }

    async fn with(traits: Traits) -> Self {
        let traits = Arc::new(traits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::unbounded_channel();
        let known = Arc::clone(&traits);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(answer(stream, sender.clone(), Arc::clone(&known)));
            }
        });
        Self { address, traits, streams, task }
    }

    /// From now on it reports that a full update runs.
    pub fn report_active(&self) {
        self.traits.is_active.store(true, Ordering::Relaxed);
    }

    /// From now on it reports that no full update runs.
    pub fn report_idle(&self) {
        self.traits.is_active.store(false, Ordering::Relaxed);
    }

    /// From now on its report of what runs is compressed.
    pub fn compress_report(&self) {
        self.traits.compresses.store(true, Ordering::Relaxed);
    }

    /// From now on it refuses every stream.
    pub fn refuse(&self) {
        self.traits.refuses.store(true, Ordering::Relaxed);
    }

    /// From now on it refuses no stream.
    pub fn accept(&self) {
        self.traits.refuses.store(false, Ordering::Relaxed);
    }

    /// The next stream that is asked for.
    pub async fn played(&mut self) -> ManualStream {
        self.streams.recv().await.unwrap()
    }

    /// Whether no further stream was asked for.
    pub fn is_idle(&mut self) -> bool {
        self.streams.try_recv().is_err()
    }
}

impl Drop for ManualBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, sender: mpsc::UnboundedSender<ManualStream>, traits: Arc<Traits>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    if head.starts_with("HEAD ") {
        let known = "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(known.as_bytes()).await;
        return;
    }
    let path = target.split('?').next().unwrap();
    if path.ends_with("/stream") && traits.refuses.load(Ordering::Relaxed) {
        let refused = "HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(refused.as_bytes()).await;
        return;
    }
    if path.ends_with("/stream") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = sender.send(ManualStream { target, stream });
        return;
    }
    let body = match (path, traits.release) {
        ("/version", Some(release)) => format!("{{\"version\": \"{release}\"}}"),
        ("/sync/active", _) => format!("{{\"active\": {}}}", traits.is_active.load(Ordering::Relaxed)),
        _ => "{}".to_owned(),
    };
    let coding = match path == "/sync/active" && traits.compresses.load(Ordering::Relaxed) {
        true => "\r\nContent-Encoding: gzip",
        false => "",
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json{coding}");
    let whole = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(whole.as_bytes()).await;
}

impl ManualStream {
    async fn write(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Tells of a device.
    pub async fn device(&mut self, name: &str, status: &str) {
        let data = format!(
            "{{\"step\":\"device\",\"status\":\"{status}\",\"message\":\"Device {name} {status}.\",\"rowid\":\"{name}\",\
             \"payload\":{{\"object\":\"device\",\"type\":\"sync\",\"data\":{{\"rowid\":\"{name}\",\"completed\":{}}}}}}}",
            status == "completed"
        );
        self.write(&format!("event: step\ndata: {data}\n\n")).await;
    }

    /// Says something of its own.
    pub async fn say(&mut self, name: &str) {
        self.write(&format!("event: {name}\ndata: {{}}\n\n")).await;
    }

    /// Says that it has ended well.
    pub async fn say_complete(&mut self) {
        self.write("event: complete\ndata: {\"ok\": true, \"message\": \"Done.\"}\n\n").await;
    }

    /// Ends well.
    pub async fn complete(mut self) {
        self.say_complete().await;
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
    }

    /// Fails.
    pub async fn fail(mut self) {
        self.write(
            "event: error\ndata: {\"step\": \"devices\", \"status\": \"failed\", \"error\": \"No.\"}\n\n",
        )
        .await;
        self.write("event: complete\ndata: {\"ok\": false, \"message\": \"It failed.\"}\n\n").await;
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
    }

    /// Done when the bridge has hung up.
    pub async fn hung_up(mut self) {
        while self.stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    }
}
