//! The base: a copy of the index from which a lost one is built again.
//!
//! An index follows from the log alone only while the log has all its records. So before old records go, a copy of the
//! index that has applied them is put beside it, in `base`: hard links, no bytes of its own while the index has the same
//! files. A shard that finds no index starts from the base, and applies the log from there.
//!
//! One thing a base cannot give: while base and index share a file, damage of that file is damage of both.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The index.
pub(crate) const INDEX: &str = "index";
const BASE: &str = "base";
const NEW: &str = "base.new";
const OLD: &str = "base.old";

/// Where a new base is made; nothing is there.
pub(in crate::shard) fn begin(dir: &Path) -> io::Result<PathBuf> {
    let new = dir.join(NEW);
    remove(&new)?;
    Ok(new)
}

/// Puts the new base in the place of the old one. A crash in between leaves one of them, or both.
pub(in crate::shard) fn finish(dir: &Path) -> io::Result<()> {
    let (base, new, old) = (dir.join(BASE), dir.join(NEW), dir.join(OLD));
    sync(&new)?;
    remove(&old)?;
    if base.exists() {
        fs::rename(&base, &old)?;
    }
    fs::rename(&new, &base)?;
    sync(dir)?;
    remove(&old)
}

/// The base of a shard's folder, if there is one.
pub(crate) fn find_base(dir: &Path) -> Option<PathBuf> {
    [BASE, OLD].iter().map(|name| dir.join(name)).find(|base| base.is_dir())
}

/// Makes a base of the index in `dir`, which nobody has open, in the place of the one that may be there.
pub(crate) fn make_base(dir: &Path) -> io::Result<()> {
    let new = begin(dir)?;
    link_files(&dir.join(INDEX), &new)?;
    finish(dir)
}

/// Removes the base of a shard's folder, if there is one.
pub(crate) fn remove_base(dir: &Path) -> io::Result<()> {
    for name in [OLD, BASE] {
        remove(&dir.join(name))?;
    }
    sync(dir)
}

/// Makes an index from the base if there is no index. Says whether it did.
pub(crate) fn restore(dir: &Path) -> io::Result<bool> {
    let index = dir.join(INDEX);
    // Without that file a folder is no index: RocksDB would begin an empty one there.
    if index.join("CURRENT").exists() {
        return Ok(false);
    }
    let Some(base) = find_base(dir) else { return Ok(false) };
    let unfinished = dir.join("index.new");
    remove(&unfinished)?;
    link_files(&base, &unfinished)?;
    remove(&index)?;
    fs::rename(&unfinished, &index)?;
    sync(dir)?;
    Ok(true)
}

/// Fills the new folder `to` with the files of an index that nobody has open, durably.
pub(in crate::shard) fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let (file, name) = file.map(|file| (file.path(), file.file_name()))?;
        let to = to.join(&name);
        // Table files never change; the others do, so each side has its own.
        let is_table = Path::new(&name).extension().is_some_and(|extension| extension == "sst");
        let is_own = name.to_str().is_some_and(|name| name == "LOCK" || name.starts_with("LOG"));
        if !is_own && (!is_table || fs::hard_link(&file, &to).is_err()) {
            fs::copy(&file, &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    sync(to)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_base_is_restored_and_an_index_is_never_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(!restore(dir.path()).expect("no base"));
        for content in ["one", "two"] {
            let new = begin(dir.path()).expect("a place");
            fs::create_dir(&new).expect("a folder");
            fs::write(new.join("1.sst"), content).expect("a file");
            fs::write(new.join("CURRENT"), content).expect("a file");
            finish(dir.path()).expect("put in place");
        }
        assert!(restore(dir.path()).expect("restored"));
        for file in ["1.sst", "CURRENT"] {
            assert_eq!(fs::read(dir.path().join(INDEX).join(file)).expect("a file"), b"two");
        }
        fs::write(dir.path().join(INDEX).join("CURRENT"), "three").expect("a file");
        assert!(!restore(dir.path()).expect("an index is there"));
        assert_eq!(fs::read(dir.path().join(BASE).join("CURRENT")).expect("a file"), b"two", "the base keeps its own");
    }

    #[test]
    fn a_crash_between_two_bases_leaves_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let old = dir.path().join(OLD);
        fs::create_dir(&old).expect("a folder");
        fs::write(old.join("CURRENT"), "old").expect("a file");
        assert!(restore(dir.path()).expect("restored"));
        assert_eq!(fs::read(dir.path().join(INDEX).join("CURRENT")).expect("a file"), b"old");
    }
}
