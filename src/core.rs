//! The protocol logic, without I/O.
//!
//! Parsers, dialects, the normaliser and the terminal contract are state machines over bytes and facts. No module of
//! `core` opens a socket, reads a clock or draws a random number. Time is passed in as a [`std::time::Duration`] since
//! the job began.

pub mod compat;
pub mod domain;
pub mod http;
pub mod legacy_client;
pub mod remote;
pub mod run;
pub mod secret;
pub mod text;
pub mod upstream;
pub mod wire;
