//! A bridge that is killed at any moment: its ledger agrees with the outcomes that readers received, and no job
//! is left running.
//!
//! The real process runs and gets SIGKILL. Data that it had written to the operating system survives that; a
//! power loss, which loses that data too, cannot be tested here.

mod reader;
mod rounds;
mod stops;

use std::path::Path;

/// A connection to the file in `data` that changes nothing in it.
fn file(data: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(data.join("ledger.sqlite3")).unwrap()
}
