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
//! with a store that was checked whole, or with none. Leaves to others: where `OUT` is, and who may read it: it holds
//! messages in plain text.

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

use crate::check::CheckError;
use crate::index::IndexError;
use crate::log::OpenError;
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
    /// How many bytes of it belong to the backup: there may be more behind them.
    pub bytes: u64,
}

/// Why a backup or a restore failed. No backup was made, or no store.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
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
        /// What is wrong.
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
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path: path.clone(), source }
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy)]
pub struct Copying {
    /// What is being done.
    pub stage: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do, if that is known.
    pub total: Option<u64>,
}

/// The name of a backup that is made now.
fn new_id(now: Stamp) -> String {
    let (days, ms) = (now.get() / 86_400_000, now.get() % 86_400_000);
    let (year, month, day) = civil(days as i64);
    let seconds = ms / 1000;
    let clock = format!("{:02}{:02}{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{clock}.{:03}Z", ms % 1000)
}

/// Year, month and day of a day since 1970: counted in years that begin in March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
