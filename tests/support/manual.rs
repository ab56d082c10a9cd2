//! A backend whose streams a test writes event by event.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::bridge::{TestBridge, config};

/// A backend whose streams a test writes event by event. It requires an API key for `/sync/active` alone.
pub struct ManualBackend {
    pub address: SocketAddr,
    traits: Arc<Traits>,
    streams: mpsc::UnboundedReceiver<ManualStream>,
    task: JoinHandle<()>,
}

/// How it answers other requests.
#[derive(Default)]
struct Traits {
    /// The release that `/version` reports.
    release: Option<&'static str>,
    /// Whether `/sync/active` reports a running full update.
    is_active: AtomicBool,
    /// Whether the answer of `/sync/active` is marked as compressed.
    compresses: AtomicBool,
    /// Whether streams are refused with 422.
    refuses: AtomicBool,
}

/// A requested stream, which the test writes.
pub struct ManualStream {
    pub target: String,
    stream: TcpStream,
}

impl ManualBackend {
    /// A backend without a known release.
    pub async fn start() -> Self {
        Self::with(Traits::default()).await
    }

    /// A backend that reports `release`.
    pub async fn with_release(release: &'static str) -> Self {
        Self::with(Traits { release: Some(release), ..Traits::default() }).await
    }

    /// A backend without a known release, behind a bridge with `settings`.
    pub async fn bridged(settings: &[(&str, &str)]) -> (Self, TestBridge) {
        let backend = Self::start().await;
        let front = TestBridge::start(config(backend.address, settings)).await;
        (backend, front)
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

    /// From now on `/sync/active` reports a running full update.
    pub fn report_active(&self) {
        self.traits.is_active.store(true, Ordering::Relaxed);
    }

    /// From now on `/sync/active` reports no full update.
    pub fn report_idle(&self) {
        self.traits.is_active.store(false, Ordering::Relaxed);
    }

    /// From now on the answer of `/sync/active` is marked as compressed.
    pub fn compress_report(&self) {
        self.traits.compresses.store(true, Ordering::Relaxed);
    }

    /// From now on streams are refused.
    pub fn refuse(&self) {
        self.traits.refuses.store(true, Ordering::Relaxed);
    }

    /// From now on streams are accepted.
    pub fn accept(&self) {
        self.traits.refuses.store(false, Ordering::Relaxed);
    }

    /// Waits for the next requested stream.
    pub async fn next_stream(&mut self) -> ManualStream {
        self.streams.recv().await.unwrap()
    }

    /// Whether no further stream has been requested.
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
    if path == "/sync/active" && !head.to_ascii_lowercase().contains("\r\nx-proxbox-api-key: ") {
        let refused = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(refused.as_bytes()).await;
        return;
    }
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
    let response = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(response.as_bytes()).await;
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn device(name: &str, status: &str) -> String {
    let data = format!(
        "{{\"step\":\"device\",\"status\":\"{status}\",\"message\":\"Device {name} {status}.\",\"rowid\":\"{name}\",\
         \"payload\":{{\"object\":\"device\",\"type\":\"sync\",\"data\":{{\"rowid\":\"{name}\",\"completed\":{}}}}}}}",
        status == "completed"
    );
    format!("event: step\ndata: {data}\n\n")
}

impl ManualStream {
    async fn write(&mut self, text: &str) {
        self.stream.write_all(chunk(text).as_bytes()).await.unwrap();
    }

    /// Sends a `step` event for a device.
    pub async fn device(&mut self, name: &str, status: &str) {
        self.write(&device(name, status)).await;
    }

    /// Sends a `step` event for each of `count` completed devices, all at once and each in a chunk of its own.
    pub async fn devices(&mut self, count: usize) {
        let devices = (0..count).map(|number| chunk(&device(&format!("pve{number}"), "completed")));
        self.stream.write_all(devices.collect::<String>().as_bytes()).await.unwrap();
    }

    /// Sends an event about a virtual machine in the cluster `lab`, which failed if there is an `error`.
    pub async fn vm(&mut self, name: &str, error: Option<&str>) {
        let (status, error) = match error {
            Some(error) => ("failed", serde_json::json!(error)),
            None => ("completed", serde_json::Value::Null),
        };
        let data = serde_json::json!({
            "event": "item_progress", "phase": "virtual-machines", "status": status, "message": "", "error": error,
            "item": { "name": name, "cluster": "lab" }, "operation": "created",
        });
        self.write(&format!("event: item_progress\ndata: {data}\n\n")).await;
    }

    /// Sends an event called `name` with empty data.
    pub async fn send_event(&mut self, name: &str) {
        self.send_data(name, &serde_json::json!({})).await;
    }

    /// Sends an event called `name`.
    pub async fn send_data(&mut self, name: &str, data: &serde_json::Value) {
        self.write(&format!("event: {name}\ndata: {data}\n\n")).await;
    }

    /// Sends the final event of a successful run.
    pub async fn send_complete(&mut self) {
        self.write("event: complete\ndata: {\"ok\": true, \"message\": \"Done.\"}\n\n").await;
    }

    /// Ends the run with success, and the body.
    pub async fn complete(mut self) {
        self.send_complete().await;
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
    }

    /// Ends the run with a failure, and the body.
    pub async fn fail(mut self) {
        self.write(
            "event: error\ndata: {\"step\": \"devices\", \"status\": \"failed\", \"error\": \"No.\"}\n\n",
        )
        .await;
        self.write("event: complete\ndata: {\"ok\": false, \"message\": \"It failed.\"}\n\n").await;
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
    }

    /// Waits until the bridge has disconnected.
    pub async fn wait_disconnected(mut self) {
        while self.stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    }
}
