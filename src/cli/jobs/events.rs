//! The events of the bridge and of all its jobs.

use std::collections::VecDeque;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use crate::client::{
    BridgeClient, BridgeError, BridgeStream, JobEvent, MAX_EVENT_BYTES, MAX_SILENCE, parse_events,
};
use crate::core::wire::sse::SseParser;

/// The stream `GET /events`. Unlike that of a job, it cannot be resumed: it begins with the present state.
#[derive(Debug)]
pub(super) struct BridgeEvents {
    stream: BridgeStream,
    parser: SseParser,
    /// The events that were read and not taken yet.
    read: VecDeque<JobEvent>,
    /// When the last bytes arrived.
    last: Instant,
}

impl BridgeEvents {
    /// Opens the stream.
    ///
    /// # Errors
    ///
    /// See [`BridgeClient::open`].
    pub(super) async fn open(client: &BridgeClient) -> Result<Self, BridgeError> {
        let stream = client.open("/events", HeaderMap::new()).await?;
        let parser = SseParser::new(MAX_EVENT_BYTES);
        Ok(Self { stream, parser, read: VecDeque::new(), last: Instant::now() })
    }

    /// The next event. `None` if the stream ends, breaks or is silent. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(event);
            }
            let part = timeout_at(self.last + MAX_SILENCE, self.stream.next()).await.ok()??.ok()?;
            self.last = Instant::now();
            self.read.extend(parse_events(&mut self.parser, &part));
        }
    }
}
