//! A ledger that is only read: without its lock, and without any change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use proxbox_bridge::ledger::{Ledger, LedgerOpenError, LedgerReadError, Record};
use rusqlite::Connection;

use super::{bare, end, everything, folder, frames, full, ids, open, options, put};

async fn read_only(directory: &Path) -> Result<Arc<Ledger>, LedgerReadError> {
    Ledger::open_read_only(directory.to_owned(), options(directory)).await
}

/// The contents of every file in `directory` but the index of the write-ahead log, which has the locks of readers.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let named = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    named
        .filter(|(name, _)| !name.ends_with("-shm"))
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_ledger_that_no_bridge_uses_is_read_without_a_change_to_any_file() {
    let folder = folder();
    let (ended, unfinished) = (full(), bare());
    let ledger = open(folder.path()).await;
    put(&ledger, &ended, frames(1..=3)).await;
    put(&ledger, &unfinished, Vec::new()).await;
    ledger.close().await;
    let before = contents(folder.path());
    assert_eq!(before.keys().collect::<Vec<_>>(), ["ledger.sqlite3", "lock"]);

    let reader = read_only(folder.path()).await.unwrap();
    assert_eq!(reader.job(ended.id).await.unwrap(), Some(ended.clone()));
    assert_eq!(reader.frames(ended.id).await.unwrap(), frames(1..=3));
    assert_eq!(ids(&reader, everything()).await, [unfinished.id, ended.id]);
    let found = reader.job(unfinished.id).await.unwrap();
    assert_eq!(found, Some(unfinished.clone()), "it is not marked as interrupted");
    assert!(contents(folder.path()) == before, "there are other files while it is open");
    // A bridge may start at any time.
    let ledger = open(folder.path()).await;
    ledger.close().await;
    reader.close().await;

    let read = contents(folder.path());
    let again = read_only(folder.path()).await.unwrap();
    assert!(again.job(unfinished.id).await.unwrap().unwrap().end.is_some(), "the start has marked it");
    again.close().await;
    assert!(contents(folder.path()) == read, "the files have changed");
}

#[tokio::test]
async fn a_ledger_is_read_while_a_bridge_writes_it() {
    let folder = folder();
    let ledger = open(folder.path()).await;
    let job = bare();
    put(&ledger, &job, Vec::new()).await;
    let reader = read_only(folder.path()).await.unwrap();
    assert_eq!(reader.job(job.id).await.unwrap(), Some(job.clone()), "it is in the write-ahead log alone");
    let ended = Record { end: Some(end(2_000)), ..job };
    put(&ledger, &ended, Vec::new()).await;
    assert_eq!(reader.job(ended.id).await.unwrap(), Some(ended.clone()));
    reader.close().await;
    let before = contents(folder.path());
    assert!(!before["ledger.sqlite3-wal"].is_empty(), "closing the reader has left the log");
    ledger.close().await;
    assert_eq!(read_only(folder.path()).await.unwrap().job(ended.id).await.unwrap(), Some(ended));
}

#[tokio::test]
async fn the_ledger_of_a_killed_bridge_is_read_from_its_log_which_stays() {
    let (folder, copy) = (folder(), folder());
    let ledger = open(folder.path()).await;
    let job = full();
    put(&ledger, &job, frames(1..=3)).await;
    // The files as a killed process leaves them.
    for (name, bytes) in contents(folder.path()) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    ledger.close().await;
    let before = contents(copy.path());
    assert!(!before["ledger.sqlite3-wal"].is_empty());
    let reader = read_only(copy.path()).await.unwrap();
    assert_eq!(reader.job(job.id).await.unwrap(), Some(job));
    reader.close().await;
    assert!(contents(copy.path()) == before, "the files have changed");
}

#[tokio::test]
async fn a_ledger_of_another_release_and_a_missing_one_are_named() {
    let folder = folder();
    let missing = read_only(folder.path()).await.unwrap_err();
    assert_eq!(missing, LedgerReadError::Missing { directory: folder.path().to_owned() });
    assert!(contents(folder.path()).is_empty(), "none is created");

    open(folder.path()).await.close().await;
    let file = folder.path().join("ledger.sqlite3");
    let set_version = |version: i64| {
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
    };
    let known: i64 = {
        let connection = Connection::open(&file).unwrap();
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    set_version(known + 1);
    let newer = LedgerOpenError::Newer { file: file.clone(), found: known + 1, known };
    assert_eq!(read_only(folder.path()).await.unwrap_err(), newer.into());
    set_version(known - 1);
    let older = read_only(folder.path()).await.unwrap_err();
    assert_eq!(older, LedgerReadError::Older { file: file.clone(), found: known - 1, known });
    assert!(older.to_string().contains("older bridge"), "{older}");
    set_version(0);
    let empty = read_only(folder.path()).await.unwrap_err();
    assert!(empty.to_string().contains("it has no tables; copy the whole directory"), "{empty}");
    fs::write(&file, [b'x'; 5000]).unwrap();
    let damaged = read_only(folder.path()).await.unwrap_err();
    assert!(damaged.to_string().contains("file is not a database"), "{damaged}");
}
