//! A ledger in one file of SQLite, or in memory.
//!
//! | part | what it is |
//! |---|---|
//! | [`store`] | the file, its lock and its connection |
//! | [`schema`] | the tables and their migrations |
//! | [`rows`], [`queries`] | records as rows, and the queries |
//! | [`mod@inspect`] | checks of the file without opening the ledger |
//! | [`failed`] | the failed objects of jobs |
//! | [`history`] | the last successes on backends, and their capabilities |
//! | [`notifications`] | the queue of notifications |
//! | [`recovery`], [`retention`] | unfinished jobs of an earlier process, and the removal of old records |

mod failed;
mod history;
mod inspect;
mod notifications;
mod queries;
mod recovery;
mod retention;
mod rows;
mod schema;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use inspect::{has_ledger, inspect};
pub use schema::VERSION;
pub(super) use store::SqliteStore;

/// The name of the database in the directory.
const FILE: &str = "ledger.sqlite3";
/// The name of the lock in the directory.
const LOCK: &str = "lock";
/// The files that stay in the directory while no bridge runs.
pub const FILES: [&str; 2] = [LOCK, FILE];

fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}
