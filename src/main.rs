//! The `proxbox-bridge` command.

fn main() {}
