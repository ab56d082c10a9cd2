//! A bridge that dies at any moment: what its readers were told is what its ledger says, and nothing looks
//! as if it ran.
//!
//! The process is the real one, and it is killed without a warning. What it had given to the system is
//! there after that; a loss of power, which takes that too, cannot be had here.

mod reader;
mod rounds;
mod stops;

use std::path::Path;

/// A connection to the file in `data` that changes nothing in it.
fn file(data: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(data.join("ledger.sqlite3")).unwrap()
}
