//! The wire formats: server-sent events and WebSocket frames.

pub mod sse;
pub mod traffic;
pub mod websocket;
