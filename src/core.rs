//! Everything that decides, and nothing that waits.
//!
//! Parsing, dialects, normalising and the terminal contract are state machines over bytes and facts.
//! No module below this one opens a socket, reads a clock or draws a random number; time comes in as
//! a [`std::time::Duration`] since the job began.

pub mod channel;
pub mod credential;
pub mod kind;
pub mod policy;
pub mod release;
