//! Single WebSocket frames, for cases that tungstenite does not support: it treats 1014 as no code.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

/// A connection on which the handshake is done. Every frame is a short one.
pub(super) struct Frames {
    stream: TcpStream,
    /// The mask of client frames.
    mask: Option<[u8; 4]>,
    has_closed: bool,
}

impl Frames {
    pub(super) fn of_client(stream: TcpStream) -> Self {
        Self { stream, mask: Some(*b"mask"), has_closed: false }
    }

    pub(super) fn of_backend(stream: TcpStream) -> Self {
        Self { stream, mask: None, has_closed: false }
    }

    pub(super) async fn send_text(&mut self, text: &str) {
        self.write(TEXT, text.as_bytes()).await;
    }

    pub(super) async fn close(&mut self, code: Option<u16>, reason: &str) {
        self.has_closed = true;
        let code = code.map(u16::to_be_bytes).into_iter().flatten();
        self.write(CLOSE, &code.chain(reason.bytes()).collect::<Vec<u8>>()).await;
    }

    /// Waits for a frame.
    pub(super) async fn next(&mut self) {
        self.read().await.unwrap();
    }

    /// Waits for the end, and answers a close, unless this is the answer to one. Gives its code and reason, as
    /// libraries do: 1005 for none, 1006 without a close frame.
    pub(super) async fn end(mut self) -> (u16, String) {
        let payload = loop {
            match self.read().await {
                Some((CLOSE, payload)) => break payload,
                Some(_) => {}
                None => return (1006, String::new()),
            }
        };
        if !self.has_closed {
            self.write(CLOSE, &payload).await;
        }
        // Backends close the connection, and clients wait for that.
        match self.mask {
            None => drop(self),
            Some(_) => assert!(self.read().await.is_none(), "a frame behind the close"),
        }
        match payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()),
            None => (1005, String::new()),
        }
    }

    /// Ends the connection without a close frame.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    async fn write(&mut self, first: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("a short frame");
        let mut frame = vec![first, length];
        if let Some(mask) = self.mask {
            frame[1] |= MASKED;
            frame.extend(mask);
        }
        frame.extend(masked(payload, self.mask));
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next frame, unless the connection has ended.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u8().await.ok()?;
        assert_eq!(length & MASKED != 0, self.mask.is_none(), "only clients mask");
        let mut mask = None;
        if length & MASKED != 0 {
            let mut bytes = [0; 4];
            self.stream.read_exact(&mut bytes).await.ok()?;
            mask = Some(bytes);
        }
        let mut payload = vec![0; usize::from(length & !MASKED)];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first, masked(&payload, mask)))
    }
}

fn masked(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mask = mask.unwrap_or_default();
    payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}
