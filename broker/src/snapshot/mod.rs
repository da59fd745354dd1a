//! Copies of the state for members that need entries which their leader's log has lost.
//!
//! ```text
//! member that lacks entries                      its leader
//!  raft: Lack  <------------------------------   "have you applied everything up to here?"
//!  fetch: asks for an offer      -------------->  offers: links index and segments as they are at one applied entry,
//!         reads the files of it  -------------->          holds the log behind it
//!         checks them as fsck does
//!         COMPLETE is written: a whole copy
//!  the broker ends and starts again
//!  place: own log not newer? own vote put in; SWITCH is written, files change places
//!  raft: "yes" ------------------------------->   goes on behind the last entry that its log has lost
//! ```
//!
//! Promises:
//! * The copy is that of one applied entry, so of what a majority has committed. Its log goes back as far as the leader's.
//! * The member's own vote stays, whatever it voted while files came.
//! * A copy takes the place of the own log only if it is at least as new, as Raft compares logs: by the term of the last entry,
//!   then by its index. See [`may_replace`].
//! * One file decides. Before `SWITCH` is on disk the old state counts, after it the new one, and each start finishes what is
//!   left to be moved. A crash at any step loses neither.
//! * Segments that came whole are not fetched again, also from another leader: logs are equal byte by byte.
//! * Files that are offered are links. They go when nobody asked for them for [`LEASE`].
//!
//! Leaves to others: when a member lacks something (`raft`), connections (`peer`), when the broker ends and starts again
//! (`start`).

mod fetch;
mod offer;
mod place;
mod question;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub(crate) use fetch::Fetch;
pub(crate) use offer::Offers;
pub(crate) use place::settle;
#[cfg(test)]
pub(crate) use place::{carried_vote, may_replace};

use crate::backup::BackupError;
use crate::check::CheckError;
use crate::log::OpenError;
use crate::terms::{LogIndex, Position};

#[cfg(doc)]
use offer::LEASE;

/// The entry that a copy ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// Its term.
    pub(crate) term: u64,
    /// Its index.
    pub(crate) index: LogIndex,
    /// The log position behind it.
    pub(crate) end: Position,
}

/// Why there is no copy, or none in its place.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file.
    #[error("a copy of the group's state: cannot {action} {}: {source}; a retry is safe when that is put right", path.display())]
    Io {
        /// The operation that was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The own log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The member that has it does not answer.
    #[error("the member that offers a copy of the state cannot be asked: {0}")]
    Lost(io::Error),
    /// It does not offer the copy any more.
    #[error("the copy of the state is not offered any more")]
    Gone,
    /// It has none to offer now.
    #[error("no copy of the state is offered: {0}")]
    No(String),
    /// This member has caught up in another way.
    #[error("this member's own log is newer than the copy of the state")]
    Newer,
    /// The disk.
    #[error("a copy of the state needs {needed} bytes and the disk of {} has {free}: make room, then this member goes on by itself", path.display())]
    NoRoom {
        /// The data folder.
        path: PathBuf,
        /// Bytes that are to come, and some to spare.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// What came is no answer, or no copy.
    #[error("a copy of the state that cannot be used: {0}; it is fetched anew")]
    Damaged(String),
}

impl From<CheckError> for SnapshotError {
    fn from(error: CheckError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<BackupError> for SnapshotError {
    fn from(error: BackupError) -> Self {
        Self::No(error.to_string())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let path = path.to_owned();
    move |source| SnapshotError::Io { action, path, source }
}

/// How far a copy has come, for those who watch.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes that are here, and bytes of the whole copy; both 0 while none is fetched.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    fn set(&self, done: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }
}
