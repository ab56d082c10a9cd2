//! A compatibility proxy that stands in front of ProxBox backends of any age.

pub mod cli;
pub mod core;
pub mod recording;
pub mod replay;
