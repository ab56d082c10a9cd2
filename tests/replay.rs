//! The fake backend, seen from the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its tools too")]
#![allow(missing_docs, unreachable_pub, reason = "nothing here is for anybody else")]

#[path = "replay/client.rs"]
mod client;
#[path = "replay/fixtures.rs"]
mod fixtures;
#[path = "replay/http.rs"]
mod http;
#[path = "replay/websocket.rs"]
mod websocket;
