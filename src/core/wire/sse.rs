//! Server-sent events: what backends write, and what readers are given.

pub mod encoder;
pub mod parser;
pub mod sniff;

pub use encoder::{Frame, FrameName, STEP_LIMIT, Stream, aside, cut, is_extra};
pub use parser::{Item, Parser};
