//! A running broker's part in a backup: a checkpoint of the index and hard links of the segments, in a folder of their
//! own on the same file system, until the copy is made.
//!
//! One backup at a time. The program that asked for it says every now and then that it still copies; when nothing was
//! heard for [`LEASE`] the links are removed, because they keep files from being freed that retention has given up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use parking_lot::Mutex;

use super::stopped::{index_files, quarantine_files};
use super::target::write_whole;
use super::{BackupError, Prepared, PreparedFile, failed, new_id};
use crate::log::encode_vote_file;
use crate::log::format::{SEGMENT_HEADER_BYTES, segment_file_name};
use crate::shard::{Applier, FlushError, Shard};
use crate::terms::{LogIndex, Position, Stamp};

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

/// The prepared backups of a broker: none or one.
pub struct Backups {
    store: PathBuf,
    applier: Arc<Applier>,
    lease: Mutex<Option<Lease>>,
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
        Ok(Backups { store: store.to_owned(), applier, lease: Mutex::new(None) })
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
        }
        prepared
    }

    fn fill(&self, shard: &Shard, id: String, now_ms: Stamp) -> Result<Prepared, PrepareError> {
        let folder = self.store.join(FOLDER).join(&id);
        let (log, index) = (folder.join("log"), folder.join("index"));
        fs::create_dir_all(&log).map_err(failed("create", &log))?;
        // Before the checkpoint, so that no segment goes that the index in it still names; and after it, for what
        // came meanwhile.
        let mut linked = BTreeSet::new();
        self.link_segments(shard, &log, &mut linked)?;
        let applied = self.applier.checkpoint(&index)?;
        self.link_segments(shard, &log, &mut linked)?;
        let cut = applied.map_or(Position::ZERO, |applied| applied.end);
        let starts: Vec<Position> = linked.into_iter().filter(|start| *start < cut).collect();
        let mut files = Vec::new();
        for (nth, start) in starts.iter().enumerate() {
            let end = starts.get(nth + 1).copied().unwrap_or(cut);
            let name = segment_file_name(*start);
            let bytes = SEGMENT_HEADER_BYTES + end.since(*start);
            files.push(PreparedFile { name: format!("log/{name}"), path: log.join(&name), bytes });
        }
        let log_start = starts.first().copied().unwrap_or(cut);
        let vote = encode_vote_file(shard.log().vote(), cut);
        let path = log.join("vote");
        write_whole(&path, &vote)?;
        files.push(PreparedFile { name: "log/vote".to_owned(), path, bytes: vote.len() as u64 });
        files.extend(quarantine_files(&self.store)?);
        files.extend(index_files(&index)?);
        Ok(Prepared {
            id,
            created: now_ms,
            log_start,
            log_end: cut,
            applied: applied.map_or(LogIndex::ZERO, |applied| applied.index),
            last: applied.map(|applied| (applied.term, applied.index)),
            files,
        })
    }

    fn link_segments(&self, shard: &Shard, target: &Path, linked: &mut BTreeSet<Position>) -> Result<(), BackupError> {
        for segment in shard.log().segments() {
            let name = segment_file_name(segment.start);
            let (from, to) = (self.store.join("log").join(&name), target.join(&name));
            match fs::hard_link(&from, &to) {
                Ok(()) => drop(linked.insert(segment.start)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                // Trimmed since it was listed, and older ones with it, of which links may have been made; or announced
                // and not written yet. Neither is needed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if segment.start < shard.log().first_position() {
                        linked.retain(|start| *start > segment.start);
                    }
                }
                Err(error) => return Err(failed("link", &to)(error)),
            }
        }
        Ok(())
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
