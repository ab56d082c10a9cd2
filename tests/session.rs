//! One run after the other, told by backends of every age, and what their readers are told of it.

mod composed;
mod ends;
mod events;
mod first;
mod greeting;
mod limits;
mod notices;
mod objects;
mod plain;
mod recorded;
mod refusals;
mod secrets;
mod shapes;
mod unnamed;
mod verdicts;
mod websocket;
