//! Whole jobs, from a client's request to its last byte: the bridge, a backend and a client on one thread.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use proxbox_bridge::config::{Config, Flags};
use proxbox_bridge::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::native_stream;

const PATH: &str = "/full-update/stream";

/// Runs so many jobs, one after the other. The ledger is in memory.
pub fn run(rounds: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let backend = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, response()));
        let server = Server::bind(config(backend)).await.expect("a bridge");
        let address = server.address().expect("an address");
        tokio::spawn(server.run(std::future::pending(), std::future::pending()));
        for _ in 0..rounds {
            let received = get(address).await.expect("a stream");
            assert!(received.contains("event: complete\n"), "{received}");
        }
    });
    // Does not wait for the threads of the ledger.
    runtime.shutdown_background();
}

fn config(backend: SocketAddr) -> Config {
    let settings = [
        ("LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("BACKEND_URL", format!("http://{backend}")),
        // Checks at other times would count.
        ("LIMITS_CHECK", "0s".to_owned()),
    ];
    let variables: BTreeMap<String, String> =
        settings.into_iter().map(|(name, value)| (format!("PROXBOX_BRIDGE_{name}"), value)).collect();
    Config::load(&Flags::default(), variables).expect("a configuration")
}

/// The response with the recorded stream. It is repeated, so that jobs consist of events more than of their start, and
/// its end is left to the last one.
fn response() -> Vec<u8> {
    let recorded = String::from_utf8(native_stream("0.0.11.post2/sse/full-update.ndjson")).expect("text");
    let (events, end) = recorded.split_at(recorded.find("event: complete").expect("an end"));
    let mut response =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for part in [events; 10].into_iter().chain([end]) {
        response.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
    }
    response.push_str("0\r\n\r\n");
    response.into_bytes()
}

/// Answers one request of each connection.
async fn serve(listener: TcpListener, response: Vec<u8>) -> Infallible {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let response = response.clone();
        tokio::spawn(async move {
            let head = read_head(&mut stream).await;
            let short: &[u8] = match head.split(' ').next() {
                Some("GET") if head.contains(PATH) => &response,
                Some("HEAD") => b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n",
                _ if head.contains("/version") => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            };
            // The bridge may have disconnected.
            let _ = stream.write_all(short).await;
        });
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
    String::from_utf8_lossy(&head).into_owned()
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {PATH} HTTP/1.1\r\nHost: bridge\r\n\r\n").as_bytes()).await?;
    let mut received = Vec::new();
    while !received.ends_with(b"0\r\n\r\n") && stream.read_buf(&mut received).await? > 0 {}
    Ok(String::from_utf8_lossy(&received).into_owned())
}
