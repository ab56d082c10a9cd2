//! What backends send, in every form that a release has used: events, `/ws` frames and JSON answers.

pub mod dialect;
mod event_json;
pub mod fact;
pub mod json;
pub mod legacy;
pub mod lenient;
pub mod native;
pub mod python;
pub mod result;
