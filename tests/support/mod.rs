//! What the tests share. Every test file uses its own part of it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must fail")]

pub mod backend;
pub mod drive;
pub mod fuzz;
pub mod hostile;
pub mod netbox;
pub mod plugin;
pub mod run;
pub mod stream;
