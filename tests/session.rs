//! Sessions without a network: recorded and invented backend events of every release, and the stream that results.

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
