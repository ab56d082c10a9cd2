//! Files that are deleted or replaced while a bridge has them open.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxbox_bridge::ledger::{JobUpdate, Ledger, LedgerLoss, LedgerOpenError};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{available, folder, frames, fresh, full, open, options, put, unavailable};

const MINUTE: Duration = Duration::from_secs(60);

/// Waits until the ledger has a file again, and returns what was lost.
async fn lost(ledger: &Ledger) -> LedgerLoss {
    let mut lost = ledger.lost();
    let lost = timeout(MINUTE, lost.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    available(ledger).await;
    let lost = lost.unwrap();
    assert!(!lost.problem.contains("  "), "{}", lost.problem);
    lost
}

fn in_file(directory: &Path) -> i64 {
    let connection = rusqlite::Connection::open(directory.join("ledger.sqlite3")).unwrap();
    connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).unwrap()
}

/// A data directory that another one replaces in one step, because the ledger may check its files at any time.
struct ReplaceableDirectory(TempDir);

impl ReplaceableDirectory {
    fn new() -> Self {
        let this = Self(folder());
        this.create("first");
        this.link_to("first");
        this
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("link/data")
    }

    /// Creates the directory that `link_to(name)` puts in the place of the present one.
    fn create(&self, name: &str) -> PathBuf {
        let directory = self.0.path().join(name).join("data");
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn link_to(&self, name: &str) {
        let link = self.0.path().join("new link");
        symlink(name, &link).unwrap();
        fs::rename(link, self.0.path().join("link")).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_deleted_is_noticed_within_a_minute_and_another_one_takes_its_place() {
    for deleted in ["ledger.sqlite3", "ledger.sqlite3-wal", ""] {
        let folder = folder();
        let directory = folder.path().join("data");
        let ledger = open(&directory).await;
        put(&ledger, &full(), frames(1..=2)).await;
        let secrets = ledger.secrets();
        let began = tokio::time::Instant::now();
        if deleted.is_empty() {
            fs::remove_dir_all(&directory).unwrap();
        } else {
            fs::remove_file(directory.join(deleted)).unwrap();
        }
        let lost = lost(&ledger).await;
        assert!(began.elapsed() < MINUTE);
        assert!(lost.problem.contains("was deleted") && lost.problem.contains(deleted), "{}", lost.problem);
        assert_eq!(ledger.secrets(), secrets);
        let after = full();
        put(&ledger, &after, frames(1..=2)).await;
        assert!(in_file(&directory) >= 1, "{deleted}");
        ledger.close().await;
        let ledger = open(&directory).await;
        assert_eq!(ledger.job(after.id).await.unwrap(), Some(after));
        assert_eq!(ledger.secrets(), secrets);
        ledger.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reported_as_written_that_stands_in_a_file_that_is_gone() {
    let (folder, ledger) = fresh().await;
    put(&ledger, &full(), vec![]).await;
    fs::remove_file(folder.path().join("ledger.sqlite3")).unwrap();
    let job = full();
    let problem = ledger.put(JobUpdate::new(job.clone(), frames(1..=2))).await.unwrap_err().0;
    assert!(problem.contains("ledger.sqlite3 was deleted"), "{problem}");
    lost(&ledger).await;
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job.clone()), "it was kept, and is written now");
    assert_eq!(ledger.frames(job.id).await.unwrap(), frames(1..=2));
    assert_eq!(in_file(folder.path()), 1);
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_in_the_place_of_another_is_used_and_not_harmed() {
    let directory = ReplaceableDirectory::new();
    let first = directory.create("first");
    let backup = folder();
    let old = open(backup.path()).await;
    let restored = full();
    put(&old, &restored, frames(1..=2)).await;
    let secret = old.secret();
    // As a backup that was made under a running bridge: most of it is in the write-ahead log.
    let ledger = open(&directory.path()).await;
    put(&ledger, &full(), vec![]).await;
    let own = ledger.secret();
    let second = directory.create("second");
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        fs::copy(backup.path().join(name), second.join(name)).unwrap();
    }
    directory.link_to("second");
    let lost = lost(&ledger).await;
    assert!(lost.problem.contains("was replaced"), "{}", lost.problem);
    assert_eq!(ledger.job(restored.id).await.unwrap(), Some(restored));
    assert_eq!(ledger.secrets(), [secret, own], "fingerprints of both are known");
    assert_eq!(in_file(&first), 1);
    ledger.close().await;
    old.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_another_bridge_has_taken_meanwhile_is_left_to_it() {
    let folder = folder();
    let [data, moved] = ["data", "moved"].map(|name| folder.path().join(name));
    let ledger = open(&data).await;
    fs::create_dir(&moved).unwrap();
    put(&ledger, &full(), vec![]).await;
    let mut takes = 0;
    let other = loop {
        fs::rename(&data, moved.join(takes.to_string())).unwrap();
        match Ledger::open(options(&data)).await {
            Ok(other) => break other,
            // The ledger has written its file anew before the other bridge came.
            Err(_) => takes += 1,
        }
    };
    let mut health = ledger.health();
    let held = health.wait_for(|health| format!("{health:?}").contains("another bridge is using"));
    drop(timeout(MINUTE, held).await.unwrap().unwrap());
    assert!(unavailable(&ledger).await.contains("another bridge is using"));
    other.close().await;
    lost(&ledger).await;
    ledger.close().await;
}

/// No other bridge may use `directory`.
async fn is_held(directory: &Path) -> bool {
    matches!(Ledger::open(options(directory)).await, Err(LedgerOpenError::Held { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_deleted_or_replaced_is_taken_anew_and_nothing_is_lost() {
    let (folder, ledger) = fresh().await;
    let job = full();
    put(&ledger, &job, vec![]).await;
    let lock = folder.path().join("lock");
    for is_replaced in [false, true] {
        fs::remove_file(&lock).unwrap();
        if is_replaced {
            fs::write(&lock, "").unwrap();
        }
        put(&ledger, &full(), vec![]).await;
        assert!(is_held(folder.path()).await, "{is_replaced}");
        assert_eq!(*ledger.lost().borrow(), None);
        assert_eq!(ledger.job(job.id).await.unwrap(), Some(job.clone()));
    }
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_goes_while_the_file_is_closed_is_noticed_and_the_next_one_is_held() {
    for is_replaced in [true, false] {
        let directory = ReplaceableDirectory::new();
        let data = directory.path();
        let ledger = open(&data).await;
        put(&ledger, &full(), vec![]).await;
        // After a failure that is not of the moment the file is closed, to be opened again later.
        let other = rusqlite::Connection::open(data.join("ledger.sqlite3")).unwrap();
        other.execute_batch("DROP TABLE frames").unwrap();
        drop(other);
        let job = full();
        let failed = ledger.put(JobUpdate::new(job.clone(), frames(1..=2))).await.unwrap_err();
        assert!(failed.0.contains("no such table"), "{failed}");
        if is_replaced {
            directory.create("second");
        } else {
            fs::create_dir(directory.0.path().join("second")).unwrap();
        }
        directory.link_to("second");
        let lost = lost(&ledger).await;
        assert!(lost.problem.contains("ledger.sqlite3 was deleted"), "{}", lost.problem);
        assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
        assert_eq!(in_file(&data), 1);
        assert!(is_held(&data).await);
        ledger.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_looked_up_for_a_while_are_not_lost() {
    let directory = ReplaceableDirectory::new();
    let ledger = open(&directory.path()).await;
    let job = full();
    put(&ledger, &job, vec![]).await;
    // A loop of links.
    directory.link_to("link");
    unavailable(&ledger).await;
    directory.link_to("first");
    timeout(MINUTE, available(&ledger)).await.unwrap();
    assert_eq!(*ledger.lost().borrow(), None);
    assert_eq!(ledger.job(job.id).await.unwrap(), Some(job));
    ledger.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_in_the_place_of_a_damaged_one_is_held() {
    let directory = ReplaceableDirectory::new();
    let data = directory.path();
    fs::write(data.join("ledger.sqlite3"), [b'x'; 5000]).unwrap();
    let ledger = Ledger::open(options(&data)).await.unwrap();
    unavailable(&ledger).await;
    directory.create("second");
    directory.link_to("second");
    timeout(MINUTE, available(&ledger)).await.unwrap();
    assert!(is_held(&data).await);
    assert_eq!(*ledger.lost().borrow(), None, "there was nothing to be lost");
    ledger.close().await;
}
