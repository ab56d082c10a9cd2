//! The replay server, tested over the network.

mod client;
mod fixtures;
mod http;
mod websocket;
