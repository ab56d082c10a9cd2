//! One run after the other, told by backends of every age, and what their readers are told of it.
#![allow(clippy::expect_used, reason = "a test that cannot go on must fail")]

mod support;

#[path = "session/composed.rs"]
mod composed;
#[path = "session/ends.rs"]
mod ends;
#[path = "session/events.rs"]
mod events;
#[path = "session/first.rs"]
mod first;
#[path = "session/greeting.rs"]
mod greeting;
#[path = "session/limits.rs"]
mod limits;
#[path = "session/notices.rs"]
mod notices;
#[path = "session/objects.rs"]
mod objects;
#[path = "session/plain.rs"]
mod plain;
#[path = "session/recorded.rs"]
mod recorded;
#[path = "session/refusals.rs"]
mod refusals;
#[path = "session/secrets.rs"]
mod secrets;
#[path = "session/shapes.rs"]
mod shapes;
#[path = "session/unnamed.rs"]
mod unnamed;
#[path = "session/verdicts.rs"]
mod verdicts;
#[path = "session/websocket.rs"]
mod websocket;
