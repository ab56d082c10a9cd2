//! Relays the bytes of a tunnel in both directions.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split};
use tokio::sync::{Notify, watch};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use uuid::Uuid;

use super::STOPPING;
use crate::core::wire::websocket::{FrameFollower, FrameSender};
use crate::deadline::sleep;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 8 * 1024;

/// Copies in both directions until both are closed, or one is closed and the other had `linger` to follow. Once the
/// bridge is `stopping`, both ends get a close frame, and have time to close. `first` is called with the first frame
/// of the backend.
pub(super) async fn join<C, B>(
    client: C,
    backend: B,
    linger: Duration,
    stopping: watch::Receiver<bool>,
    first: Option<OnFirstFrame>,
) where
    C: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_backend, to_backend) = split(backend);
    let one_is_closed = Notify::new();
    let up = RelayDirection::new(FrameSender::Client, stopping.clone(), None);
    let up = up.pass(from_client, to_backend, &one_is_closed);
    let down = RelayDirection::new(FrameSender::Server, stopping, first);
    let down = down.pass(from_backend, to_client, &one_is_closed);
    let lingered = async {
        one_is_closed.notified().await;
        sleep(linger).await;
    };
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        () = lingered => {}
    }
}

/// Called once, on the first frame that is not a ping or pong: with its code and reason if it is a close frame.
pub(crate) type OnFirstFrame = Box<dyn FnOnce(Option<(u16, String)>) + Send>;

/// One direction of a tunnel.
struct RelayDirection {
    sender: FrameSender,
    frames: FrameFollower,
    stopping: watch::Receiver<bool>,
    first: Option<OnFirstFrame>,
}

impl RelayDirection {
    fn new(sender: FrameSender, stopping: watch::Receiver<bool>, first: Option<OnFirstFrame>) -> Self {
        Self { sender, frames: FrameFollower::new(sender), stopping, first }
    }

    /// Copies until one end is closed, and closes the other. Data for an end that no longer reads is discarded:
    /// closing a socket with unread data would drop the bytes in flight to its peer.
    async fn pass(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        closed: &Notify,
    ) {
        let _ = self.copy(&mut from, &mut to).await;
        closed.notify_one();
        let _ = to.shutdown().await;
        let _ = copy(&mut from, &mut sink()).await;
    }

    async fn copy(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut piece = vec![0; CHUNK_BYTES];
        let (mut read, mut sent) = (0, 0);
        while sent == read {
            read = tokio::select! {
                biased;
                () = stopped(&mut self.stopping), if self.frames.is_between() => break,
                read = from.read(&mut piece) => read?,
            };
            if read == 0 {
                return Ok(());
            }
            sent = self.passed_on(&piece[..read]);
            self.note_first();
            to.write_all(&piece[..sent]).await?;
            to.flush().await?;
        }
        to.write_all(&going_away(self.sender)).await?;
        to.flush().await?;
        self.skip(&piece[sent..read]);
        while !self.frames.is_closed() {
            read = from.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            self.skip(&piece[..read]);
        }
        Ok(())
    }

    /// How many of `bytes` are forwarded: all of them, or those before the close frame.
    fn passed_on(&mut self, bytes: &[u8]) -> usize {
        let is_stopping = *self.stopping.borrow();
        let mut passed = 0;
        while passed < bytes.len() && !(is_stopping && self.frames.is_between()) {
            passed += self.frames.follow(&bytes[passed..]);
        }
        passed
    }

    fn note_first(&mut self) {
        if (self.frames.has_message() || self.frames.is_closed())
            && let Some(first) = self.first.take()
        {
            first(self.frames.close_reason().filter(|_| !self.frames.has_message()));
        }
    }

    /// Tracks frames in `bytes`, which are not forwarded, to find a close frame.
    fn skip(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.frames.follow(bytes)..];
        }
    }
}

/// Waits until the bridge stops. A dropped sender counts as a stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The close frame that replaces further frames of `sender`.
fn going_away(sender: FrameSender) -> Vec<u8> {
    let mut frame = Frame::close(Some(CloseFrame { code: CloseCode::Away, reason: STOPPING.into() }));
    if sender == FrameSender::Client {
        // The first four bytes are random.
        let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
        frame.header_mut().mask = Some([a, b, c, d]);
    }
    let mut bytes = Vec::new();
    // Writing to a vector cannot fail.
    let _ = frame.format(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_is_closed_on_one_side_ends_when_the_other_had_its_time() {
        let (client, mut client_end) = tokio::io::duplex(64);
        let (backend, mut backend_end) = tokio::io::duplex(64);
        let (_stop, stopping) = watch::channel(false);
        let joined = tokio::spawn(join(client, backend, Duration::from_secs(10), stopping, None));
        client_end.write_all(b"to the backend").await.unwrap();
        client_end.shutdown().await.unwrap();
        let mut seen = String::new();
        backend_end.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "to the backend");
        // Further data from the backend is discarded, and the tunnel ends although the backend does not close.
        backend_end.write_all(b"a last word").await.unwrap();
        let began = Instant::now();
        joined.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 10);
        let mut seen = String::new();
        client_end.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "a last word");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_whose_ends_answer_the_close_frame_of_a_bridge_that_stops_is_over_at_once() {
        let (client, mut client_end) = tokio::io::duplex(64);
        let (backend, mut backend_end) = tokio::io::duplex(64);
        let (stop, stopping) = watch::channel(false);
        let joined = tokio::spawn(join(client, backend, Duration::from_secs(10), stopping, None));
        let began = Instant::now();
        stop.send_replace(true);
        let mut frame = vec![0; 2 + 2 + STOPPING.len()];
        client_end.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame, [&[0x88, 25, 3, 233], STOPPING.as_bytes()].concat());
        let mut masked = vec![0; frame.len() + 4];
        backend_end.read_exact(&mut masked).await.unwrap();
        assert_eq!(masked[..2], [0x88, 0x80 | 25]);
        let payload: Vec<u8> =
            masked[6..].iter().zip(masked[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(payload, frame[2..]);
        // Data in flight is read and discarded.
        client_end.write_all(&[0x82, 0x81, 0, 0, 0, 0, 7, 0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        backend_end.write_all(&[0x82, 1, 7, 0x88, 0]).await.unwrap();
        for end in [&mut client_end, &mut backend_end] {
            assert_eq!(end.read(&mut [0; 8]).await.unwrap(), 0);
            end.shutdown().await.unwrap();
        }
        joined.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 0);
    }
}
