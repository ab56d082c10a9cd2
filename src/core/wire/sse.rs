//! Server-sent events: the parser for backend streams and the encoder for client streams.

pub mod encoder;
pub mod frame;
pub mod parser;
pub mod sniff;

pub use encoder::{STEP_LIMIT, SseEncoder, standalone_step, truncate_escaped};
pub use frame::{Frame, FrameData, FrameName};
pub use parser::{SseItem, SseParser};
