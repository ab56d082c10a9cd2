//! The events on a stream of the bridge.

use std::collections::VecDeque;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use crate::client::{BridgeClient, BridgeError, BridgeStream};
use crate::core::wire::sse::{SseItem, SseParser};

/// The longest event, in bytes of data.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The longest silence on a stream. A bridge sends a comment every 15 s.
const MAX_SILENCE: Duration = Duration::from_secs(45);

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BridgeEvent {
    /// Its type.
    pub(super) name: String,
    /// Its data: JSON on one line.
    pub(super) data: String,
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct BridgeEvents {
    stream: BridgeStream,
    parser: SseParser,
    /// The events that were read and not taken yet.
    read: VecDeque<BridgeEvent>,
    /// When the last bytes arrived.
    last: Instant,
}

impl BridgeEvents {
    /// Opens the stream at `target`.
    ///
    /// # Errors
    ///
    /// See [`BridgeClient::open`].
    pub(super) async fn open(client: &BridgeClient, target: &str) -> Result<Self, BridgeError> {
        let stream = client.open(target, HeaderMap::new()).await?;
        let parser = SseParser::new(MAX_EVENT_BYTES);
        Ok(Self { stream, parser, read: VecDeque::new(), last: Instant::now() })
    }

    /// The next event. `None` if the stream ends, breaks or is silent. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<BridgeEvent> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(event);
            }
            let part = timeout_at(self.last + MAX_SILENCE, self.stream.next()).await.ok()??.ok()?;
            self.last = Instant::now();
            let read = &mut self.read;
            self.parser.feed(&part, |item| {
                if let SseItem::Event { name, data } = item {
                    let [name, data] = [name, data].map(|text| String::from_utf8_lossy(text).into_owned());
                    read.push_back(BridgeEvent { name, data });
                }
            });
        }
    }
}
