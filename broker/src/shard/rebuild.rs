//! An index made from the log alone, for tools: what a broker would make of an empty index folder.

use std::path::Path;
use std::sync::Arc;

use super::applier::{Applier, FlushError};
use super::apply::ApplyError;
use super::base::link_files;
use super::quarantine::Quarantine;
use super::shared::Shared;
use crate::index::store::FLUSH_BYTES;
use crate::index::{Index, IndexError};
use crate::log::Log;
use crate::raft;
use crate::terms::{LogIndex, Position};

/// Bytes of the log applied at once.
const STEP_BYTES: u64 = 4 << 20;

/// Why an index could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log no longer begins at its first record: what came before is only in the index.
    #[error("the log begins at record {first}: what came before it was trimmed and is only in the index")]
    Trimmed {
        /// Raft index of the first record that is left.
        first: LogIndex,
    },
    /// The log could not be read.
    #[error("the log: {0}")]
    Log(#[from] std::io::Error),
    /// The new index could not be made or written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A record could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The new index could not be made durable.
    #[error(transparent)]
    Flush(#[from] FlushError),
}

/// Makes an index in the folder `target`, which must be missing, out of the records of `log` but for those in `quarantine`. If the
/// log no longer begins at its first record, it starts from the copy `base` of an index, if there is one. It goes up to the record
/// with Raft index `upto`, and all of them must be committed; `None` is none of them. `progress` is told the log position that was reached. Blocks.
pub(crate) fn rebuild_index(
    log: &Log,
    quarantine: Quarantine,
    base: Option<&Path>,
    target: &Path,
    upto: Option<LogIndex>,
    mut progress: impl FnMut(Position),
) -> Result<(), RebuildError> {
    if let Some(purged) = log.purged() {
        let Some(base) = base else {
            return Err(RebuildError::Trimmed { first: purged.index.next() });
        };
        link_files(base, target)?;
    }
    let shared = Shared::new(Index::open(target)?, log.clone(), quarantine);
    let applier = Applier::new(Arc::clone(&shared))?;
    let begun = applier.applied().map(|applied| applied.index);
    if let Some(purged) = log.purged().filter(|purged| Some(purged.index) > begun) {
        return Err(RebuildError::Trimmed { first: purged.index.next() });
    }
    let mut next = begun.map_or(log.first_index(), LogIndex::next);
    let end =
        log.last().map_or(LogIndex::ZERO, |last| last.index.next()).min(upto.map_or(LogIndex::ZERO, LogIndex::next));
    while next < end {
        let records = log.read_entries(next, end, STEP_BYTES)?;
        let Some(last) = records.last() else {
            return Err(std::io::Error::other(format!("record {next} is missing")).into());
        };
        next = last.index.next();
        let reached = last.end();
        let entries = records.into_iter().map(raft::committed_entry).collect::<Result<Vec<_>, _>>()?;
        applier.apply(entries)?;
        // Nobody else flushes here.
        if shared.index.unflushed_bytes() >= FLUSH_BYTES {
            applier.flush()?;
        }
        progress(reached);
    }
    Ok(applier.flush()?)
}
