//! Everything that decides, and nothing that waits.
//!
//! Parsing, dialects, normalising and the terminal contract are state machines over bytes and facts.
//! No module below this one opens a socket, reads a clock or draws a random number; time comes in as
//! a [`std::time::Duration`] since the job began.

pub mod channel;
pub mod detail;
pub mod event;
pub mod fact;
pub mod kind;
pub mod legacy;
pub mod lenient;
pub mod native;
pub mod object;
pub mod release;
pub mod sse;
pub mod tally;
pub mod text;
