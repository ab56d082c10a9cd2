//! A compatibility proxy that stands in front of ProxBox backends of any age.

pub mod backend;
pub mod config;
pub mod core;
pub mod job;
pub mod telemetry;
