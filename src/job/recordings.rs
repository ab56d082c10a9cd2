//! The files of recordings: one for each leg of a job.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;

use super::registry::Registry;
use crate::ledger::JobId;
use crate::private;

/// Their directory.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("recordings")
}

/// The file of a leg.
pub(super) fn file(folder: &Path, job: JobId, leg: usize) -> PathBuf {
    folder.join(format!("{job}.{leg}.ndjson"))
}

/// The files that hold the recordings of `job` under `data_dir`, in the order of its legs.
pub fn recordings(data_dir: &Path, job: JobId) -> impl Iterator<Item = PathBuf> {
    let folder = folder(data_dir);
    (1..).map(move |leg| file(&folder, job, leg)).take_while(|file| file.is_file())
}

/// Removes the recordings of `jobs`.
pub(super) async fn remove(data_dir: PathBuf, jobs: Vec<JobId>) {
    let remove = move || {
        for file in jobs.into_iter().flat_map(|job| recordings(&data_dir, job).collect::<Vec<_>>()) {
            let _ = fs::remove_file(file);
        }
    };
    // Nothing in it can panic.
    let _ = spawn_blocking(remove).await;
}

/// Keeps others from reading recordings that an earlier release made for them to read.
pub(super) async fn narrow(data_dir: PathBuf) {
    let narrow = move || {
        let folder = folder(&data_dir);
        // Of those that are not there nothing can be read, and what cannot be narrowed belongs to another user.
        let _ = private::narrow(&folder);
        for file in files(&folder) {
            let _ = private::narrow(&file);
        }
    };
    let _ = spawn_blocking(narrow).await;
}

impl Registry {
    /// Removes recordings older than `age` whose logs the ledger has no more: the process that removed the logs may
    /// have ended before it removed the recordings.
    pub(super) async fn sweep(&self, data_dir: PathBuf, age: Duration) {
        let folder = folder(&data_dir);
        let found = spawn_blocking(move || older(&folder, age)).await.unwrap_or_default();
        let mut gone = Vec::new();
        for job in found {
            if self.find(job).is_none() && self.has_no_log(job).await {
                gone.push(job);
            }
        }
        if !gone.is_empty() {
            remove(data_dir, gone).await;
        }
    }

    /// Whether the ledger says that it has no log of `job`, or does not know it.
    async fn has_no_log(&self, job: JobId) -> bool {
        let Ok(record) = self.ledger.job(job).await else { return false };
        let Some(record) = record else { return true };
        // The last frames are those that are kept.
        let before_last = record.progress.frames_out.saturating_sub(1);
        let frames = self.ledger.frames(job, before_last).await;
        record.end.is_some() && frames.is_ok_and(|frames| frames.is_empty())
    }
}

/// The jobs of the recordings in `folder` that were written to last before `age`.
fn older(folder: &Path, age: Duration) -> BTreeSet<JobId> {
    let is_old = |file: &PathBuf| {
        let written = fs::metadata(file).and_then(|found| found.modified());
        written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|since| since > age))
    };
    let job = |file: PathBuf| file.file_name()?.to_str()?.split('.').next()?.parse().ok();
    files(folder).filter(is_old).filter_map(job).collect()
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
}
