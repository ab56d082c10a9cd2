//! Peers in other languages: `tests/peers/peer.py` and `tests/peers/peer.mjs`, in their own processes.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a process may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The peer on Python's websockets.
pub(super) fn python() -> Command {
    let mut command = Command::new(installed("venv/bin/python"));
    command.arg(script("peer.py"));
    command
}

/// The peer on Node's ws.
pub(super) fn node() -> Command {
    let mut command = Command::new("node");
    command.env("PEERS", installed("node_modules/ws").ancestors().nth(2).unwrap()).arg(script("peer.mjs"));
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// The path of something that `tests/install.sh` installed under the target directory.
fn installed(path: &str) -> PathBuf {
    let peers = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    assert!(peers.join("installed").exists(), "run tests/install.sh first");
    peers.join(path)
}

/// A process, which is killed with the test.
struct PeerProcess(Child);

impl PeerProcess {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A backend.
pub(super) struct ProcessServer {
    pub(super) address: SocketAddr,
    _process: PeerProcess,
}

impl ProcessServer {
    pub(super) async fn start(mut command: Command) -> Self {
        command.arg("serve");
        let mut process = PeerProcess::start(command);
        let mut output = BufReader::new(process.0.stdout.take().unwrap());
        let port = spawn_blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| line)
        });
        let port = timeout(PATIENCE, port).await.expect("a port in time").unwrap().unwrap();
        let port = port.trim().parse().unwrap_or_else(|_| panic!("it does not serve: {port:?}"));
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), _process: process }
    }
}

/// Runs a client, which makes all exchanges with the backend behind `front`.
pub(super) async fn run_client(mut command: Command, front: SocketAddr) {
    command.arg("client").arg(format!("ws://{front}"));
    let mut process = PeerProcess::start(command);
    let mut output = process.0.stdout.take().unwrap();
    let text = spawn_blocking(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let text = timeout(PATIENCE, text).await.expect("an end in time").unwrap().unwrap();
    let status = process.0.wait().unwrap();
    assert!(status.success(), "{status}\n{text}");
}
