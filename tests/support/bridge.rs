//! A bridge in front of a replayed backend, and a client that sees the bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxbox_bridge::config::{self, Config, Flags};
use proxbox_bridge::ledger::{JobFilter, Ledger, LedgerOptions, Record, Retention, SystemClock};
use proxbox_bridge::replay::{Library, ReplayHandle, ReplayOptions, ReplayServer, ServerLog, Speed};
use proxbox_bridge::server::Server;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

pub const KEY: &str = "lab-key-0123456789abcdef0123456789abcdef";

/// The header with it.
pub const WITH_KEY: [(&str, &str); 1] = [("X-Proxbox-API-Key", KEY)];

pub const DEVICES: &str = "/dcim/devices/create/stream";
pub const DISKS: &str = "/virtualization/virtual-machines/virtual-disks/create/stream";
pub const FULL_UPDATE: &str = "/full-update/stream";
pub const MACHINES: &str = "/virtualization/virtual-machines/create/stream";
pub const STORAGE: &str = "/virtualization/virtual-machines/storage/create/stream";

/// An address where nobody listens.
pub const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The token of operators, and the file that it is in.
pub const TOKEN: &str = "operators-0123456789abcdef";
const TOKEN_FILE: &str = "token of operators";

/// The recordings of one version, with those named by `uses` in place of the usual ones.
pub fn recordings(version: &str, uses: &[&str]) -> Library {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings").join(version);
    let uses: Vec<String> = uses.iter().map(|name| (*name).to_owned()).collect();
    Library::load(folder, &uses).unwrap()
}

/// The ledger in `directory`, when no bridge has it open.
pub async fn ledger(directory: &Path) -> Arc<Ledger> {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let retention = Retention { jobs: year, logs: year, clock_jump: year, clock_hold: year, share: 10 };
    let clock = Arc::new(SystemClock);
    let options = LedgerOptions { directory: Some(directory.to_owned()), retention, log_frames: 1000, clock };
    Ledger::open(options).await.unwrap()
}

/// Every record in it, the newest first.
pub async fn recorded(directory: &Path) -> Vec<Record> {
    let ledger = ledger(directory).await;
    let everything =
        JobFilter { kind: None, outcome: None, backend: None, since: None, before: None, limit: 10_000 };
    let records = ledger.jobs(everything).await.unwrap();
    ledger.close().await;
    records
}

/// Everything as fast as it can be.
pub fn fast() -> ReplayOptions {
    ReplayOptions { speed: Speed::Max, ..ReplayOptions::default() }
}

/// A backend that answers as recorded.
pub async fn replayed(library: Library, options: ReplayOptions) -> ReplayHandle {
    ReplayServer::bind("127.0.0.1:0", library, options).await.unwrap().spawn()
}

/// A bridge that serves.
pub struct TestBridge {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Every address that it began with, with the key of each.
    pub addresses: Vec<(&'static str, SocketAddr)>,
    stop: Option<oneshot::Sender<()>>,
    hurry: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A configuration for a bridge in front of `backend`, with further settings as in a file.
pub fn config(backend: SocketAddr, settings: &[(&str, &str)]) -> Config {
    let env = [
        ("PROXBOX_BRIDGE_LISTEN", "127.0.0.1:0".to_owned()),
        ("PROXBOX_BRIDGE_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("PROXBOX_BRIDGE_ADMIN_TOKEN_FILE", TOKEN_FILE.to_owned()),
        ("PROXBOX_BRIDGE_ADMIN_OPEN_READS", "on".to_owned()),
        // Backends of tests count who comes to them.
        ("PROXBOX_BRIDGE_LIMITS_CHECK", "0s".to_owned()),
        ("PROXBOX_BRIDGE_BACKEND_URL", format!("http://{backend}")),
    ];
    let mut variables: BTreeMap<String, String> =
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    variables.extend(settings.iter().map(|(key, value)| {
        (format!("PROXBOX_BRIDGE_{}", key.replace('.', "_").to_uppercase()), (*value).to_owned())
    }));
    Config::parse(&Flags::default(), variables, read).unwrap()
}

/// The configuration that the file `text` holds.
pub fn configured(text: &str) -> Config {
    let flags = Flags {
        config: Some("bridge.toml".to_owned()),
        admin_token_file: Some(TOKEN_FILE.to_owned()),
        ..Flags::default()
    };
    let variables = [("LIMITS_CHECK", "0s"), ("ADMIN_OPEN_READS", "on")]
        .map(|(name, value)| (format!("PROXBOX_BRIDGE_{name}"), value.to_owned()));
    Config::parse(&flags, variables, |path| match path.to_str() {
        Some("bridge.toml") => Ok(text.as_bytes().to_vec()),
        _ => read(path),
    })
    .unwrap()
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path == Path::new(TOKEN_FILE) { Ok(TOKEN.as_bytes().to_vec()) } else { std::fs::read(path) }
}

impl TestBridge {
    pub async fn start(config: Config) -> Self {
        Self::serve(Server::bind(config).await.unwrap())
    }

    /// A bridge that reads its configuration again with `read`.
    pub async fn reloading(
        config: Config,
        read: impl Fn() -> Result<Config, config::ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Server::bind(config).await.unwrap().reloading(read))
    }

    fn serve(server: Server) -> Self {
        let (address, admin) = (server.address().unwrap(), server.admin_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let (hurry, hurried) = oneshot::channel();
        let asked = |asked: oneshot::Receiver<()>| async {
            if asked.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let addresses = server.addresses();
        let task = tokio::spawn(server.run(asked(stopped), asked(hurried)));
        Self { address, admin, addresses, stop: Some(stop), hurry: Some(hurry), task }
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.open(target, headers).await.answer().await
    }

    pub async fn open(&self, target: &str, headers: &[(&str, &str)]) -> Client {
        Client::send(self.address, "GET", target, headers).await
    }

    /// Where it stands in front of NetBox, in the order of its backends.
    pub fn netbox_listeners(&self) -> Vec<SocketAddr> {
        let is_netbox = |address: &&(&str, SocketAddr)| address.0 == "backend.netbox_listen";
        self.addresses.iter().filter(is_netbox).map(|(_, address)| *address).collect()
    }

    /// Asks the admin listener, with the token where something is to be done.
    pub async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let token = format!("Bearer {TOKEN}");
        let mut headers = headers.to_vec();
        if method != "GET" {
            headers.push(("Authorization", &token));
        }
        Client::send(self.admin, method, target, &headers).await.answer().await
    }

    /// Asks it to stop; done when it has.
    pub async fn stop(mut self) {
        self.ask_to_stop();
        (&mut self.task).await.unwrap();
    }

    pub fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Asks it a second time.
    pub fn ask_to_hurry(&mut self) {
        if let Some(hurry) = self.hurry.take() {
            let _ = hurry.send(());
        }
    }
}

impl Drop for TestBridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A replayed backend, and a bridge in front of it.
pub struct Pair {
    pub backend: ReplayHandle,
    pub front: TestBridge,
}

impl Pair {
    pub async fn start(library: Library, options: ReplayOptions, settings: &[(&str, &str)]) -> Self {
        let backend = replayed(library, options).await;
        let front = TestBridge::start(config(backend.local_addr(), settings)).await;
        Self { backend, front }
    }

    pub fn log(&self) -> ServerLog {
        self.backend.log()
    }
}

/// An address that one backend after the other can have.
pub struct Place {
    pub address: SocketAddr,
    holder: Arc<Mutex<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Place {
    pub async fn new(holder: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let holder = Arc::new(Mutex::new(holder));
        let held = Arc::clone(&holder);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let to = *held.lock().unwrap();
                connections.spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self { address, holder, task }
    }

    pub fn give_to(&self, holder: SocketAddr) {
        *self.holder.lock().unwrap() = holder;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client with a connection of its own.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// What a client got, to the end of the body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The head without its status line, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, its chunks put together.
    pub body: Vec<u8>,
}

impl Client {
    pub async fn send(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        Self::raw(address, request.as_bytes()).await
    }

    pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Self {
        Self::sent(TcpStream::connect(address).await.unwrap(), bytes).await
    }

    /// A client of the stream at `target` with room for little, which is soon full if it does not read.
    pub async fn with_little_room(address: SocketAddr, target: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Self::sent(stream, format!("GET {target} HTTP/1.1\r\nHost: bridge\r\n\r\n").as_bytes()).await
    }

    async fn sent(mut stream: TcpStream, bytes: &[u8]) -> Self {
        stream.write_all(bytes).await.unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no whole line: {line:?}")).to_owned()
    }

    /// The status and the headers.
    pub async fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let line = self.line().await;
        let (_, status) = line.split_once(' ').expect("a status line");
        let status = status[..3].parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return (status, headers);
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next chunk of a chunked body; empty for the last one.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = usize::from_str_radix(&self.line().await, 16).expect("the size of a chunk");
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk).await.unwrap();
        assert_eq!(self.line().await, "", "the end of a chunk");
        chunk
    }

    /// Reads a chunked body until `text` has come.
    pub async fn read_until(&mut self, text: &str) {
        let mut read = String::new();
        while !read.contains(text) {
            let chunk = self.chunk().await;
            assert!(!chunk.is_empty(), "no {text:?} in {read}");
            read.push_str(&String::from_utf8(chunk).unwrap());
        }
    }

    /// So many bytes of a body.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// What comes before the other side closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        rest
    }

    /// The rest of a chunked body, which must come to a clean end.
    pub async fn answer_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Done when the other side has closed.
    pub async fn ended(mut self) {
        while self.stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    }

    /// Everything, which must come to a clean end.
    pub async fn answer(mut self) -> Answer {
        self.next_answer().await
    }

    /// The next answer on a connection that goes on.
    pub async fn next_answer(&mut self) -> Answer {
        let (status, headers) = self.head().await;
        let mut answer = Answer { status, headers, body: Vec::new() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.answer_body().await;
        } else if let Some(length) = answer.header("content-length") {
            answer.body = self.bytes(length.parse().unwrap()).await;
        }
        answer
    }
}

/// What came of a chunked body, without its chunks, and whether it came to a clean end.
pub fn dechunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        let chunk = &rest[at + 2..];
        if size == 0 {
            return (body, chunk == b"\r\n");
        }
        body.extend_from_slice(&chunk[..chunk.len().min(size)]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The detail of a refusal.
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_else(|| panic!("no detail: {}", self.text())).to_owned()
    }
}
