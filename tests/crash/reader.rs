//! A client that keeps all bytes it received, also from a stream that was cut off.

use std::net::SocketAddr;
use std::time::Duration;

use proxbox_bridge::ledger::JobId;
use tokio::time::{Instant, timeout_at};

use crate::support::bridge::{Client, WITH_KEY, dechunked};

/// How long a test waits for data.
const LIMIT: Duration = Duration::from_secs(30);

/// All bytes that one client received of one stream.
pub struct CrashReader {
    client: Client,
    raw: Vec<u8>,
    over: bool,
}

impl CrashReader {
    /// Requests the stream at `path`.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let client = Client::send(address, "GET", path, &WITH_KEY).await;
        Self { client, raw: Vec::new(), over: false }
    }

    /// Reads until `enough`. Returns `false` if the stream ended before that.
    pub async fn read_until(&mut self, enough: impl Fn(&Self) -> bool) -> bool {
        let limit = Instant::now() + LIMIT;
        while !enough(self) {
            if self.over || self.has_ended() {
                return false;
            }
            let read = timeout_at(limit, self.client.read_some(&mut self.raw)).await;
            let read = read.unwrap_or_else(|_| panic!("that does not come: {:?}", self.events()));
            // A reset ends the stream like a close: the bytes received before are kept.
            self.over = read.map_or(true, |bytes| bytes == 0);
        }
        true
    }

    /// Reads the bytes that are still buffered for a connection whose other end was killed.
    pub async fn drain(&mut self) {
        self.read_until(|_| false).await;
    }

    fn head(&self) -> Option<&str> {
        let end = self.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        Some(std::str::from_utf8(&self.raw[..end]).unwrap())
    }

    /// The status, if the head was received.
    pub fn status(&self) -> Option<u16> {
        Some(self.head()?.split(' ').nth(1)?.parse().unwrap())
    }

    /// The job id of the stream, if the head was received.
    pub fn job(&self) -> Option<JobId> {
        let lines = self.head()?.lines();
        let id =
            lines.filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == "x-proxbox-bridge-job");
        Some(id.unwrap().1.parse().unwrap())
    }

    /// The body received so far, and whether its last chunk was.
    fn body(&self) -> (Vec<u8>, bool) {
        dechunked(self.head().map_or(&[], |head| &self.raw[head.len() + 4..]))
    }

    /// Whether the body has ended cleanly.
    pub fn has_ended(&self) -> bool {
        self.body().1
    }

    /// The name and the data of every complete event.
    pub fn events(&self) -> Vec<(String, serde_json::Value)> {
        let body = String::from_utf8_lossy(&self.body().0).into_owned();
        let whole = body.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let event = |text: &str| {
            let (name, data) = text.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).unwrap()))
        };
        whole.split("\n\n").filter_map(event).collect()
    }

    /// The `ok` of the final event, if it was received.
    pub fn reported_ok(&self) -> Option<bool> {
        let (name, data) = self.events().pop()?;
        (name == "complete").then(|| data["ok"].as_bool().unwrap())
    }
}
