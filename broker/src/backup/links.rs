//! The files of a running broker as they are at one applied entry: a checkpoint of the index and hard links of the segments.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::stopped::{index_files, quarantine_files};
use super::{BackupError, PreparedFile, failed};
use crate::index::meta::Applied;
use crate::log::format::{SEGMENT_HEADER_BYTES, segment_file_name};
use crate::shard::{Applier, FlushError, Shard};
use crate::terms::Position;

/// Files that belong together, without a vote.
#[derive(Debug)]
pub(crate) struct Linked {
    /// The entry that they end with; `None` if nothing was applied yet.
    pub(crate) applied: Option<Applied>,
    /// Log position of the oldest record.
    pub(crate) log_start: Position,
    /// Log position where the last segment is cut.
    pub(crate) log_end: Position,
    /// The files of log, index and quarantine.
    pub(crate) files: Vec<PreparedFile>,
}

/// Why there are no links. A retry is safe, into another folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Log and index could not be made durable.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A file.
    #[error(transparent)]
    File(#[from] BackupError),
}

/// Makes everything applied durable and links it into a new folder on the same file system. Blocks; sends wait for the short
/// part of it.
pub(crate) fn link_store(store: &Path, shard: &Shard, applier: &Applier, folder: &Path) -> Result<Linked, LinkError> {
    let (log, index) = (folder.join("log"), folder.join("index"));
    fs::create_dir_all(&log).map_err(failed("create", &log))?;
    // Before the checkpoint, so that no segment goes that the index in it still names; and after it, for what
    // came meanwhile.
    let mut linked = BTreeSet::new();
    link_segments(store, shard, &log, &mut linked)?;
    let applied = applier.checkpoint(&index)?;
    link_segments(store, shard, &log, &mut linked)?;
    let cut = applied.map_or(Position::ZERO, |applied| applied.end);
    let starts: Vec<Position> = linked.into_iter().filter(|start| *start < cut).collect();
    let mut files = Vec::new();
    for (nth, start) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).copied().unwrap_or(cut);
        let name = segment_file_name(*start);
        let bytes = SEGMENT_HEADER_BYTES + end.since(*start);
        files.push(PreparedFile { name: format!("log/{name}"), path: log.join(&name), bytes });
    }
    files.extend(quarantine_files(store)?);
    files.extend(index_files(&index)?);
    let log_start = starts.first().copied().unwrap_or(cut);
    Ok(Linked { applied, log_start, log_end: cut, files })
}

fn link_segments(
    store: &Path,
    shard: &Shard,
    target: &Path,
    linked: &mut BTreeSet<Position>,
) -> Result<(), BackupError> {
    for segment in shard.log().segments() {
        let name = segment_file_name(segment.start);
        let (from, to) = (store.join("log").join(&name), target.join(&name));
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
