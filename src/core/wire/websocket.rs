//! Finds the boundaries of WebSocket frames (RFC 6455, section 5.2).
//!
//! A tunnel passes bytes through unchanged. To insert a close frame, it must know whether it is between two frames.

/// The sender of a WebSocket's frames. Clients mask their payloads, servers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSender {
    /// The end that requested the upgrade.
    Client,
    /// The end that accepted it.
    Server,
}

/// Follows the frames of one sender.
#[derive(Debug)]
pub struct FrameFollower {
    sender: FrameSender,
    state: FollowerState,
    /// A fragmented message is incomplete. Control frames may appear between its fragments.
    in_message: bool,
    /// A data frame has begun.
    has_message: bool,
    /// The payload of a server's close frame.
    close: Vec<u8>,
}

#[derive(Debug)]
enum FollowerState {
    /// Reads a header. `seen` bytes have arrived; 0 between two frames.
    Header { bytes: [u8; MAX_HEADER], seen: usize },
    /// Reads a payload. `left` bytes are missing.
    Payload { left: u64, is_close: bool },
    /// A close frame has arrived. No frame may follow it.
    Closed,
    /// The bytes are not WebSocket frames.
    Opaque,
}

/// Two bytes, eight bytes of length and four bytes of mask.
const MAX_HEADER: usize = 14;
/// The maximum payload of a control frame, in bytes.
const MAX_CONTROL: u64 = 125;
/// The opcode of a close frame.
const CLOSE: u8 = 8;

impl FrameFollower {
    /// Creates a follower for everything that `sender` sends.
    pub fn new(sender: FrameSender) -> Self {
        Self {
            sender,
            state: FollowerState::BETWEEN,
            in_message: false,
            has_message: false,
            close: Vec::new(),
        }
    }

    /// Follows `bytes` up to the end of the current frame and returns how many of them belong to it. These are all
    /// bytes if the frame does not end in them, or if they are not frames.
    pub fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            match &mut self.state {
                FollowerState::Header { bytes: header, seen } => {
                    header[*seen] = bytes[used];
                    *seen += 1;
                    used += 1;
                    if *seen < header_length(&header[..*seen]) {
                        continue;
                    }
                    let header = *header;
                    self.state = self.payload(&header);
                }
                FollowerState::Payload { left, is_close } => {
                    let room = bytes.len() - used;
                    let taken = usize::try_from(*left).map_or(room, |left| left.min(room));
                    *left -= taken as u64;
                    if *is_close && self.sender == FrameSender::Server {
                        self.close.extend_from_slice(&bytes[used..used + taken]);
                    }
                    used += taken;
                }
                FollowerState::Closed | FollowerState::Opaque => return bytes.len(),
            }
            if let FollowerState::Payload { left: 0, is_close } = self.state {
                self.state = if is_close { FollowerState::Closed } else { FollowerState::BETWEEN };
                return used;
            }
        }
        used
    }

    /// Whether a frame may be inserted here: the previous frame is complete and is not a close frame.
    pub fn is_between(&self) -> bool {
        matches!(self.state, FollowerState::Header { seen: 0, .. })
    }

    /// Whether a close frame has arrived.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, FollowerState::Closed)
    }

    /// Whether a data frame has begun.
    pub fn has_message(&self) -> bool {
        self.has_message
    }

    /// The code and reason of a server's close frame, if it has arrived and has a code.
    pub fn close_reason(&self) -> Option<(u16, String)> {
        let (code, reason) = self.close.split_first_chunk().filter(|_| self.is_closed())?;
        Some((u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()))
    }

    /// The state after `header`. [`FollowerState::Opaque`] if the header is invalid here.
    fn payload(&mut self, header: &[u8; MAX_HEADER]) -> FollowerState {
        let [first, second, rest @ ..] = header;
        let (is_final, opcode, is_masked) = (first & 0x80 != 0, first & 0x0F, second & 0x80 != 0);
        let length = match (second & 0x7F, rest) {
            (126, [a, b, ..]) => u64::from(u16::from_be_bytes([*a, *b])),
            (127, [a, b, c, d, e, f, g, h, ..]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            (length, _) => u64::from(length),
        };
        let fits = match opcode {
            0 => self.in_message,
            1 | 2 => !self.in_message,
            CLOSE..=10 => is_final && length <= MAX_CONTROL,
            _ => false,
        };
        if !fits || is_masked != (self.sender == FrameSender::Client) || length > i64::MAX as u64 {
            return FollowerState::Opaque;
        }
        if opcode < CLOSE {
            self.in_message = !is_final;
            self.has_message = true;
        }
        FollowerState::Payload { left: length, is_close: opcode == CLOSE }
    }
}

impl FollowerState {
    const BETWEEN: Self = Self::Header { bytes: [0; MAX_HEADER], seen: 0 };
}

/// The length of a header that begins with `bytes`, as far as they determine it.
fn header_length(bytes: &[u8]) -> usize {
    let [_, second, ..] = bytes else { return 2 };
    let length = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize, sender: FrameSender) -> Vec<u8> {
        let (mask, key) =
            if sender == FrameSender::Client { (0x80, &[1, 2, 3, 4][..]) } else { (0, &[][..]) };
        let short = u8::try_from(length).ok().filter(|length| *length < 126);
        let head = match (short, u16::try_from(length)) {
            (Some(length), _) => vec![first, mask | length],
            (_, Ok(length)) => [&[first, mask | 126][..], &length.to_be_bytes()].concat(),
            _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        [head, key.to_vec(), vec![0x88; length]].concat()
    }

    #[test]
    fn every_frame_ends_where_it_ends_however_it_is_cut() {
        for sender in [FrameSender::Client, FrameSender::Server] {
            let sizes = [0, 1, 125, 126, 65_535, 65_536];
            let mut frames: Vec<Vec<u8>> = sizes.map(|size| frame(0x82, size, sender)).to_vec();
            // A compressed message in three fragments, with a ping in between.
            let fragments = [(0x41, 5), (0x89, 125), (0x00, 0), (0x80, 7)];
            frames.extend(fragments.map(|(first, size)| frame(first, size, sender)));
            for cut in [1, 2, 3, 1000, usize::MAX] {
                let mut follower = FrameFollower::new(sender);
                for frame in &frames {
                    assert!(follower.is_between());
                    let mut rest = &frame[..];
                    while !rest.is_empty() {
                        let piece = &rest[..cut.min(rest.len())];
                        let used = follower.follow(piece);
                        assert!(used <= piece.len(), "{sender:?}, {cut}: {used}");
                        rest = &rest[used..];
                        assert_eq!(follower.is_between(), rest.is_empty(), "{sender:?}, {cut}");
                    }
                }
                let all = frames.concat();
                assert_eq!(follower.follow(&all), frames[0].len(), "and not one byte of the next");
            }
        }
    }

    #[test]
    fn nothing_may_follow_a_close_frame() {
        let mut follower = FrameFollower::new(FrameSender::Server);
        let close = frame(0x88, 2, FrameSender::Server);
        assert_eq!(follower.follow(&[&close[..], b"more"].concat()), close.len());
        assert!(follower.is_closed() && !follower.is_between());
        assert_eq!(follower.follow(b"more"), 4);
        assert!(!follower.has_message());
        assert_eq!(follower.close_reason(), Some((0x8888, String::new())));
    }

    #[test]
    fn what_is_no_frame_is_never_between_two() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            // The mask of a client, a continuation without a message, a long control frame, a fragmented one, reserved
            // opcodes, and a length that is out of range.
            &[0x82, 0x80, 0, 0, 0, 0],
            &[0x80, 0],
            &[0x89, 126, 0, 126],
            &[0x09, 0],
            &[0x83, 0],
            &[0x8B, 0],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut follower = FrameFollower::new(FrameSender::Server);
            assert_eq!(follower.follow(bytes), bytes.len());
            assert!(!follower.is_between() && !follower.is_closed(), "{bytes:?}");
        }
    }

    #[test]
    fn the_reason_of_a_close_frame_is_that_of_the_frame_alone() {
        let mut follower = FrameFollower::new(FrameSender::Server);
        let stream = [&[0x82, 3][..], b"abc", &[0x88, 5], &1000_u16.to_be_bytes(), b"bye"].concat();
        let used = follower.follow(&stream);
        follower.follow(&stream[used..]);
        assert_eq!(follower.close_reason(), Some((1000, "bye".to_owned())));
        assert!(follower.has_message());
    }
}
