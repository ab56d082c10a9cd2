//! Small files of JSON in `data_dir`.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private;

/// What the file at `path` holds; nothing if it is not there.
pub(crate) fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> io::Result<T> {
    match path.map(std::fs::read) {
        Some(Ok(text)) => Ok(serde_json::from_slice(&text)?),
        // Of a folder that is none, the ledger tells.
        Some(Err(error))
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Err(error)
        }
        _ => Ok(T::default()),
    }
}

/// Writes the file as a whole, or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    private::replace(path, &serde_json::to_vec_pretty(value)?)
}
