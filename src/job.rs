//! A job: one sync on one backend, from request to outcome.

mod connection;
mod log;
mod runner;

pub use log::{Cursor, Cut, Log};
pub use runner::{Gate, Job, Started, Work, start};
