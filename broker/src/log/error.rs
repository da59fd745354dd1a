//! The errors of the log, by operation, with who has to act.

use std::io;
use std::path::PathBuf;

use crate::latch::Failure;
use crate::terms::{LogIndex, Position};

/// Why a log could not be opened. None of these is cured by trying again, except [`OpenError::Io`] perhaps.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that was tried, as a verb.
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Bytes that had been acknowledged as durable are missing or altered. Starting would lose them silently.
    #[error(
        "log file {} is damaged at byte {offset} (position {position}): {why}; nothing was changed. \
         Run `escrowmq fsck` on the folder to see what is left; in a replicated group empty the folder and let \
         this broker rejoin",
        file.display()
    )]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Byte offset in that file.
        offset: u64,
        /// The log position that this offset stands for.
        position: Position,
        /// The fault there.
        why: String,
    },
    /// The files were written by a newer version of this program.
    #[error("log file {} has format version {found}, this program knows versions up to {known}; use a newer program", file.display())]
    NewerFormat {
        /// The file concerned.
        file: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Another process has the folder open.
    #[error("log folder {} is in use by another process", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The settings contradict each other or are out of range.
    #[error("log settings: {0}")]
    Settings(String),
}

/// Why an append was refused. Nothing was appended and the `done` callback is not called.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk has no room for another segment. Appends work again once there is room.
    #[error("no space left for a log segment of {bytes} bytes")]
    NoSpace {
        /// The size of the segment that could not be allocated.
        bytes: u64,
    },
    /// The store has failed; nothing more is taken until a restart.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The record does not follow the last one: its index is not the next one or its term is lower.
    #[error("record (term {term}, index {index}) does not follow (term {last_term}, index {last_index})")]
    OutOfOrder {
        /// The refused record's term.
        term: u64,
        /// The refused record's index.
        index: LogIndex,
        /// The last record's term.
        last_term: u64,
        /// The last record's index.
        last_index: LogIndex,
    },
    /// The given position is not the log's end. In a replica this means that its log differs from the leader's.
    #[error("record {index} belongs at position {given}, but the log ends at {end}")]
    WrongPosition {
        /// The refused record's index.
        index: LogIndex,
        /// The position that the caller gave.
        given: Position,
        /// The position that the record would get.
        end: Position,
    },
    /// A record would get another checksum than it has in the leader's log. The checksum covers all records before it, so this
    /// replica's log differs from the leader's somewhere.
    #[error("record {index} at position {position} does not have the checksum that it has in the leader's log")]
    Diverged {
        /// The refused record's index.
        index: LogIndex,
        /// Where it would begin.
        position: Position,
    },
    /// The record is larger than any record may be.
    #[error("a record of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// The record's size on disk.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
}

impl AppendError {
    /// Whether the same append may succeed later without anything else than time or an operator's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            AppendError::NoSpace { .. } => true,
            AppendError::Failed(_)
            | AppendError::Closed
            | AppendError::OutOfOrder { .. }
            | AppendError::WrongPosition { .. }
            | AppendError::Diverged { .. }
            | AppendError::TooLarge { .. } => false,
        }
    }
}

/// Why records could not be cut off. Nothing was changed and the `done` callback is not called.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TruncateError {
    /// The records to cut include committed ones, which must never go.
    #[error("cannot cut the log after {after:?}: records up to {committed} are committed")]
    Committed {
        /// The index that was to become the last one.
        after: Option<LogIndex>,
        /// The committed index.
        committed: LogIndex,
    },
    /// The index lies outside what the log holds.
    #[error("cannot cut the log after {after:?}: it holds records {first} to {last:?}")]
    OutOfRange {
        /// The index that was to become the last one.
        after: Option<LogIndex>,
        /// The first index held.
        first: LogIndex,
        /// The last index held, if any.
        last: Option<LogIndex>,
    },
    /// The store has failed; nothing more is taken until a restart.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}
