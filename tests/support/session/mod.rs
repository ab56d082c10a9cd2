//! Sessions without a network, and the streams that they write. The fuzz targets use this too.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must fail")]

pub mod drive;
pub mod events;
pub mod fuzz;
pub mod run;
pub mod stream;
