//! The tests that run in their own process.
#![allow(unreachable_pub, reason = "the parts of a test are nobody's interface")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must fail")]

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
mod replay;
mod session;
mod streams;
mod support;
mod surface;
