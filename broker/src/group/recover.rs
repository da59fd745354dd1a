//! A member that goes on alone when the majority of its group is lost for good: `escrowmq group recover`.
//!
//! ```text
//! mark the folder  ->  identity: new incarnation, the others removed  ->  log: this member alone  ->  take the mark away
//! ```
//!
//! Promises: nothing is changed before [`Recovery::force`]. A broker does not start on a folder with the mark, so it meets no other
//! member between two steps: with the old incarnation and the new membership it could lead beside the old group. After a crash at any
//! step it is done again from the first one, with the same end. Members of the old incarnation are refused by the new one, and told
//! to empty their folders.
//!
//! It cannot know what is missing: entries that the others have acknowledged without this member. Whoever calls it shows the last
//! entry first, so that the member with the newest one is taken.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use escrowmq_common::clock::Clock;

use super::care::shown;
use super::identity::{self, IdentityError, MemberFile};
use crate::limits::{
    FETCHED, FolderError, LockedFolder, MEMBER, RECOVERING, SWITCH, lock_existing_folder, mark_recovering,
};
use crate::log::{LogSettings, RealDisk, SEGMENT_BYTES_MIN};
use crate::raft::Members;
use crate::storage::{Parts, StorageError, StorageSettings, open_index};
use crate::terms::{LogIndex, Stamp};

/// Why a member was not recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No member's folder.
    #[error(
        "{} is not the data folder of a member of a group: there is no file '{}' in it. A broker that has always been alone needs no recovery",
        folder.display(), MEMBER
    )]
    NoMember {
        /// The folder.
        folder: PathBuf,
    },
    /// Its file is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Log, index or state.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A copy of the group's state is being put into the place of the old one.
    #[error(
        "{} is between its old state and a copy of its group's state: start the broker once, which finishes that, stop it, and try again",
        folder.display()
    )]
    Switching {
        /// The folder.
        folder: PathBuf,
    },
    /// Nothing to do.
    #[error("this member is the only one of its group already: start it")]
    Sole,
    /// There is no data.
    #[error("the log of this member is empty: it has nothing to go on from. Recover a member that has data")]
    Empty,
    /// A file, or the random number.
    #[error("cannot {action}: {source}; do it again when that is put right")]
    Io {
        /// The operation that was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> RecoverError {
    move |source| RecoverError::Io { action, source }
}

/// What a stopped member has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The group.
    pub group: String,
    /// Its seat.
    pub seat: String,
    /// Its Raft id.
    pub node: u64,
    /// The founding that it belongs to.
    pub incarnation: Option<u64>,
    /// Raft term of its last entry.
    pub term: u64,
    /// Raft index of its last entry.
    pub index: LogIndex,
    /// The last entry that it knows to be committed.
    pub committed: LogIndex,
    /// The time of its last batch of commands, by the leader's clock; zero if there is none.
    pub stamp: Stamp,
    /// Whether it has a vote in its group.
    pub votes: bool,
    /// The other members, as seat and address.
    pub others: Vec<String>,
    /// Whether an earlier recovery was begun and not ended.
    pub is_unfinished: bool,
}

/// A stopped member, whose folder nobody else has meanwhile.
pub struct Recovery {
    dir: PathBuf,
    file: MemberFile,
    members: Members,
    parts: Parts,
    standing: Standing,
    _lock: LockedFolder,
}

impl Recovery {
    /// Opens the data folder of a member that does not run, or the `broker` folder in it. Blocks.
    pub fn open(dir: &Path) -> Result<Recovery, RecoverError> {
        let nested = dir.join("broker");
        let dir = if !dir.join("log").is_dir() && nested.join("log").is_dir() { nested } else { dir.to_owned() };
        let lock = lock_existing_folder(&dir)?;
        if dir.join(FETCHED).join(SWITCH).exists() {
            return Err(RecoverError::Switching { folder: dir });
        }
        let file = MemberFile::read(&dir)?.ok_or_else(|| RecoverError::NoMember { folder: dir.clone() })?;
        // No file of a whole segment for one record.
        let log = LogSettings { segment_bytes: SEGMENT_BYTES_MIN, ..LogSettings::default() };
        let settings = StorageSettings { dir: dir.clone(), log };
        let parts = Parts::open(Arc::new(RealDisk), open_index(&dir)?, settings, Clock::system())?;
        let is_unfinished = dir.join(RECOVERING).exists();
        let members = parts.members()?.unwrap_or_default();
        let last = parts.log.last().or(parts.log.purged()).ok_or(RecoverError::Empty)?;
        if members.is_sole(file.node) && !is_unfinished {
            return Err(RecoverError::Sole);
        }
        let others = members.addresses.iter().filter(|(node, _)| **node != file.node);
        let standing = Standing {
            group: file.group.clone(),
            seat: file.seat.clone(),
            node: file.node,
            incarnation: file.incarnation,
            term: last.term,
            index: last.index,
            committed: parts.log.committed().unwrap_or(LogIndex::ZERO).min(last.index),
            stamp: parts.newest_stamp()?,
            votes: members.voters.contains(&file.node),
            others: others.map(|(_, address)| shown(address)).collect(),
            is_unfinished,
        };
        Ok(Recovery { dir, file, members, parts, standing, _lock: lock })
    }

    /// What the member has.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Makes it the only member of a new incarnation, which is returned. Blocks.
    pub fn force(self) -> Result<u64, RecoverError> {
        self.mark()?;
        let incarnation = self.renew()?;
        self.leave()?;
        self.unmark()?;
        Ok(incarnation)
    }

    /// No broker starts here until [`unmark`](Self::unmark).
    pub(super) fn mark(&self) -> Result<(), RecoverError> {
        mark_recovering(&self.dir).map_err(failed("mark the folder as being recovered"))
    }

    /// Another incarnation, and the others are none of its members.
    pub(super) fn renew(&self) -> Result<u64, RecoverError> {
        let incarnation = identity::draw().map_err(failed("draw the number of the new incarnation"))?;
        let mut file = MemberFile { incarnation: Some(incarnation), founder: None, had_log: true, ..self.file.clone() };
        for node in self.members.addresses.keys().filter(|node| **node != file.node).copied().collect::<Vec<_>>() {
            file.remove(node);
        }
        file.write(&self.dir)?;
        Ok(incarnation)
    }

    /// This member is the only one that its log names.
    pub(super) fn leave(&self) -> Result<(), RecoverError> {
        if !self.members.is_sole(self.file.node) {
            self.parts.make_sole(self.file.node)?;
        }
        self.parts.log.close().map_err(|failure| StorageError::Failed(failure.cause()))?;
        Ok(())
    }

    pub(super) fn unmark(&self) -> Result<(), RecoverError> {
        fs::remove_file(self.dir.join(RECOVERING))
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(failed("take away the mark of the recovery"))
    }
}
