//! Server-sent events: what backends write, and what readers are given.

pub mod encoder;
pub mod parser;
pub mod sniff;

pub use encoder::{Frame, FrameName, STEP_LIMIT, SseEncoder, is_extra, standalone_step, truncate_escaped};
pub use parser::{SseItem, SseParser};
