//! A running broker's part in a backup: a checkpoint of the index and hard links of the segments, in a folder of their
//! own on the same file system, until the copy is made.
//!
//! One backup at a time. The program that asked for it says every now and then that it still copies; when nothing was
//! heard for [`LEASE`] the links are removed, because they keep files from being freed that retention has given up.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use parking_lot::Mutex;

use super::links::{LinkError, Linked, link_store};
use super::target::write_whole;
use super::{BackupError, Prepared, PreparedFile, new_id};
use crate::log::encode_vote_file;
use crate::shard::{Applier, FlushError, Shard};
use crate::terms::{LogIndex, Stamp};

/// How long a prepared backup stays after it was last heard of.
pub const LEASE: Duration = Duration::from_secs(120);

/// The folder in the store that prepared backups lie in.
const FOLDER: &str = "backup";

/// Why a backup was not prepared, or is not there.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Another one is being copied, see [`LEASE`].
    #[error("backup {0} is being taken; wait for its end, or for two minutes after it was last heard of")]
    Busy(String),
    /// There is no such backup any more.
    #[error("there is no prepared backup {0}: it was released, or its lease is over")]
    Gone(String),
    /// Log and index could not be made durable.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A file.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl From<LinkError> for PrepareError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Flush(error) => Self::Flush(error),
            LinkError::File(error) => Self::Backup(error),
        }
    }
}

/// The prepared backups of a broker: none or one.
pub struct Backups {
    store: PathBuf,
    applier: Arc<Applier>,
    lease: Mutex<Option<Lease>>,
    /// When the newest one was prepared, in milliseconds since 1970.
    newest: AtomicU64,
}

struct Lease {
    id: String,
    until: Duration,
}

impl Backups {
    /// Removes what an earlier process left in the store.
    pub fn new(store: &Path, applier: Arc<Applier>) -> std::io::Result<Backups> {
        match fs::remove_dir_all(store.join(FOLDER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Backups { store: store.to_owned(), applier, lease: Mutex::new(None), newest: AtomicU64::new(0) })
    }

    /// Makes everything applied durable and links it. Blocks; sends wait for the short part of it.
    pub fn prepare(&self, shard: &Shard, now_ms: Stamp) -> Result<Prepared, PrepareError> {
        let id = new_id(now_ms);
        {
            let mut lease = self.lease.lock();
            if let Some(lease) = &*lease {
                return Err(PrepareError::Busy(lease.id.clone()));
            }
            *lease = Some(Lease { id: id.clone(), until: clock::monotonic() + LEASE });
        }
        let prepared = self.fill(shard, id, now_ms);
        if prepared.is_err() {
            self.remove();
            *self.lease.lock() = None;
        } else {
            self.newest.store(now_ms.get(), Ordering::Relaxed);
        }
        prepared
    }

    /// When the newest backup was prepared, if one was since the start.
    pub(crate) fn newest(&self) -> Option<Stamp> {
        Some(self.newest.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Stamp)
    }

    fn fill(&self, shard: &Shard, id: String, now_ms: Stamp) -> Result<Prepared, PrepareError> {
        let folder = self.store.join(FOLDER).join(&id);
        let Linked { applied, log_start, log_end, mut files } = link_store(&self.store, shard, &self.applier, &folder)?;
        let vote = encode_vote_file(shard.log().vote(), log_end);
        let path = folder.join("log").join("vote");
        write_whole(&path, &vote)?;
        files.push(PreparedFile { name: "log/vote".to_owned(), path, bytes: vote.len() as u64 });
        let last = applied.map(|applied| (applied.term, applied.index));
        let applied = applied.map_or(LogIndex::ZERO, |applied| applied.index);
        Ok(Prepared { id, created: now_ms, log_start, log_end, applied, last, files })
    }

    /// The copying program is still there.
    pub fn renew(&self, id: &str) -> Result<(), PrepareError> {
        let mut lease = self.lease.lock();
        match &mut *lease {
            Some(lease) if lease.id == id => {
                lease.until = clock::monotonic() + LEASE;
                Ok(())
            }
            _ => Err(PrepareError::Gone(id.to_owned())),
        }
    }

    /// The copy is made. Blocks.
    pub fn release(&self, id: &str) -> Result<(), PrepareError> {
        self.renew(id)?;
        self.remove();
        *self.lease.lock() = None;
        Ok(())
    }

    /// Removes a backup whose lease is over at `now` on the monotonic clock. Says whether one is left. Blocks.
    pub fn expire(&self, now: Duration) -> bool {
        let is_over = self.lease.lock().as_ref().map(|lease| lease.until <= now);
        match is_over {
            None => false,
            Some(false) => true,
            Some(true) => {
                tracing::warn!("a prepared backup was not heard of for {} s and is removed", LEASE.as_secs());
                self.remove();
                *self.lease.lock() = None;
                false
            }
        }
    }

    fn remove(&self) {
        let folder = self.store.join(FOLDER);
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "cannot remove a prepared backup; the next start does");
        }
    }
}
