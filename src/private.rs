//! Files and directories in `data_dir`, which are private to the user of the bridge.
//!
//! Files have the mode 0600 and directories 0700, whatever the umask. Wider permissions of an earlier release are
//! restricted on the next write, or by [`restrict_permissions`].

mod state_file;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub use state_file::{StateFile, Unreadable};

/// The mode of files.
const FILE_MODE: u32 = 0o600;
/// The mode of directories.
const DIRECTORY_MODE: u32 = 0o700;
/// The permission bits of other users.
const OTHERS_MASK: u32 = 0o077;

/// Creates the directory at `path` and its missing parents. An existing directory stays unchanged.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Opens the file at `path` for reading and writing, and creates it if it is missing.
pub fn open(path: &Path) -> io::Result<File> {
    opened(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

/// Creates the file at `path` if it is missing, and restricts its permissions otherwise. An existing file is not
/// opened: closing it would release the locks that SQLite holds on it in this process.
pub fn create(path: &Path) -> io::Result<()> {
    if fs::exists(path)? {
        return restrict_permissions(path);
    }
    open(path).map(|_| ())
}

/// Opens the file at `path` for appending, and creates it if it is missing.
pub fn append(path: &Path) -> io::Result<File> {
    opened(path, OpenOptions::new().append(true).create(true))
}

/// Replaces the file at `path` atomically, through a temporary file beside it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(bytes))
}

/// Replaces the file at `path` atomically by one that `write` fills.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = opened(beside.as_ref(), OpenOptions::new().write(true).create(true).truncate(true))?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

/// Removes the permissions of other users on the file or directory at `path`, unless it belongs to one of them.
pub fn restrict_permissions(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.mode() & OTHERS_MASK == 0 || found.is_symlink() {
        return Ok(());
    }
    let own = Permissions::from_mode(found.mode() & !OTHERS_MASK);
    ignore_foreign_owner(fs::set_permissions(path, own))
}

fn opened(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(FILE_MODE).open(path)?;
    let mode = file.metadata()?.mode();
    if mode & OTHERS_MASK != 0 {
        ignore_foreign_owner(file.set_permissions(Permissions::from_mode(mode & !OTHERS_MASK)))?;
    }
    Ok(file)
}

fn ignore_foreign_owner(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn whatever_is_written_is_for_one_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        create_dir_all(&directory).unwrap();
        assert_eq!((mode(&folder.path().join("a")), mode(&directory)), (DIRECTORY_MODE, DIRECTORY_MODE));
        let names = ["opened", "created", "appended", "replaced"];
        let [opened, created, appended, replaced] = names.map(|name| directory.join(name));
        for is_there in [false, true] {
            open(&opened).unwrap();
            create(&created).unwrap();
            append(&appended).unwrap().write_all(b"x").unwrap();
            replace(&replaced, b"whole").unwrap();
            for file in [&opened, &created, &appended, &replaced] {
                assert_eq!(mode(file), FILE_MODE, "{} {is_there}", file.display());
                fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
            }
        }
        assert_eq!(fs::read(&appended).unwrap(), b"xx");
        assert_eq!(fs::read(&replaced).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 4);
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        restrict_permissions(&directory).unwrap();
        assert_eq!(mode(&directory), DIRECTORY_MODE);
    }
}
