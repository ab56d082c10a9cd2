//! The tests that start the program, or search the memory of their own process.
#![allow(unreachable_pub, reason = "the parts of a test are nobody's interface")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod check;
mod cli;
mod crash;
mod operator;
mod page;
mod support;
mod zeroize;
