//! One drive of one backend, as a state machine: the plan, the session, the normaliser and its counts.

pub mod capabilities;
pub mod cooldown;
pub mod normalizer;
pub mod plan;
pub mod policy;
pub mod session;
pub mod tally;
