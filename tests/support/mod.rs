//! Shared test support.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod bridge;
pub mod credentials;
pub mod hostile;
pub mod manual;
pub mod netbox;
pub mod plugin;
pub mod process;
pub mod pty;
pub mod scripted;
pub mod session;
