//! A bridge in front of a replayed backend, and an HTTP/1.1 client that exposes the raw bytes.

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
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};

pub const KEY: &str = "lab-key-0123456789abcdef0123456789abcdef";

/// The header with the API key.
pub const WITH_KEY: [(&str, &str); 1] = [("X-Proxbox-API-Key", KEY)];

pub const DEVICES: &str = "/dcim/devices/create/stream";
pub const DISKS: &str = "/virtualization/virtual-machines/virtual-disks/create/stream";
pub const FULL_UPDATE: &str = "/full-update/stream";
pub const MACHINES: &str = "/virtualization/virtual-machines/create/stream";
pub const STORAGE: &str = "/virtualization/virtual-machines/storage/create/stream";

/// An address where nothing listens.
pub const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The operator token, and the name of its file.
pub const TOKEN: &str = "operators-0123456789abcdef";
const TOKEN_FILE: &str = "token of operators";

/// The setting that keeps the ledger in `folder`.
pub fn data_dir(folder: &impl AsRef<Path>) -> (&'static str, &str) {
    ("data_dir", folder.as_ref().to_str().unwrap())
}

/// Polls `attempt` until it gives a value. Fails a test for which it does not within a minute.
pub async fn poll_until<T>(attempt: impl AsyncFn() -> Option<T>) -> T {
    let attempts = async {
        loop {
            if let Some(answer) = attempt().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), attempts).await.expect("it comes about")
}

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
    Ledger::open(LedgerOptions {
        directory: Some(directory.to_owned()),
        retention,
        log_frames: 1000,
        busy_timeout: Duration::from_secs(2),
        clock: Arc::new(SystemClock),
        notifications: Vec::new(),
    })
    .await
    .unwrap()
}

/// All records of the ledger in `directory`, newest first. A copy is opened: a process that another test starts at the
/// same time would inherit the lock until it has begun, and keep the next bridge from opening the ledger.
pub async fn recorded(directory: &Path) -> Vec<Record> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        // There may be no write-ahead log.
        let _ = std::fs::copy(directory.join(name), copy.path().join(name));
    }
    let ledger = ledger(copy.path()).await;
    let everything = JobFilter { limit: 10_000, ..JobFilter::default() };
    let records = ledger.jobs(everything).await.unwrap();
    ledger.close().await;
    records
}

/// Replay without delays.
pub fn fast() -> ReplayOptions {
    ReplayOptions { speed: Speed::Max, ..ReplayOptions::default() }
}

/// A backend that answers as recorded.
pub async fn replayed(library: Library, options: ReplayOptions) -> ReplayHandle {
    ReplayServer::bind("127.0.0.1:0", library, options).await.unwrap().spawn()
}

/// A `Via` of a request, without the pseudonym of the bridge that is last in it.
pub fn without_pseudonym(via: &str) -> &str {
    let (via, id) = via.rsplit_once('-').unwrap();
    assert!(id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{via}-{id}");
    via
}

/// A running bridge.
pub struct TestBridge {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Every address that it listens on, with its configuration key.
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
        // Without periodic probes: tests count the requests that reach the backend.
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

    /// A bridge that reloads its configuration with `read`.
    pub async fn reloading(
        config: Config,
        read: impl Fn() -> Result<Config, config::ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Server::bind(config).await.unwrap().reloading(read))
    }

    pub fn serve(server: Server) -> Self {
        let (address, admin) = (server.address().unwrap(), server.admin_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let (hurry, hurried) = oneshot::channel();
        let requested = |signal: oneshot::Receiver<()>| async {
            if signal.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let addresses = server.addresses();
        let task = tokio::spawn(server.run(requested(stopped), requested(hurried)));
        Self { address, admin, addresses, stop: Some(stop), hurry: Some(hurry), task }
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.open(target, headers).await.answer().await
    }

    pub async fn open(&self, target: &str, headers: &[(&str, &str)]) -> Client {
        Client::send(self.address, "GET", target, headers).await
    }

    /// The addresses of its NetBox listeners, in the order of the backends.
    pub fn netbox_listeners(&self) -> Vec<SocketAddr> {
        let is_netbox = |address: &&(&str, SocketAddr)| address.0 == "backend.netbox_listen";
        self.addresses.iter().filter(is_netbox).map(|(_, address)| *address).collect()
    }

    /// Sends a request to the admin listener, with the operator token unless it is a GET.
    pub async fn admin_request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let token = format!("Bearer {TOKEN}");
        let mut headers = headers.to_vec();
        if method != "GET" {
            headers.push(("Authorization", &token));
        }
        Client::send(self.admin, method, target, &headers).await.answer().await
    }

    /// Stops the bridge and waits until it has stopped.
    pub async fn stop(mut self) {
        self.request_stop();
        (&mut self.task).await.unwrap();
    }

    pub fn request_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Sends the second stop signal, which ends the drain.
    pub fn request_immediate_stop(&mut self) {
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

/// A replayed backend behind a bridge.
pub struct BridgedReplay {
    pub backend: ReplayHandle,
    pub front: TestBridge,
}

impl BridgedReplay {
    pub async fn start(library: Library, options: ReplayOptions, settings: &[(&str, &str)]) -> Self {
        let backend = replayed(library, options).await;
        let front = TestBridge::start(config(backend.local_addr(), settings)).await;
        Self { backend, front }
    }

    pub fn log(&self) -> ServerLog {
        self.backend.log()
    }
}

/// A TCP forwarder, so that another backend can take over an address.
pub struct Forwarder {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    /// Notified when all connections are cut.
    cut: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Forwarder {
    pub async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let current = Arc::clone(&target);
        let cut = Arc::new(Notify::new());
        let notified = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let to = *current.lock().unwrap();
                let cut = Arc::clone(&notified);
                connections.spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { address, target, cut, task }
    }

    /// Cuts all connections. Further ones are accepted.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    pub fn forward_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client on its own connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, dechunked.
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

    /// A client of the stream at `target` with a small receive buffer.
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
        self.try_write(bytes).await.unwrap();
    }

    /// Writes to a connection that the other side may have closed.
    pub async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
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

    /// Reads a chunked body up to and including `text`.
    pub async fn read_until(&mut self, text: &str) {
        let mut read = String::new();
        while !read.contains(text) {
            let chunk = self.chunk().await;
            assert!(!chunk.is_empty(), "no {text:?} in {read}");
            read.push_str(&String::from_utf8(chunk).unwrap());
        }
    }

    /// The next `count` bytes of a body.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Reads what there is next, behind what `into` has already, and returns the number of bytes.
    pub async fn read_some(&mut self, into: &mut Vec<u8>) -> std::io::Result<usize> {
        self.stream.read_buf(into).await
    }

    /// Reads until the other side closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        rest
    }

    /// The rest of a chunked body, which must end cleanly.
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

    /// Waits until the other side has closed.
    pub async fn ended(mut self) {
        while self.stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    }

    /// The response, which must end cleanly.
    pub async fn answer(mut self) -> Answer {
        self.next_answer().await
    }

    /// The next response on a keep-alive connection.
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

/// The data of a chunked body, and whether it ended cleanly.
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

    /// The `detail` of an error response.
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_else(|| panic!("no detail: {}", self.text())).to_owned()
    }
}
