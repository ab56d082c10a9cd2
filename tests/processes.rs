//! The tests that start the program, or search the memory of their own process.
#![allow(unreachable_pub, reason = "test modules have no public API")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a panic fails the test")]

mod check;
mod cli;
mod crash;
mod notify;
mod operator;
mod page;
mod recorder;
mod support;
mod sync;
mod zeroize;
