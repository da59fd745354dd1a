//! Backups: a copy of log and index, cut at one applied entry, taken while the broker runs.
//!
//! ```text
//! running broker                         escrowmq backup                        OUT
//!  prepare: checkpoint of the index, --> copies what is not there yet,    -->  data/<sha-256>  (each once)
//!  hard links of the segments,           verifies, releases                    backup-<id>.manifest (last)
//!  under <store>/backup/<id>
//! ```
//!
//! Promises: a backup holds everything that was applied when it was prepared, and nothing of what came later; its
//! manifest is written last, after everything it names is durable and was read back, so that an interrupted backup is
//! none; a file that an earlier backup in the same folder holds is not copied again; [`restore`](restore::restore) ends
//! with a store that was checked whole, or with none. A member of a group is backed up like a broker alone, whether it
//! leads or follows. What is restored is a broker alone, which others may join: it never meets the group of before.
//! Leaves to others: where `OUT` is, and who may read it: it holds messages in plain text.

pub(crate) mod links;
pub mod manifest;
pub mod prepare;
pub mod restore;
pub mod stopped;
pub mod target;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use escrowmq_common::calendar::CalendarTime;

use crate::check::CheckError;
use crate::index::IndexError;
use crate::log::OpenError;
use crate::storage::StorageError;
use crate::terms::{LogIndex, Position, Stamp};

/// Files that belong together, ready to be copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    /// Names this backup: its time in UTC and a number.
    pub id: String,
    /// When it was prepared.
    pub created: Stamp,
    /// Log position of the oldest record in it.
    pub log_start: Position,
    /// Log position where it ends.
    pub log_end: Position,
    /// Raft index that the index in it has applied. A copy without an index says 0.
    pub applied: LogIndex,
    /// Raft term and index of its last record, if it has one.
    #[serde(default)]
    pub last: Option<(u64, LogIndex)>,
    /// Its files.
    pub files: Vec<PreparedFile>,
}

/// A file to be copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PreparedFile {
    /// Its name in the store: `log/...` or `index/...`.
    pub name: String,
    /// Where it lies now.
    pub path: PathBuf,
    /// How many bytes of it belong to the backup: there may be more after them.
    pub bytes: u64,
}

/// Why a backup or a restore failed. No backup was made, or no store.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The entries of the log that are set aside.
    #[error(transparent)]
    Quarantine(crate::shard::QuarantineError),
    /// Another backup or restore uses the folder.
    #[error("{} is used by another backup or restore", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The folder to restore into is not empty.
    #[error("{} is not empty: a store is restored into an empty or a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// There is no backup, or none of that name.
    #[error("there is no backup{} in {}", id.as_ref().map(|id| format!(" {id}")).unwrap_or_default(), path.display())]
    None {
        /// The folder.
        path: PathBuf,
        /// The name that was asked for.
        id: Option<String>,
    },
    /// The manifest was written by a newer version of this program.
    #[error(
        "{} has format version {found}, this program knows versions up to {known}; use a newer program",
        path.display()
    )]
    NewerFormat {
        /// The manifest.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A file of a backup, or one that is to be backed up, is not what it should be.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        why: String,
    },
    /// The store to be backed up, or the one restored, has findings.
    #[error("the store is not in order: {0}; run `escrowmq fsck`")]
    Findings(String),
    /// The store could not be looked at.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store that was made.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path: path.clone(), source }
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy)]
pub struct Copying {
    /// The step at hand.
    pub stage: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do, if that is known.
    pub total: Option<u64>,
}

/// The name of a backup that is made now.
fn new_id(now: Stamp) -> String {
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(now.signed());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{millis:03}Z")
}
