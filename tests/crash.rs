//! A bridge that dies at any moment: what its readers were told is what its ledger says, and nothing looks
//! as if it ran.
//!
//! The process is the real one, and it is killed without a warning. What it had given to the system is
//! there after that; a loss of power, which takes that too, cannot be had here.

mod reader;
mod rounds;
mod stops;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proxbox_bridge::ledger::{JobFilter, Ledger, LedgerOptions, Record, Retention, SystemClock};

const DEVICES: &str = "/dcim/devices/create/stream";
const MACHINES: &str = "/virtualization/virtual-machines/create/stream";
const DISKS: &str = "/virtualization/virtual-machines/virtual-disks/create/stream";
const FULL_UPDATE: &str = "/full-update/stream";

/// The ledger in `data`, as the bridge opens it.
async fn ledger(data: &Path) -> Arc<Ledger> {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let retention = Retention { jobs: year, logs: year, clock_jump: year, clock_hold: year, share: 10 };
    let clock = Arc::new(SystemClock);
    let options = LedgerOptions { directory: Some(data.to_owned()), retention, log_frames: 1000, clock };
    Ledger::open(options).await.unwrap()
}

/// Every record in `data`.
async fn records(data: &Path) -> Vec<Record> {
    let ledger = ledger(data).await;
    let everything =
        JobFilter { kind: None, outcome: None, backend: None, since: None, before: None, limit: 10_000 };
    let records = ledger.jobs(everything).await.unwrap();
    ledger.close().await;
    records
}

/// A connection to the file in `data` that changes nothing in it.
fn file(data: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(data.join("ledger.sqlite3")).unwrap()
}
