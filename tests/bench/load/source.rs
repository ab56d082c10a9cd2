//! A backend with one stream, native or on `/ws`, and a small document.
#![allow(dead_code, reason = "not every program uses all of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The stream.
pub const STREAM: &str = "/virtualization/virtual-machines/create/stream";
/// The document of 300 bytes.
pub const DOCUMENT: &str = "/proxmox/cluster/status";
/// An event stream that is no sync, and that sends one comment.
pub const IDLE: &str = "/events";
/// The separator of the top-level row id, once in each frame that a client receives.
pub const MARKER: &[u8] = b"\"rowid\": \"vm";
/// How far a stream may be ahead of its client, in frames.
const WINDOW: usize = 8192;
/// On how many loopback addresses it listens, from 127.0.0.1 on.
pub const ADDRESSES: u8 = 16;
/// For the bridge to close an idle connection first.
const IDLE_CONNECTION: Duration = Duration::from_secs(3600);

/// What a stream sends.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of frames before the end. `usize::MAX`: until [`Source::finish`].
    pub frames: usize,
    /// How many of them are written at once.
    pub batch: usize,
    /// The smallest size of a frame, in bytes.
    pub size: usize,
    /// The time from one write to the next.
    pub every: Option<Duration>,
    /// Whether the first frame waits for [`Source::begin`].
    pub waits: bool,
    /// Whether the end waits for [`Source::finish`].
    pub holds: bool,
    /// Whether it is at most [`WINDOW`] frames ahead of [`Source::received`]: the bridge reads its backend whatever its
    /// clients do, and a client that is behind by more than the log of the job would miss frames.
    pub follows: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { frames: 0, batch: 16, size: 0, every: None, waits: false, holds: false, follows: false }
    }
}

/// A running backend.
#[derive(Clone, Debug)]
pub struct Source {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    is_native: bool,
    stage: Mutex<Stage>,
    /// When each frame of the last paced stream was written.
    sent: Mutex<Vec<Instant>>,
    received: AtomicUsize,
    /// How many connections it has.
    connections: watch::Sender<usize>,
}

/// A connection, counted until it is dropped.
struct Connection(Arc<State>);

impl Connection {
    fn new(state: &Arc<State>) -> Self {
        state.connections.send_modify(|count| *count += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
    }
}

/// A plan, and how far it is. Its streams end with it.
#[derive(Debug, Default)]
struct Stage {
    plan: Plan,
    begun: watch::Sender<bool>,
    finished: watch::Sender<bool>,
}

impl Source {
    /// Starts one with a native stream, or one of the release 0.0.2, which has `/ws` alone.
    pub async fn start(is_native: bool) -> std::io::Result<Self> {
        let state = Arc::new(State {
            is_native,
            stage: Mutex::default(),
            sent: Mutex::default(),
            received: AtomicUsize::new(0),
            connections: watch::Sender::new(0),
        });
        let mut port = 0;
        for last in 1..=ADDRESSES {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            let listener = TcpListener::bind((address, port)).await?;
            port = listener.local_addr()?.port();
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let connection = Connection::new(&state);
                            // A client may disconnect at any time.
                            tokio::spawn(async move { drop(serve(stream, &connection.0).await) });
                        }
                        Err(error) => {
                            eprintln!("the backend cannot accept a connection: {error}");
                            sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
        Ok(Self { port, state })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Sets what the next streams send. Those of the last plan end.
    pub fn plan(&self, plan: Plan) {
        *self.state.stage.lock().unwrap() = Stage { plan, ..Stage::default() };
        self.state.sent.lock().unwrap().clear();
        self.received(0);
    }

    /// Notes how many frames the client has received.
    pub fn received(&self, frames: usize) {
        self.state.received.store(frames, Ordering::Relaxed);
    }

    /// Lets streams send their first frame.
    pub fn begin(&self) {
        self.state.stage.lock().unwrap().begun.send_replace(true);
    }

    /// Ends all streams, with the final event.
    pub fn finish(&self) {
        self.state.stage.lock().unwrap().finished.send_replace(true);
    }

    /// Waits until all connections are closed.
    pub async fn closed(&self) {
        let _ = self.state.connections.subscribe().wait_for(|count| *count == 0).await;
    }

    /// When each frame of the last paced stream was written.
    pub fn sent(&self) -> Vec<Instant> {
        self.state.sent.lock().unwrap().clone()
    }
}

impl State {
    /// The current plan, and whether it has begun and finished.
    fn plan(&self) -> (Plan, [watch::Receiver<bool>; 2]) {
        let stage = self.stage.lock().unwrap();
        (stage.plan, [&stage.begun, &stage.finished].map(watch::Sender::subscribe))
    }
}

/// Serves a connection. It ends with a reset: thousands that are closed otherwise keep their ports for a minute, which
/// slows down the rows after them.
async fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_zero_linger()?;
    let mut received = Vec::with_capacity(4096);
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&received, b"\r\n\r\n") {
                break at + 4;
            }
            match timeout(IDLE_CONNECTION, stream.read_buf(&mut received)).await {
                Ok(Ok(1..)) => {}
                _ => return Ok(()),
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end);
        let mut line = head.split(' ');
        let method = line.next().unwrap_or_default();
        let path = line.next().and_then(|target| target.split('?').next()).unwrap_or_default();
        match (method, path) {
            ("GET", STREAM) if state.is_native => events(&mut stream, state).await?,
            ("GET", "/ws") if !state.is_native => return socket(stream, &head, state).await,
            ("GET", IDLE) => idle(&mut stream, state).await?,
            _ => stream.write_all(&answer(method, path, state.is_native)).await?,
        }
    }
}

/// A whole response.
fn answer(method: &str, path: &str, is_native: bool) -> Vec<u8> {
    let (status, body) = match (method, path) {
        ("HEAD", _) if is_native => ("405 Method Not Allowed\r\nAllow: GET", String::new()),
        ("HEAD", _) => ("404 Not Found", String::new()),
        (_, DOCUMENT) => ("200 OK", format!("[\"{}\"]", "x".repeat(296))),
        (_, "/version") => ("404 Not Found", "{}".to_owned()),
        (_, "/" | "/cache" | "/clear-cache" | "/health") if is_native || path != "/health" => {
            ("200 OK", "{}".to_owned())
        }
        _ => ("404 Not Found", r#"{"detail":"Not Found"}"#.to_owned()),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const EVENT_STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The native stream.
async fn events(stream: &mut TcpStream, state: &State) -> std::io::Result<()> {
    stream.write_all(EVENT_STREAM.as_bytes()).await?;
    let (plan, signals) = state.plan();
    let bytes: Vec<u8> = (0..plan.batch).flat_map(|at| native_frame(at, plan.size)).collect();
    let bytes = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
    frames(stream, state, (plan, signals), Batch::new(bytes, plan.batch)).await?;
    let end = "event: complete\ndata: {\"ok\": true, \"message\": \"Virtual machines sync completed.\", \
               \"result\": {\"count\": 10000}}\n\n";
    stream.write_all(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes()).await
}

/// A conversation of 0.0.2: greeting, command, frames, end of the stage, and the answer to the command after it.
async fn socket(mut stream: TcpStream, head: &str, state: &State) -> std::io::Result<()> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.map(|(_, key)| key).unwrap_or_default().as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&[text("Connected!"), text("Connected 2!")].concat()).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let stream = socket.get_mut();
        match message.to_text() {
            Ok("Sync Virtual Machines") => {
                stream.write_all(&text("Received message: Sync Virtual Machines")).await?;
                let (plan, signals) = state.plan();
                let bytes = (0..plan.batch).flat_map(|at| text(&legacy_frame(at))).collect();
                frames(stream, state, (plan, signals), Batch::new(bytes, plan.batch)).await?;
                stream.write_all(&text(r#"{"object":"virtual_machine","end":true}"#)).await?;
            }
            Ok(other) => {
                let received = text(&format!("Received message: {other}"));
                let invalid = format!("Invalid command: {other}");
                stream.write_all(&[received, text(&invalid)].concat()).await?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// An event stream that sends nothing more.
async fn idle(stream: &mut TcpStream, state: &State) -> std::io::Result<()> {
    let (_, [_, mut finished]) = state.plan();
    stream.write_all(EVENT_STREAM.as_bytes()).await?;
    stream.write_all(b"8\r\n: idle\n\n\r\n").await?;
    let _ = finished.wait_for(|finished| *finished).await;
    Err(std::io::ErrorKind::ConnectionReset.into())
}

async fn frames(
    stream: &mut TcpStream,
    state: &State,
    (plan, [mut begun, mut finished]): (Plan, [watch::Receiver<bool>; 2]),
    mut batch: Batch,
) -> std::io::Result<()> {
    if plan.waits {
        let _ = begun.wait_for(|begun| *begun).await;
    }
    let mut ticks = plan.every.map(interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut number = 0;
    while number < plan.frames {
        if let Some(ticks) = &mut ticks {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = finished.wait_for(|finished| *finished) => break,
            }
            if plan.frames < usize::MAX {
                state.sent.lock().unwrap().push(Instant::now());
            }
        }
        while plan.follows && number > state.received.load(Ordering::Relaxed) + WINDOW {
            if finished.has_changed().is_err() {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            tokio::task::yield_now().await;
        }
        stream.write_all(batch.at(number)).await?;
        number += plan.batch;
    }
    if plan.holds {
        let _ = finished.wait_for(|finished| *finished).await;
    }
    Ok(())
}

/// Frames that are written at once. Of several, two are of the same virtual machine: the bridge does not repeat what it
/// has reported.
struct Batch {
    bytes: Vec<u8>,
    /// How many frames are of one virtual machine.
    each: usize,
    /// Where the digits of each number are, and the frame that they are in.
    digits: Vec<(usize, usize)>,
}

/// The digits of a number, before a batch is first written. They differ for each frame of a batch.
fn placeholder(at: usize) -> String {
    format!("@{at:06}")
}

impl Batch {
    fn new(bytes: Vec<u8>, count: usize) -> Self {
        let digits = memchr::memmem::find_iter(&bytes, b"@0")
            .map(|at| {
                let number =
                    bytes[at + 1..at + 7].iter().fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
                (at, number)
            })
            .collect();
        Self { bytes, each: count.min(2), digits }
    }

    /// The batch whose first frame has this number.
    fn at(&mut self, first: usize) -> &[u8] {
        for (at, frame) in &self.digits {
            let mut number = (first + frame) / self.each;
            for digit in self.bytes[*at..at + 7].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        &self.bytes
    }
}

/// A step of 0.0.11, with its payload: a virtual machine in progress, and then completed.
fn native_frame(at: usize, size: usize) -> Vec<u8> {
    let name = format!("vm{}", placeholder(at));
    let (status, completed) = if at.is_multiple_of(2) { ("progress", false) } else { ("completed", true) };
    let frame = |padding: &str| {
        format!(
            "event: step\ndata: {{\"step\": \"virtual_machine\", \"status\": \"{status}\", \"message\": \"Processing \
             virtual_machine {name}\", \"rowid\": \"{name}\", \"payload\": {{\"object\": \"virtual_machine\", \
             \"type\": \"create\", \"data\": {{\"sync_status\": \"{status}\", \"name\": \"{name}\", \"netbox_id\": null, \
             \"status\": \"Active\", \"cluster\": \"lab-cluster\", \"device\": \"pve1\", \"role\": \"Virtual Machine (QEMU)\", \
             \"vcpus\": 4, \"memory\": 8192, \"disk\": 64, \"completed\": {completed}, \"rowid\":\"{name}\"{padding}}}}}}}\n\n"
        )
    };
    let short = frame("");
    let missing = size.saturating_sub(short.len());
    let padded = if missing > 16 {
        frame(&format!(", \"comments\": \"{}\"", "x".repeat(missing - 16)))
    } else {
        short
    };
    padded.into_bytes()
}

/// A frame of `/ws`. Each virtual machine has a record of its own in NetBox: of two with one record, one is unconfirmed.
fn legacy_frame(at: usize) -> String {
    let number = placeholder(at);
    let name = format!("vm{number}");
    let (status, completed, id) = if at.is_multiple_of(2) {
        ("syncing", false, "\"undefined\"".to_owned())
    } else {
        ("completed", true, format!("1{number}"))
    };
    format!(
        "{{\"object\":\"virtual_machine\",\"type\":\"create\",\"data\":{{\"sync_status\":\"{status}\",\"name\":\"{name}\",\
         \"netbox_id\":{id},\"status\":\"Active\",\"cluster\":\"lab-cluster\",\"device\":\"pve1\",\"completed\":{completed},\
         \"rowid\":\"{name}\"}}}}"
    )
}

/// A text frame of a server.
fn text(payload: &str) -> Vec<u8> {
    let length = payload.len() as u16;
    let head = if length < 126 {
        vec![0x81, length as u8]
    } else {
        [&[0x81, 126], &length.to_be_bytes()[..]].concat()
    };
    [head, payload.as_bytes().to_vec()].concat()
}
