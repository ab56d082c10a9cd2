//! The messages of a WebSocket, from the bytes of one of its ends (RFC 6455).

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::recording::RecordedEvent;

/// The code that a recording has for a close frame without a code.
const NO_CODE: u16 = 1005;

/// Reads the messages of one end.
#[derive(Debug, Default)]
pub(super) struct MessageReader {
    /// The bytes of an incomplete frame.
    unread: Vec<u8>,
    /// The type and the bytes of an incomplete message.
    message: Option<(Data, Vec<u8>)>,
    /// The bytes are not frames that this can read.
    is_broken: bool,
}

impl MessageReader {
    /// The messages that are complete with `bytes`.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<RecordedEvent> {
        let mut events = Vec::new();
        if self.is_broken {
            return events;
        }
        self.unread.extend_from_slice(bytes);
        while let Some((header, payload)) = self.frame() {
            events.extend(self.event(&header, payload));
        }
        events
    }

    /// The next complete frame.
    fn frame(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        let mut cursor = Cursor::new(&self.unread);
        let Ok(parsed) = FrameHeader::parse(&mut cursor) else {
            self.is_broken = true;
            return None;
        };
        let (header, length) = parsed?;
        let start = usize::try_from(cursor.position()).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        let mut payload = self.unread.get(start..end)?.to_vec();
        self.unread.drain(..end);
        if let Some(mask) = header.mask {
            for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
        }
        Some((header, payload))
    }

    fn event(&mut self, header: &FrameHeader, payload: Vec<u8>) -> Option<RecordedEvent> {
        let (kind, payload) = match header.opcode {
            OpCode::Control(Control::Ping) => return Some(RecordedEvent::Ping(payload.into())),
            OpCode::Control(Control::Pong) => return Some(RecordedEvent::Pong(payload.into())),
            OpCode::Control(_) => return Some(close(&payload)),
            OpCode::Data(Data::Continue) => {
                let (kind, mut message) = self.message.take()?;
                message.extend_from_slice(&payload);
                (kind, message)
            }
            OpCode::Data(kind) => (kind, payload),
        };
        if !header.is_final {
            self.message = Some((kind, payload));
            return None;
        }
        Some(match String::from_utf8(payload) {
            Ok(text) if kind == Data::Text => RecordedEvent::Text(text),
            Ok(text) => RecordedEvent::Binary(text.into()),
            Err(error) => RecordedEvent::Binary(error.into_bytes().into()),
        })
    }
}

fn close(payload: &[u8]) -> RecordedEvent {
    let (code, reason) = payload
        .split_first_chunk()
        .map_or((NO_CODE, &[][..]), |(code, reason)| (u16::from_be_bytes(*code), reason));
    RecordedEvent::Close { code: Some(code), reason: String::from_utf8_lossy(reason).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_however_their_frames_are_cut() {
        let masked: Vec<u8> = b"masked".iter().zip([1, 2, 3, 4].iter().cycle()).map(|(a, b)| a ^ b).collect();
        let stream = [
            &[0x01, 3][..],
            b"one",
            &[0x89, 2],
            b"hi",
            &[0x80, 4],
            b" two",
            &[0x81, 0x86, 1, 2, 3, 4],
            &masked,
            &[0x82, 2, 0xFF, 0],
            &[0x88, 0],
            &[0x88, 5, 0x03, 0xE8],
            b"bye",
        ]
        .concat();
        let close = |code, reason: &str| RecordedEvent::Close { code: Some(code), reason: reason.to_owned() };
        let expected = [
            RecordedEvent::Ping("hi".into()),
            RecordedEvent::text("one two"),
            RecordedEvent::text("masked"),
            RecordedEvent::Binary(vec![0xFF, 0].into()),
            close(NO_CODE, ""),
            close(1000, "bye"),
        ];
        for size in 1..stream.len() {
            let mut reader = MessageReader::default();
            let read: Vec<_> = stream.chunks(size).flat_map(|piece| reader.read(piece)).collect();
            assert_eq!(read, expected, "in pieces of {size}");
        }
    }
}
