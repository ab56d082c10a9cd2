//! What the commands of `proxbox-bridge` do.

pub mod replay;
