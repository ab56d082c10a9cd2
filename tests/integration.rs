//! The tests that run in their own process.
#![allow(unreachable_pub, reason = "test modules have no public API")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a panic fails the test")]

mod client;
mod config;
mod contract;
mod corpus;
mod front;
mod golden;
mod jobs;
mod jobs_api;
mod ledger;
mod properties;
mod readme;
mod record;
mod replay;
mod session;
mod streams;
mod support;
mod surface;
