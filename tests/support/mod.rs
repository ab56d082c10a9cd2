//! What the tests share. Every test file uses its own part of it.
#![allow(clippy::expect_used, dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod backend;
pub mod drive;
pub mod plugin;
pub mod run;
pub mod stream;
