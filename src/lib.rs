//! A compatibility proxy that stands in front of ProxBox backends of any age.

pub mod config;
pub mod core;
