//! Entries of the log that are set aside: they do not decode, and an operator has accepted the loss of what they hold.
//!
//! Each is a file `quarantine/entry-INDEX` in the shard's folder, which `escrowmq fsck --repair --quarantine INDEX`
//! makes. It is text, for people and to be copied to every member of a group: an entry is passed only where the file
//! names its index and the checksum of its bytes. A member that has the entry and not the file refuses to go on, so
//! nothing is skipped in silence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::terms::LogIndex;

/// The folder, in that of the shard.
pub(crate) const QUARANTINE: &str = "quarantine";
/// In front of the index in the name of a file.
const PREFIX: &str = "entry-";

/// An entry that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedEntry {
    /// Its Raft index.
    pub index: LogIndex,
    /// Its Raft term, for people.
    pub term: u64,
    /// CRC-32 of the bytes that it holds.
    pub checksum: u32,
    /// How many bytes it holds, for people.
    pub bytes: usize,
    /// Why it cannot be applied, for people. One line.
    pub reason: String,
}

/// Why the folder cannot be used. Nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A file.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file that does not name an entry.
    #[error("{} does not name an entry and its checksum: make it with `escrowmq fsck`, or remove it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
}

/// All entries of a shard that are set aside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quarantine {
    entries: BTreeMap<LogIndex, u32>,
}

impl Quarantine {
    /// Those that the shard's folder names; none if it has no folder for them.
    pub(crate) fn read(shard: &Path) -> Result<Self, QuarantineError> {
        let mut entries = BTreeMap::new();
        for path in Self::files(shard)? {
            let text = fs::read_to_string(&path).map_err(failed(&path))?;
            let Some((index, checksum)) = parse(&text).filter(|(index, _)| path.ends_with(format!("{PREFIX}{index}")))
            else {
                return Err(QuarantineError::Unreadable { path });
            };
            entries.insert(index, checksum);
        }
        Ok(Self { entries })
    }

    /// The files that name entries, in no order.
    pub(crate) fn files(shard: &Path) -> Result<Vec<PathBuf>, QuarantineError> {
        let folder = shard.join(QUARANTINE);
        let listed = match fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(&folder)(source)),
        };
        let mut files = Vec::new();
        for file in listed {
            let file = file.map_err(failed(&folder))?;
            if file.file_name().to_string_lossy().starts_with(PREFIX) {
                files.push(file.path());
            }
        }
        Ok(files)
    }

    /// Whether this entry is set aside.
    pub(crate) fn holds(&self, index: LogIndex, checksum: u32) -> bool {
        self.entries.get(&index) == Some(&checksum)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl QuarantinedEntry {
    /// Writes its file, durable when this returns. Says where.
    pub fn write(&self, shard: &Path) -> Result<PathBuf, QuarantineError> {
        let folder = shard.join(QUARANTINE);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let (new, path) = (folder.join(format!("new.{}", self.index)), folder.join(format!("{PREFIX}{}", self.index)));
        let mut text = String::from(
            "# This entry of the log is never applied: what it held is lost.\n\
             # Copy this file to every member of the group before it starts.\n",
        );
        let line = self.reason.replace(['\n', '\r'], " ");
        let (index, term, checksum, bytes) = (self.index, self.term, self.checksum, self.bytes);
        write!(text, "entry={index}\nterm={term}\nchecksum={checksum:08x}\nbytes={bytes}\nreason={line}\n")
            .expect("a string takes all text");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&folder)?.sync_all()?;
            File::open(shard)?.sync_all()
        };
        write().map_err(failed(&path))?;
        Ok(path)
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> QuarantineError {
    let path = path.to_owned();
    move |source| QuarantineError::Io { path: path.clone(), source }
}

/// Index and checksum that a file names.
fn parse(text: &str) -> Option<(LogIndex, u32)> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    Some((LogIndex(value("entry")?.parse().ok()?), u32::from_str_radix(value("checksum")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_only_its_checksum_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Quarantine::read(dir.path()).unwrap().is_empty());
        let entry = QuarantinedEntry {
            index: LogIndex(17),
            term: 3,
            checksum: 0xA_BCDE,
            bytes: 9,
            reason: "two\nlines".to_owned(),
        };
        let path = entry.write(dir.path()).unwrap();
        let read = Quarantine::read(dir.path()).unwrap();
        assert_eq!(read.len(), 1);
        assert!(
            read.holds(LogIndex(17), 0xA_BCDE)
                && !read.holds(LogIndex(17), 0xA_BCDF)
                && !read.holds(LogIndex(16), 0xA_BCDE)
        );
        // A file under the name of another entry is refused, and so is one that says nothing.
        fs::rename(&path, path.with_file_name("entry-18")).unwrap();
        assert!(matches!(Quarantine::read(dir.path()), Err(QuarantineError::Unreadable { .. })));
        fs::write(path.with_file_name("entry-18"), "entry=18\n").unwrap();
        assert!(matches!(Quarantine::read(dir.path()), Err(QuarantineError::Unreadable { .. })));
    }
}
