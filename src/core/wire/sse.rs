//! Server-sent events: the parser for backend streams and the encoder for client streams.

pub mod encoder;
pub mod frame;
pub mod parser;
pub mod sniff;

pub use encoder::{STEP_LIMIT, SseEncoder, standalone_step, truncate_escaped};
pub use frame::{Frame, FrameData, FrameName};
pub use parser::{SseItem, SseParser};

/// Whether the path of a request is named like that of an event stream.
pub fn is_stream_path(path: &[u8]) -> bool {
    ["/stream", "/stream/", "/events"].iter().any(|end| path.ends_with(end.as_bytes()))
}
