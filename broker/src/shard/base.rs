//! The base: a copy of the index from which a lost one is built again.
//!
//! An index follows from the log alone only while the log has all its records. So before old records go, a copy of the
//! index that has applied them is put beside it, in `base`: hard links, no bytes of its own while the index has the same
//! files. A shard that finds no index starts from the base, and applies the log from there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The index.
pub(in crate::shard) const INDEX: &str = "index";
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

/// Makes an index from the base if there is no index. Says whether it did.
pub(in crate::shard) fn restore(dir: &Path) -> io::Result<bool> {
    let index = dir.join(INDEX);
    if index.exists() {
        return Ok(false);
    }
    let Some(base) = [BASE, OLD].iter().map(|name| dir.join(name)).find(|base| base.is_dir()) else {
        return Ok(false);
    };
    let unfinished = dir.join("index.new");
    remove(&unfinished)?;
    fs::create_dir(&unfinished)?;
    for file in fs::read_dir(&base)? {
        let file = file?;
        let to = unfinished.join(file.file_name());
        // Table files never change; the others do, so the base keeps its own.
        let is_table = Path::new(&file.file_name()).extension().is_some_and(|extension| extension == "sst");
        if !is_table || fs::hard_link(file.path(), &to).is_err() {
            fs::copy(file.path(), &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    sync(&unfinished)?;
    fs::rename(&unfinished, &index)?;
    sync(dir)?;
    Ok(true)
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
