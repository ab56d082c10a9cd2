//! A run: one drive of one backend, as a state machine. It holds the plan, the session, the normaliser and the counts.

pub mod capabilities;
pub mod cooldown;
pub mod normalizer;
pub mod plan;
pub mod policy;
pub mod session;
pub mod tally;
