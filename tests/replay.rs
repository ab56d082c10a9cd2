//! The fake backend, seen from the wire.

mod client;
mod fixtures;
mod http;
mod websocket;
