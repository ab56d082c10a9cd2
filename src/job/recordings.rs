//! The files of recordings: one for each leg of a job.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::registry::Registry;
use crate::ledger::{Cleaning, CleaningResult, JobId};
use crate::private;

/// The directory of the recordings.
pub(super) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("recordings")
}

/// The file of a leg.
pub(super) fn file(folder: &Path, job: JobId, leg: usize) -> PathBuf {
    folder.join(format!("{job}.{leg}.ndjson"))
}

/// The recording files of `job` under `data_dir`, in the order of its legs.
pub fn recordings(data_dir: &Path, job: JobId) -> impl Iterator<Item = PathBuf> {
    let folder = directory(data_dir);
    (1..).map(move |leg| file(&folder, job, leg)).take_while(|file| file.is_file())
}

/// Restricts recordings of an earlier release to the user of the bridge.
pub(super) async fn restrict_permissions(data_dir: PathBuf) {
    let narrow = move || {
        let folder = directory(&data_dir);
        // A missing file needs nothing, and a file that cannot be restricted belongs to another user.
        let _ = private::restrict_permissions(&folder);
        for file in files(&folder) {
            let _ = private::restrict_permissions(&file);
        }
    };
    let _ = spawn_blocking(narrow).await;
}

impl Registry {
    /// Removes the recordings of the jobs in `cleaned`, and of other jobs whose logs the ledger no longer has: an
    /// interrupted cleaning may have left them. Returns the number of removed files.
    pub(super) async fn remove_recordings(
        &self,
        data_dir: &Path,
        cleaned: &CleaningResult,
        cleaning: Cleaning,
    ) -> usize {
        let folder = directory(data_dir);
        // The closure cannot panic.
        let found = spawn_blocking(move || by_job(&folder)).await.unwrap_or_default();
        let mut gone: HashSet<JobId> = cleaned.logs.iter().chain(&cleaned.jobs).copied().collect();
        let is_other = |job: &JobId| !gone.contains(job) && self.find(*job).is_none();
        let others = found.keys().copied().filter(is_other).collect();
        // If the ledger does not answer, the next cleaning repeats this.
        gone.extend(self.ledger.without_log(others, cleaning).await.unwrap_or_default());
        let files = found.into_iter().filter(move |(job, _)| gone.contains(job)).flat_map(|(_, files)| files);
        let remove = move || files.filter(|file| fs::remove_file(file).is_ok()).count();
        spawn_blocking(remove).await.unwrap_or_default()
    }
}

/// The files in `folder`, by job.
fn by_job(folder: &Path) -> BTreeMap<JobId, Vec<PathBuf>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files(folder) {
        let name = file.file_name().and_then(|name| name.to_str());
        if let Some(job) = name.and_then(|name| name.split('.').next()?.parse().ok()) {
            found.entry(job).or_default().push(file);
        }
    }
    found
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
}
