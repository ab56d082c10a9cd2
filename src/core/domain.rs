//! The domain types: kinds, objects, releases, channels, outcomes, events.

pub mod channel;
pub mod counting;
pub mod counts;
pub mod credential;
pub mod error_code;
pub mod event;
pub mod figures;
pub mod kind;
pub mod notification;
pub mod object;
pub mod outcome;
pub mod refusal;
pub mod release;
