//! Looking at the folder of a stopped broker, and repairing it: what `escrowmq fsck` does.
//!
//! [`Folder::take`] makes sure that no broker runs there. [`Folder::check`] reads every file and answers a [`Report`] of
//! [`Finding`]s: which file, which byte, what it means, what to do. [`Folder::repair`] does what the findings allow.
//!
//! Promises: checking changes nothing; repairing never gives up a byte that had been acknowledged unless
//! [`RepairOptions::drop_acknowledged_after`] names the very place, and never shortens the log of a member that may still
//! vote with others; a repair that is interrupted can be run again. Leaves to others: how a broker recovers by itself
//! (`log::recovery`), and everything that a running broker finds out.

mod deep;
mod finding;
mod index;
mod log;
mod repair;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_formats;
#[cfg(test)]
pub(crate) mod tests_trimmed;

use std::io;
use std::path::{Path, PathBuf};

pub use finding::{Finding, Kind};
pub use repair::{Action, RepairError, RepairOptions};

use crate::key_index;
use crate::limits::{FETCHED, FolderError, LockedFolder, SWITCH, lock_existing_folder};
use crate::log::OpenError;
use crate::shard::{Quarantine, QuarantineError, QuarantinedEntry};
use crate::terms::{FEATURE_LEVEL, LogIndex, Position};

/// How far a check or a repair has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The step at hand, as a phrase.
    pub stage: &'static str,
    /// How much of it is done, in bytes.
    pub done: u64,
    /// How much there is, if that is known.
    pub total: Option<u64>,
}

/// Called now and then during long work, on the same thread.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress);

/// Why a check or a repair could not be done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no broker's data.
    #[error("{} is no data folder of a broker: it has no folder `log`", dir.display())]
    NoStore {
        /// The folder.
        dir: PathBuf,
    },
    /// A copy of its group's state is being put into the place of the old one.
    #[error(
        "{} is between its old state and a copy of its group's state: start the broker once, which finishes that, then try again",
        dir.display()
    )]
    Switching {
        /// The folder.
        dir: PathBuf,
    },
    /// A broker runs on it, or the folder is out of reach.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log could not be read at all.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The entries that are set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The figures of a store, besides its faults.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Log segments.
    pub segments: u64,
    /// Good log records.
    pub records: u64,
    /// Messages in them, their checksums verified.
    pub messages: u64,
    /// Log position of the oldest record.
    pub log_start: Position,
    /// Log position after the newest good record.
    pub log_end: Position,
    /// Raft index of the newest good record; `None` if there is none.
    pub last_index: Option<LogIndex>,
    /// Raft term of that record.
    pub last_term: Option<u64>,
    /// Whether an index can be made: the log holds everything since the beginning, or there is a copy of the index
    /// that retention kept for this, it is whole, and the log goes on from there.
    pub is_complete: bool,
    /// How far that copy has applied the log: Raft index and log position.
    pub base: Option<(LogIndex, Position)>,
    /// How far the index has applied the log: Raft index and log position.
    pub applied: Option<(LogIndex, Position)>,
    /// Rows of the index, by table letter.
    pub rows: std::collections::BTreeMap<char, u64>,
    /// Files of the key index.
    pub key_files: u64,
    /// Whether the index was compared with one that was made from the log.
    pub is_compared: bool,
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// The faults, in the order log, copy of the index, index, key index.
    pub findings: Vec<Finding>,
    /// Other facts that an operator may want to know.
    pub notes: Vec<String>,
    /// Entries of the log that do not decode: those that can be set aside.
    pub malformed: Vec<MalformedEntry>,
    /// The figures of the store.
    pub figures: Figures,
}

/// An entry of the log that is what was written and does not decode.
#[derive(Debug, Clone)]
pub struct MalformedEntry {
    /// How it is set aside.
    pub entry: QuarantinedEntry,
    /// Where its [`Kind::CommandMalformed`] finding is: file and byte.
    pub place: (PathBuf, u64),
    /// Names the commands that are lost with it, in words. Those after the fault are only counted.
    pub lost: String,
}

impl MalformedEntry {
    fn is_of(&self, finding: &Finding) -> bool {
        finding.file == self.place.0 && finding.offset == Some(self.place.1)
    }
}

impl Report {
    fn find(&mut self, kind: Kind, file: &Path, offset: Option<u64>, what: impl Into<String>) {
        self.findings.push(Finding { kind, file: file.to_owned(), offset, what: what.into() });
    }

    /// Finds what a newer version has written by its feature level.
    fn find_level(&mut self, file: &Path, offset: Option<u64>, level: u32) {
        if level > FEATURE_LEVEL {
            let what = format!("the log is of feature level {level}, this program speaks levels up to {FEATURE_LEVEL}");
            self.find(Kind::OtherFormat, file, offset, what);
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }
}

/// The folder of a stopped broker, locked against a start as long as this lives.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    _lock: LockedFolder,
}

impl Folder {
    /// Takes a broker's data folder, or the `broker` folder in that of `escrowmq standalone`. Fails if a broker runs
    /// there. Changes nothing.
    pub fn take(dir: &Path) -> Result<Folder, CheckError> {
        let nested = dir.join("broker");
        let dir = if !dir.join("log").is_dir() && nested.join("log").is_dir() { nested } else { dir.to_owned() };
        let lock = lock_existing_folder(&dir)?;
        if dir.join(FETCHED).join(SWITCH).exists() {
            return Err(CheckError::Switching { dir });
        }
        if !dir.join("log").is_dir() {
            return Err(CheckError::NoStore { dir });
        }
        Ok(Folder { dir, _lock: lock })
    }

    /// The folder of log and index.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads everything. With `deep`, makes an index from the log in a temporary folder, beside the data only if the
    /// machine's temporary folder is there, and compares it with the stored one. Blocks.
    pub fn check(&self, deep: bool, progress: OnProgress<'_>) -> Result<Report, CheckError> {
        let mut report = Report::default();
        let quarantine = Quarantine::read(&self.dir)?;
        log::check(&self.dir.join("log"), &quarantine, &mut report, progress)?;
        let has_base = index::check_base(&self.dir, &mut report, progress);
        report.figures.is_complete = report.figures.log_start == Position::ZERO || has_base;
        index::check(&self.dir, &mut report, progress);
        self.check_keys(&mut report)?;
        if deep {
            deep::check(&self.dir, &mut report, progress)?;
        }
        Ok(report)
    }

    /// Repairs what the report, which is of this folder and new, says. Blocks.
    pub fn repair(
        &self,
        report: &Report,
        options: &RepairOptions,
        progress: OnProgress<'_>,
    ) -> Result<Vec<Action>, RepairError> {
        repair::repair(&self.dir, report, options, progress)
    }

    fn check_keys(&self, report: &mut Report) -> Result<(), CheckError> {
        let path = self.dir.join("keys");
        let (files, damaged) = key_index::verify(&path).map_err(|source| CheckError::Io { path, source })?;
        report.figures.key_files = files as u64;
        for run in damaged {
            let kind = match run.error.kind() {
                io::ErrorKind::Unsupported => Kind::OtherFormat,
                _ => Kind::KeysDamaged,
            };
            report.find(kind, &run.path, Some(run.offset), run.error.to_string());
        }
        Ok(())
    }
}
