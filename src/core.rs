//! Everything that decides, and nothing that waits.
//!
//! Parsing, dialects, normalising and the terminal contract are state machines over bytes and facts.
//! No module below this one opens a socket, reads a clock or draws a random number; time comes in as
//! a [`std::time::Duration`] since the job began.

pub mod address;
pub mod capabilities;
pub mod channel;
pub mod compat;
pub mod cooldown;
pub mod counting;
pub mod credential;
pub mod detail;
pub mod dialect;
pub mod event;
pub mod fact;
pub mod figures;
pub mod guard;
pub mod headers;
pub mod json;
pub mod kind;
pub mod legacy;
pub mod lenient;
pub mod limit;
pub mod native;
pub mod normalizer;
pub mod object;
pub mod outcome;
pub mod page;
pub mod plan;
pub mod policy;
pub mod python;
pub mod query;
pub mod redact;
pub mod refusal;
pub mod release;
pub mod session;
pub mod sse;
pub mod tally;
pub mod text;
pub mod traffic;
pub mod websocket;
pub(crate) mod words;
