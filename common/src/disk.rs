//! Files that are replaced as a whole, and who may read them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Permissions of new files: the owner writes, the group reads.
pub const FILE_MODE: u32 = 0o640;
/// Permissions of new folders.
const FOLDER_MODE: u32 = 0o750;

/// A step that failed, with which path, and what the system said.
pub type Failed = (&'static str, PathBuf, io::Error);

/// Says which step failed with which path.
pub fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed + use<> {
    let path = path.to_owned();
    move |source| (step, path, source)
}

/// Puts `bytes` in the place of a file such that a crash leaves the old or the new one, and a return means the
/// new one for good. Folders that are missing are made. A file that is there keeps its permissions, unless `mode` says others.
pub fn replace_file(path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), Failed> {
    let folder = folder_of(path);
    let mut folders = DirBuilder::new();
    folders.recursive(true).mode(FOLDER_MODE).create(folder).map_err(at("make", folder))?;
    let kept = fs::metadata(path).ok().map(|file| file.permissions().mode() & 0o7777);
    let mode = mode.or(kept).unwrap_or(FILE_MODE);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    // A crash up to the rename leaves a stray temporary file, which the next change overwrites.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&temporary).map_err(at("make", &temporary))?;
    // Another program's mask, or a stray file's own, may differ.
    file.set_permissions(Permissions::from_mode(mode)).map_err(at("set the permissions of", &temporary))?;
    file.write_all(bytes).map_err(at("write", &temporary))?;
    // Without this the rename could reach the disk before the bytes: an empty file after a power cut.
    file.sync_all().map_err(at("sync", &temporary))?;
    drop(file);
    fs::rename(&temporary, path).map_err(at("replace", path))?;
    // Until the folder is synced a power cut may bring the old file back, so nobody is answered before.
    sync_folder_of(path)
}

/// The one step after which the new file is there already, but may go again with a power cut.
pub const SYNC_FOLDER: &str = "sync the folder";

/// Makes what was renamed or removed in the file's folder last.
pub fn sync_folder_of(path: &Path) -> Result<(), Failed> {
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(SYNC_FOLDER, folder))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_files_and_folders_are_for_owner_and_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/file");
        replace_file(&path, b"one", None).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o640, 0o750));
        assert_eq!(mode(&folder.path().join("deep")), 0o750);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        replace_file(&path, b"two", None).unwrap();
        assert_eq!(mode(&path), 0o644, "its owner chose that");
        replace_file(&path, b"three", Some(FILE_MODE)).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(fs::read(&path).unwrap(), b"three");
    }
}
