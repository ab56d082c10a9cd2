//! The events of a job, over as many connections as that takes.

use std::collections::VecDeque;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::{Instant, sleep_until, timeout};

use super::{BridgeClient, BridgeError, BridgeStream};
use crate::core::wire::sse::{SseItem, SseParser};

/// An event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// Its type: `step`, `error`, `complete`, or a type of the backend.
    pub name: String,
    /// Its data: a JSON object on one line.
    pub data: String,
}

/// What a [`JobEvents`] reports.
#[derive(Debug)]
pub enum StreamItem {
    /// An event.
    Event(JobEvent),
    /// The connection was lost. The stream is resumed.
    Lost(BridgeError),
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The longest event, in bytes of data. A `complete` with the whole result of a backend is the longest.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The longest silence on a stream. A bridge sends a comment every 15 s.
pub const MAX_SILENCE: Duration = Duration::from_secs(45);
/// The delay before a lost connection is resumed. It doubles with each further attempt.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The events of a job, from the first one to its end. A cut connection is resumed after the last event.
#[derive(Debug)]
pub struct JobEvents {
    client: BridgeClient,
    target: String,
    /// How long a lost connection is retried.
    retry_for: Duration,
    parser: SseParser,
    /// The events that were read and not taken yet.
    read: VecDeque<JobEvent>,
    stream: Option<BridgeStream>,
    /// While there is no connection: when it was lost, and the next attempt.
    lost: Option<(Instant, Instant)>,
    delay: Duration,
    has_ended: bool,
}

impl JobEvents {
    /// The events of the job `id`. `query` has the parameters of the stream, such as `bridge.events=all`. A lost
    /// connection is retried for the time `retry_for`.
    pub fn new(client: BridgeClient, id: &str, query: &str, retry_for: Duration) -> Self {
        Self {
            client,
            target: format!("/jobs/{id}/events{}{query}", if query.is_empty() { "" } else { "?" }),
            retry_for,
            parser: SseParser::new(MAX_EVENT_BYTES),
            read: VecDeque::new(),
            stream: None,
            lost: None,
            delay: FIRST_DELAY,
            has_ended: false,
        }
    }

    /// The next event, or the loss of the connection; `None` after the last event. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the bridge refused to resume the stream, or did not answer for the time `retry_for`.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, BridgeError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.has_ended = event.name == "complete";
                return Ok(Some(StreamItem::Event(event)));
            }
            if self.has_ended {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                let was_lost = self.lost.is_some();
                match self.connect().await {
                    Ok(()) => {}
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => {
                        let item = self.lose(error)?;
                        // Further attempts that fail are no news.
                        if !was_lost {
                            return Ok(Some(item));
                        }
                    }
                }
                continue;
            };
            let error = match timeout(MAX_SILENCE, stream.next()).await {
                Ok(Some(Ok(bytes))) => {
                    self.read.extend(parse_events(&mut self.parser, &bytes));
                    (self.lost, self.delay) = (None, FIRST_DELAY);
                    continue;
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => self.client.broken(&self.target, "the stream ended too early".into()),
                Err(_) => self.client.broken(&self.target, "the bridge sent nothing".into()),
            };
            return self.lose(error).map(Some);
        }
    }

    async fn connect(&mut self) -> Result<(), BridgeError> {
        if let Some((_, next)) = self.lost {
            sleep_until(next).await;
        }
        let mut headers = HeaderMap::new();
        if let Ok(last) = HeaderValue::from_bytes(self.parser.last_event_id())
            && !last.is_empty()
        {
            headers.insert(LAST_EVENT_ID, last);
        }
        let stream = self.client.open(&self.target, headers).await?;
        // The last event was read already.
        self.has_ended = stream.status == StatusCode::NO_CONTENT;
        self.stream = Some(stream);
        // An event of which a part was read is sent again as a whole.
        self.parser.restart();
        Ok(())
    }

    /// Schedules the next attempt, unless the time for them is over.
    fn lose(&mut self, error: BridgeError) -> Result<StreamItem, BridgeError> {
        self.stream = None;
        let now = Instant::now();
        let since = self.lost.map_or(now, |(since, _)| since);
        if now - since >= self.retry_for {
            return Err(error);
        }
        self.lost = Some((since, now + self.delay));
        self.delay = MAX_DELAY.min(2 * self.delay);
        Ok(StreamItem::Lost(error))
    }
}

/// Whether a further attempt would fail as well.
fn is_final(error: &BridgeError) -> bool {
    let status = error.refusal().map(|refusal| refusal.status);
    status.is_some_and(|status| !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS)
}

/// The events that `bytes`, the next part of a stream, completes.
pub fn parse_events(parser: &mut SseParser, bytes: &[u8]) -> Vec<JobEvent> {
    let mut events = Vec::new();
    parser.feed(bytes, |item| {
        if let SseItem::Event { name, data } = item {
            let [name, data] = [name, data].map(|text| String::from_utf8_lossy(text).into_owned());
            events.push(JobEvent { name, data });
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;
    use crate::client::{AccessToken, BridgeUrl};

    #[tokio::test]
    async fn a_stream_is_lost_after_the_longest_silence_and_a_comment_ends_a_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = BridgeUrl::local(listener.local_addr().unwrap());
        let token = AccessToken { token: None, origin: String::new() };
        let client = BridgeClient::new(url, token, None, Duration::from_secs(30));
        let mut events = JobEvents::new(client, "1", "", Duration::ZERO);
        let (first, mut bridge) = tokio::join!(events.next(), async {
            let mut bridge = listener.accept().await.unwrap().0;
            assert!(bridge.read(&mut [0; 4096]).await.unwrap() > 0);
            bridge.write_all(b"HTTP/1.1 200 OK\r\n\r\nevent: step\ndata: {}\n\n").await.unwrap();
            bridge
        });
        assert!(matches!(first, Ok(Some(StreamItem::Event(_)))), "{first:?}");

        tokio::time::pause();
        let began = Instant::now();
        let silence = MAX_SILENCE - Duration::from_secs(1);
        let (next, ()) = tokio::join!(timeout(10 * MAX_SILENCE, events.next()), async {
            sleep(silence).await;
            bridge.write_all(b": keepalive\n\n").await.unwrap();
        });
        let error = next.unwrap().unwrap_err();
        assert!(
            matches!(&error, BridgeError::Broken { source, .. } if source.to_string() == "the bridge sent nothing")
        );
        assert_eq!(began.elapsed().as_secs(), (silence + MAX_SILENCE).as_secs());
    }
}
