//! The log's state, which needs no file. Records and bytes are read in `read`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::record::RecordId;
use super::shared::Shared;
use crate::latch::Failure;
use crate::metrics::Histogram;
use crate::terms::{LogIndex, Position};

/// Reads a log; clones are cheap. Nothing here changes it: whoever may write has a [`Log`](super::Log), which is a reader too.
#[derive(Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

/// A segment, for retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first record.
    pub start: Position,
    /// Where its records end and the next segment begins.
    pub end: Position,
    /// Index of its first record.
    pub first_index: LogIndex,
    /// Term and index of the record before its first one; `None` in the first segment of all.
    pub previous: Option<RecordId>,
}

impl SegmentInfo {
    /// Bytes of records in this segment.
    pub fn bytes(&self) -> u64 {
        self.end.since(self.start)
    }
}

impl LogReader {
    /// Index of the oldest record held; if none is held, the one that the next record will have, or 0 in a log that
    /// never had a record.
    pub fn first_index(&self) -> LogIndex {
        self.shared.view.read().first_index()
    }

    /// The newest record held, or if all are purged the last purged one; `None` in an empty log.
    pub fn last(&self) -> Option<RecordId> {
        self.shared.view.read().last.map(|last| RecordId { term: last.term, index: last.index })
    }

    /// The last record that has been purged; `None` if the log holds all records since its beginning.
    pub fn purged(&self) -> Option<RecordId> {
        self.shared.view.read().purged()
    }

    /// Position of the oldest record held, or of the next one if none is.
    pub fn first_position(&self) -> Position {
        self.shared.view.read().first_position()
    }

    /// Bytes from here on are in the tail cache.
    pub fn memory_start(&self) -> Position {
        let view = self.shared.view.read();
        view.tail.first_position().unwrap_or(view.end)
    }

    /// Where the next record will begin.
    pub fn end(&self) -> Position {
        self.shared.view.read().end
    }

    /// Everything before this position survives a power cut. See [`Log::when_durable`](super::Log::when_durable) to wait for it.
    pub fn durable_end(&self) -> Position {
        Position(self.shared.durable_end.load(Ordering::Acquire))
    }

    /// The segments from the oldest to the newest. The newest is never purged.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let view = self.shared.view.read();
        let info = |at: usize| {
            let segment = &view.segments[at];
            SegmentInfo {
                start: segment.start,
                end: view.end_of(at),
                first_index: segment.first_index,
                previous: segment.previous.map(|link| RecordId { term: link.term, index: link.index }),
            }
        };
        (0..view.segments.len()).map(info).collect()
    }

    /// The committed index: the highest that [`Log::set_committed`](super::Log::set_committed) was given, at first the highest that recovery
    /// found. That one may be lower than what had been set before the restart, never higher than the truth.
    pub fn committed(&self) -> Option<LogIndex> {
        self.shared.committed()
    }

    /// How long flushes of records took.
    pub(crate) fn flushes(&self) -> &Histogram {
        &self.shared.flushes
    }

    /// Memory held by the tail cache, in bytes.
    pub fn tail_bytes(&self) -> usize {
        self.shared.view.read().tail.bytes()
    }

    /// The failure that stopped the store, if one did.
    pub fn failure(&self) -> Option<Failure> {
        self.shared.settings.latch.failure().cloned()
    }

    /// The vote saved last; [`Log::save_vote`](super::Log::save_vote) shows here at once.
    pub fn vote(&self) -> Option<Vec<u8>> {
        self.shared.front.lock().vote.clone()
    }

    /// Whether nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.shared.front.lock().queue.is_empty()
    }
}
