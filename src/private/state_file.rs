//! Small persistent state: in memory, and in one JSON file in `data_dir`.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use super::replace;

/// State of type `T` and its file. Without a `data_dir` the state lasts as long as the process.
///
/// The file is private to the user of the bridge, and is replaced as a whole. Changes are written one after the
/// other.
#[derive(Debug)]
pub struct StateFile<T> {
    path: Option<PathBuf>,
    state: Mutex<T>,
    writing: tokio::sync::Mutex<()>,
}

/// A file in `data_dir` that cannot be read or parsed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} ({source}): {remedy}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    remedy: &'static str,
    source: io::Error,
}

impl<T> StateFile<T>
where
    T: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static,
{
    /// Opens the state in the file `name` of `data_dir`, or the default if there is no such file. `remedy` says how
    /// to repair an unreadable file.
    pub fn open(
        data_dir: Option<&Path>,
        name: &'static str,
        remedy: &'static str,
    ) -> Result<Self, Unreadable> {
        let path = data_dir.map(|folder| folder.join(name));
        let state = path.as_deref().map(read).transpose();
        let state =
            state.map_err(|source| Unreadable { path: path.clone().unwrap_or_default(), remedy, source })?;
        Ok(Self {
            path,
            state: Mutex::new(state.unwrap_or_default()),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// The state.
    pub fn get(&self) -> MutexGuard<'_, T> {
        self.state.lock()
    }

    /// Changes the state in memory, and then the file if the state differs. If the file cannot be written, the change
    /// is kept, and the error is returned.
    pub async fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> (R, io::Result<()>) {
        let (result, is_changed) = self.change_in_memory(change);
        let saved = if is_changed { self.save().await } else { Ok(()) };
        (result, saved)
    }

    /// Changes the state in memory alone. Returns also whether the state is another now: [`StateFile::save`] writes it.
    pub fn change_in_memory<R>(&self, change: impl FnOnce(&mut T) -> R) -> (R, bool) {
        let mut state = self.get();
        let before = state.clone();
        let result = change(&mut state);
        (result, *state != before)
    }

    /// Writes the state into the file.
    pub async fn save(&self) -> io::Result<()> {
        let _turn = self.writing.lock().await;
        let state = self.get().clone();
        self.write(state).await
    }

    /// Changes the file, and then the state in memory. If the file cannot be written, both stay unchanged.
    pub async fn change_durably<R>(&self, change: impl Fn(&mut T) -> R) -> io::Result<R> {
        let _turn = self.writing.lock().await;
        let mut changed = self.get().clone();
        change(&mut changed);
        if changed != *self.get() {
            self.write(changed).await?;
        }
        Ok(change(&mut self.get()))
    }

    async fn write(&self, state: T) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let write = move || replace(&path, &serde_json::to_vec_pretty(&state)?);
        spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into()))
    }
}

/// Reads the file at `path`; the default if there is none.
fn read<T: DeserializeOwned + Default>(path: &Path) -> io::Result<T> {
    match std::fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        // The ledger reports a `data_dir` that is not a directory.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(T::default())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Names = StateFile<BTreeSet<String>>;

    fn open(folder: &Path) -> Result<Names, Unreadable> {
        Names::open(Some(folder), "names.json", "delete it")
    }

    fn add(name: &str) -> impl Fn(&mut BTreeSet<String>) -> bool {
        move |names| names.insert(name.to_owned())
    }

    #[tokio::test]
    async fn a_state_that_was_written_is_read_again_and_only_its_user_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let names = open(folder.path()).unwrap();
        assert!(names.get().is_empty());
        assert!(matches!(names.change(add("one")).await, (true, Ok(()))));
        assert!(names.change_durably(add("two")).await.unwrap());
        let again = open(folder.path()).unwrap();
        assert_eq!(*again.get(), *names.get());
        assert_eq!(again.get().len(), 2);
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files, [folder.path().join("names.json")], "the file beside it is gone");
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_state_that_does_not_change_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let names = open(folder.path()).unwrap();
        let nothing = |names: &mut BTreeSet<String>| names.remove("none");
        assert!(matches!(names.change(nothing).await, (false, Ok(()))));
        assert!(!names.change_durably(nothing).await.unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn states_that_are_changed_at_once_are_all_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let names = open(folder.path()).unwrap();
        let texts: Vec<String> = (0..32).map(|number| format!("name {number}")).collect();
        futures::future::join_all(texts.iter().map(|text| names.change(add(text)))).await;
        assert_eq!(open(folder.path()).unwrap().get().len(), texts.len());
    }

    #[tokio::test]
    async fn a_durable_change_that_cannot_be_written_is_none_and_another_one_lasts_in_memory() {
        let names = open(Path::new("/nowhere/at/all")).unwrap();
        assert!(names.change_durably(add("one")).await.is_err());
        assert!(names.get().is_empty());
        assert!(matches!(names.change(add("one")).await, (true, Err(_))));
        assert_eq!(names.get().len(), 1);
        let without = Names::open(None, "names.json", "").unwrap();
        assert!(without.change_durably(add("one")).await.unwrap());
        assert_eq!(without.get().len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("names.json");
        for text in ["", "{}", "[\"one\""] {
            fs::write(&file, text).unwrap();
            let error = open(folder.path()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot read {} (", file.display())), "{error}");
            assert!(error.ends_with("): delete it"), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text, "it is left for its owner to look at");
        }
    }
}
